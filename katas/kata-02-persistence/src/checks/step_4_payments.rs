//! Step 4: a payment has an id, and is made once for it.

use http::StatusCode;
use kata_lab::{
    CrashPoint, Instance, Interleaving, Judged, Lab, Pending, Promise, Reply, Stop,
    at_every_crash_point, at_every_hold_point, proxy::Point, told,
};

use super::{
    bank::{Payment, balance, open, refuses_reuse, says_wait, until_final},
    points::{Walk, crash, cut},
};

/// Debit and row appear, the payment can be read, and what the rules forbid does not happen.
pub async fn pays_and_shows_the_payment(lab: Lab) -> Judged {
    let program = lab.start().await?;
    let account = open(&lab, &program, 1_000).await?;
    let payment = Payment::new(&lab, &account, 400);
    let first = payment.request(&program).send().await?;
    let left = balance(&lab, &account).await?;
    Promise::new(
        "POST /payments of 400 from an account with 1000",
        "201 with the same members, and a balance of 600",
    )
    .holds(
        first.status == StatusCode::CREATED
            && payment.not_paid_by(&Ok(first.clone())).is_none()
            && left == 600,
        format!("{first}; balance {left}"),
    )?;
    let shown = payment.look_up(&program).send().await?;
    Promise::new("GET /payments/{id}", "200 with the same members").holds(
        payment.not_paid_by(&Ok(shown.clone())).is_none(),
        shown.to_string(),
    )?;
    let again = payment.request(&program).actor("again").send().await?;
    let left = balance(&lab, &account).await?;
    Promise::new(
        "POST /payments of 400, and the same again",
        "200 or 201 with the same JSON value, and 400 taken once",
    )
    .holds(
        is_same(&first, &again) && left == 600,
        format!("{again}; balance {left}"),
    )?;
    let too_much = Payment::new(&lab, &account, 601);
    let nobody = Payment::new(&lab, &lab.id("nobody"), 100);
    for (payment, status) in [
        (&too_much, StatusCode::CONFLICT),
        (&nobody, StatusCode::NOT_FOUND),
    ] {
        let reply = payment.request(&program).send().await?;
        let rows = payment.rows(&lab).await?;
        Promise::new(
            "POST /payments of more than there is, and from an account that is not there",
            "409 and 404, and no row",
        )
        .holds(
            reply.status == status && rows == 0,
            format!("{reply}; {rows} rows"),
        )?;
    }
    let missing = too_much.look_up(&program).send().await?;
    Promise::new("GET /payments/{id} of a payment that was refused", "404")
        .holds(missing.status == StatusCode::NOT_FOUND, missing.to_string())
}

/// A payment that could not be made is made when the money has come.
pub async fn forgets_a_refused_payment(lab: Lab) -> Judged {
    let program = lab.start().await?;
    let account = open(&lab, &program, 100).await?;
    let rich = open(&lab, &program, 5_000).await?;
    let payment = Payment::new(&lab, &account, 400);
    let refused = payment.request(&program).actor("too early").send().await?;
    let gift = super::bank::Transfer::new(&lab, &rich, &account, 1_000);
    let given = gift
        .request(&program)
        .actor("the money comes")
        .send()
        .await?;
    let reply = payment.request(&program).actor("again").send().await?;
    let left = balance(&lab, &account).await?;
    Promise::new(
        "POST /payments of 400 from an account with 100; 1000 came in; the same payment again",
        "409, then 2xx, and a balance of 700",
    )
    .holds(
        refused.status == StatusCode::CONFLICT
            && given.status.is_success()
            && payment.not_paid_by(&Ok(reply.clone())).is_none()
            && left == 700,
        format!("{refused}, then {reply}; balance {left}"),
    )
}

fn is_same(first: &Reply, again: &Reply) -> bool {
    matches!(again.status, StatusCode::OK | StatusCode::CREATED) && again.json() == first.json()
}

async fn warm(stage: Lab, program: Instance) -> Judged {
    let account = open(&stage, &program, 10).await?;
    let payment = Payment::new(&stage, &account, 1);
    let answer = payment.request(&program).quietly().attempt().await?;
    match payment.not_paid_by(&answer) {
        None => Ok(()),
        Some(saw) => {
            Promise::new("POST /payments of 1, alone", "a 2xx with the same members").broken(saw)
        }
    }
}

/// How many ask for one payment at once.
const CROWD: usize = 50;

/// The same payment twice at once, at every interleaving, and then fifty times at once.
pub async fn pays_once_under_concurrency(lab: Lab) -> Judged<String> {
    let scene = |stage: Lab, both: Interleaving| async move {
        let account = open(&stage, &both.second, 1_000).await?;
        let payment = Payment::new(&stage, &account, 100);
        let played = both
            .play(
                payment.request(&both.first).actor("first, at A"),
                payment.request(&both.second).actor("second, at B"),
            )
            .await?;
        let promise = Promise::new(
            "the same POST /payments of 100 twice at once, through two instances; the first held at every point of its way",
            AGREE,
        );
        let answers = [played.first, played.second];
        paid_once(&stage, &payment, &answers, 900, &promise).await?;
        Ok(played.reached)
    };
    let note = at_every_hold_point(&lab, warm, scene).await?;
    crowd(&lab).await?;
    Ok(format!("{note}; and {CROWD} at once"))
}

const AGREE: &str = "one row, 100 taken once, and answers that agree: 2xx with the same JSON value, or 409 with Retry-After";

async fn crowd(lab: &Lab) -> Judged {
    let instances = [
        lab.start_as("instance C").await?,
        lab.start_as("instance D").await?,
    ];
    let account = open(lab, &instances[0], 10_000).await?;
    let payment = Payment::new(lab, &account, 100);
    let mut crowd: Vec<Pending> = (0..CROWD)
        .map(|number| {
            let at = &instances[number % instances.len()];
            let request = payment.request(at).actor(format!("request {}", number + 1));
            request.spawn()
        })
        .collect();
    let mut answers = Vec::new();
    for one in &mut crowd {
        answers.push(one.attempted().await?);
    }
    let promise = Promise::new(
        format!("the same POST /payments of 100, {CROWD} times at once through two instances"),
        AGREE,
    );
    paid_once(lab, &payment, &answers, 9_900, &promise).await
}

type Answer = Result<Reply, kata_lab::NoAnswer>;

async fn paid_once(
    lab: &Lab,
    payment: &Payment,
    answers: &[Answer],
    left: i64,
    promise: &Promise,
) -> Judged {
    let (rows, is_left) = (
        payment.rows(lab).await?,
        balance(lab, &payment.account).await?,
    );
    let saw = format!("{rows} rows, balance {is_left}");
    let mut paid = 0;
    for answer in answers {
        match (payment.not_paid_by(answer), answer) {
            (None, _) => paid += 1,
            (Some(_), Ok(reply)) if says_wait(reply) => {}
            (Some(why), _) => return promise.broken(format!("{why}; {saw}")),
        }
    }
    promise.holds(
        paid > 0 && rows == 1 && is_left == left,
        format!("{saw}; {paid} of {} said paid", answers.len()),
    )
}

/// An id pays one thing: other content is refused, later and at the same time.
pub async fn refuses_other_content(lab: Lab) -> Judged<String> {
    let scene = |stage: Lab, both: Interleaving| async move {
        let account = open(&stage, &both.second, 1_000).await?;
        let neighbour = open(&stage, &both.second, 1_000).await?;
        let payment = Payment::new(&stage, &account, 100);
        let mut other = payment.clone();
        // Each of the two members alone, in turn.
        match both.at.round_trip % 2 {
            0 => other.amount_cents = 250,
            _ => other.account.clone_from(&neighbour),
        }
        let played = both
            .play(
                payment.request(&both.first).actor("first, at A"),
                other.request(&both.second).actor("second, at B"),
            )
            .await?;
        let left = [
            balance(&stage, &account).await?,
            balance(&stage, &neighbour).await?,
        ];
        let rows = payment.rows(&stage).await?;
        let won = |payment: &Payment, answer: &Answer, loser: &Answer| {
            let lost = match loser {
                Ok(reply) => refuses_reuse(reply) || says_wait(reply),
                Err(_) => false,
            };
            let taken = |id: &str| match payment.account == id {
                true => 1_000 - payment.amount_cents,
                false => 1_000,
            };
            lost && payment.not_paid_by(answer).is_none()
                && left == [taken(&account), taken(&neighbour)]
        };
        Promise::new(
            "POST /payments with one payment_id and two contents at once, through two instances; the first held at every point of its way",
            "exactly one is paid, the other is refused with 409 or 422",
        )
        .holds(
            rows == 1
                && (won(&payment, &played.first, &played.second)
                    || won(&other, &played.second, &played.first)),
            format!(
                "{} and {}; {rows} rows, balances {left:?}",
                told(&played.first),
                told(&played.second)
            ),
        )?;
        Ok(played.reached)
    };
    one_after_the_other(&lab).await?;
    at_every_hold_point(&lab, warm, scene).await
}

async fn one_after_the_other(lab: &Lab) -> Judged {
    let program = lab.start().await?;
    let account = open(lab, &program, 1_000).await?;
    let neighbour = open(lab, &program, 1_000).await?;
    let payment = Payment::new(lab, &account, 100);
    payment.request(&program).send().await?;
    let mut amount = payment.clone();
    amount.amount_cents += 1;
    let mut elsewhere = payment.clone();
    elsewhere.account.clone_from(&neighbour);
    for (what, other) in [("amount_cents", amount), ("account", elsewhere)] {
        let reply = other.request(&program).send().await?;
        let left = [
            balance(lab, &account).await?,
            balance(lab, &neighbour).await?,
        ];
        Promise::new(
            format!("POST /payments with a used payment_id and another {what}"),
            "409 or 422, and no balance changes",
        )
        .holds(
            refuses_reuse(&reply) && left == [900, 1_000],
            format!("{reply}; balances {left:?}"),
        )?;
    }
    Ok(())
}

const TOGETHER: &str = "debit and row appear together or not at all; the same payment again is answered 2xx and is made once, also after one more restart";

/// A crash at every round trip: there is never a debit without its row, nor a row without its debit.
pub async fn keeps_debit_and_payment_together(lab: Lab) -> Judged<String> {
    let scene = |stage: Lab, program: Instance, point: CrashPoint| async move {
        let account = open(&stage, &program, 1_000).await?;
        let payment = Payment::new(&stage, &account, 400);
        let promise = Promise::new(
            format!("POST /payments of 400; crashed {point}; started again; the same again"),
            TOGETHER,
        );
        let story = async { payment.request(&program).attempt().await.map(drop) };
        if !crash(&stage, &program, point, story).await? {
            return Ok(None);
        }
        let (rows, left) = (
            payment.rows(&stage).await?,
            balance(&stage, &account).await?,
        );
        promise.holds(
            matches!((rows, left), (0, 1_000) | (1, 600)),
            format!("after the crash {rows} rows and a balance of {left}"),
        )?;
        let reply = until_final(&stage, &promise, || payment.request(&program)).await?;
        paid_once(&stage, &payment, &[Ok(reply)], 600, &promise).await?;
        Ok(Some((point, payment)))
    };
    let still = |stage: Lab, program: Instance, (point, payment): (_, Payment)| async move {
        let promise = Promise::new(
            format!(
                "POST /payments of 400; crashed {point}; started again; the same again; one more restart, and once more"
            ),
            TOGETHER,
        );
        let reply = until_final(&stage, &promise, || payment.request(&program)).await?;
        paid_once(&stage, &payment, &[Ok(reply)], 600, &promise).await
    };
    at_every_crash_point(&lab, scene, still).await
}

const ONCE: &str = "one row and 400 taken once: a commit whose answer is lost may have been done, and is not done again";

/// The program's connections break at every round trip, and it lives: nothing is paid twice.
pub async fn pays_once_when_connections_break(lab: Lab) -> Judged<String> {
    let scene = |stage: Lab, program: Instance, point: CrashPoint| async move {
        let account = open_patiently(&stage, &program).await?;
        let payment = Payment::new(&stage, &account, 400);
        let promise = Promise::new(
            "POST /payments of 400; its database connections were cut at every point of its way; the same again until it was answered",
            ONCE,
        );
        let story = async { payment.request(&program).attempt().await.map(drop) };
        if !cut(&stage, &program, point, story).await? {
            return Ok(None);
        }
        let reply = until_final(&stage, &promise, || payment.request(&program)).await?;
        paid_once(&stage, &payment, &[Ok(reply)], 600, &promise).await?;
        Ok(Some(()))
    };
    let still = |_: Lab, _: Instance, (): ()| async { Ok(()) };
    broken_after_the_commit(&lab).await?;
    at_every_crash_point(&lab, scene, still).await
}

/// The one point that must not be missed: the payment is committed, and nobody has heard of it. It
/// is found by looking at the table at every point, since numbers differ from run to run.
async fn broken_after_the_commit(lab: &Lab) -> Judged {
    let program = lab.start().await?;
    warm(lab.clone(), program.clone()).await?;
    let account = open(lab, &program, 1_000).await?;
    let payment = Payment::new(lab, &account, 400);
    let points = [Point::Early, Point::Late];
    let mut walk = Walk::begin(&program, &points, payment.request(&program)).await;
    let committed = loop {
        let Some(held) = walk.next().await? else {
            return Stop::inconclusive("the payment was never seen in the table before its answer");
        };
        if payment.rows(lab).await? > 0 {
            break held;
        }
    };
    // No other one: who tries again finds a connection that works, whatever its pool looks like.
    lab.note("the payment is committed: cuts the connection");
    program.front().reset_connection(committed.connection);
    walk.end().await?.ok();
    let promise = Promise::new(
        "POST /payments of 400; its database connection was cut when it was committed, before the program heard of it; the same again until it was answered",
        ONCE,
    );
    let reply = until_final(lab, &promise, || payment.request(&program)).await?;
    paid_once(lab, &payment, &[Ok(reply)], 600, &promise).await
}

/// An account with 1000, opened by a program that may still have broken connections in its pool.
async fn open_patiently(stage: &Lab, program: &Instance) -> Judged<String> {
    let id = stage.id("acct");
    let body = serde_json::json!({ "account_id": id, "balance_cents": 1_000 });
    let promise = Promise::new("POST /accounts after connections were cut", "an answer");
    let ask = || program.post("/accounts").json(&body);
    let reply = until_final(stage, &promise, ask).await?;
    // 409 if an earlier try was done and its answer lost.
    let is_open = reply.status.is_success() || reply.status == StatusCode::CONFLICT;
    promise.holds(is_open, reply.to_string())?;
    Ok(id)
}
