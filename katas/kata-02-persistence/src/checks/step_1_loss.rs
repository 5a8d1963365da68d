//! Step 1: without a transaction money disappears, and one can see it.

use std::sync::{
    Arc,
    atomic::{AtomicUsize, Ordering},
};

use http::StatusCode;
use kata_lab::{
    Instance, Interleaving, Judged, Lab, Promise, Reached, Stop, at_every_hold_point, proxy::Point,
    told,
};
use serde_json::{Value, json};

use super::{
    bank::{Transfer, balance, balances, open, refuses_input},
    points::Walk,
};

/// An account is opened once and shown.
pub async fn opens_accounts(lab: Lab) -> Judged {
    let program = lab.start().await?;
    let id = lab.id("acct");
    let body = json!({ "account_id": id, "balance_cents": 1_250 });
    let opened = program.post("/accounts").json(&body).send().await?;
    Promise::new(
        "POST /accounts with a new id",
        "201 with account_id and balance_cents",
    )
    .holds(
        opened.status == StatusCode::CREATED && has(&opened.json(), &body),
        opened.to_string(),
    )?;
    let shown = program.get(format!("/accounts/{id}")).send().await?;
    Promise::new("GET /accounts/{id}", "200 with the same members").holds(
        shown.status == StatusCode::OK && has(&shown.json(), &body),
        shown.to_string(),
    )?;
    let richer = json!({ "account_id": id, "balance_cents": 999_999 });
    let again = program.post("/accounts").json(&richer).send().await?;
    let left = balance(&lab, &id).await?;
    Promise::new(
        "POST /accounts with an id that is there, and another balance",
        "409, and the balance stays",
    )
    .holds(
        again.status == StatusCode::CONFLICT && left == 1_250,
        format!("{again}; the balance is {left}"),
    )?;
    let missing = program
        .get(format!("/accounts/{}", lab.id("nobody")))
        .send()
        .await?;
    Promise::new("GET /accounts/{id} of no account", "404")
        .holds(missing.status == StatusCode::NOT_FOUND, missing.to_string())
}

/// Wrong input is refused, as a problem, and changes nothing.
pub async fn rejects_wrong_input(lab: Lab) -> Judged {
    let program = lab.start().await?;
    let (rich, poor) = (
        open(&lab, &program, 1_000).await?,
        open(&lab, &program, 0).await?,
    );
    let transfer = Transfer::new(&lab, &rich, &poor, 100).body();
    let payment = json!({ "payment_id": lab.id("pay"), "account": rich, "amount_cents": 100 });
    let account = json!({ "account_id": lab.id("acct"), "balance_cents": 5 });
    let amounts = [
        json!(0),
        json!(-100),
        json!(1.5),
        json!("100"),
        Value::Null,
        json!(1_000_000_000_001_i64),
    ];
    let ids = [
        json!(""),
        json!("a b"),
        json!("x".repeat(65)),
        json!(7),
        Value::Null,
    ];
    let mut wrong: Vec<(&str, Value)> = Vec::new();
    for (path, good) in [("/transfers", &transfer), ("/payments", &payment)] {
        for amount in &amounts {
            wrong.push((path, with(good, "amount_cents", amount)));
        }
    }
    for id in &ids {
        wrong.push(("/accounts", with(&account, "account_id", id)));
        wrong.push(("/transfers", with(&transfer, "transfer_id", id)));
        wrong.push(("/payments", with(&payment, "payment_id", id)));
    }
    for balance in [
        json!(-1),
        json!(0.5),
        json!("5"),
        json!(1_000_000_000_000_001_i64),
    ] {
        wrong.push(("/accounts", with(&account, "balance_cents", &balance)));
    }
    wrong.push(("/transfers", with(&transfer, "to", &json!(rich))));
    wrong.push(("/accounts", json!(["a list"])));
    for (path, body) in wrong {
        let reply = program.post(path).json(&body).send().await?;
        let promise = Promise::new(
            format!("POST {path} {body}"),
            "400 or 422 as a problem (application/problem+json with title and status)",
        );
        promise.holds(refuses_input(&reply), reply.to_string())?;
        if let Some(why) = reply.not_a_problem() {
            return promise.broken(format!("{reply}: {why}"));
        }
    }
    let not_json = program
        .post("/transfers")
        .bytes("application/json", b"{".to_vec())
        .send()
        .await?;
    Promise::new("POST /transfers with a body that is no JSON", "400 or 422")
        .holds(refuses_input(&not_json), not_json.to_string())?;
    let left = balances(&lab, &[&rich, &poor]).await?;
    Promise::new("only wrong input was sent", "no balance has changed")
        .holds(left == [1_000, 0], format!("balances {left:?}"))
}

fn with(body: &Value, member: &str, value: &Value) -> Value {
    let mut body = body.clone();
    body[member] = value.clone();
    body
}

fn has(body: &Option<Value>, members: &Value) -> bool {
    let Some(members) = members.as_object() else {
        return false;
    };
    body.as_ref().is_some_and(|body| {
        members
            .iter()
            .all(|(name, value)| body.get(name) == Some(value))
    })
}

/// What a loss looks like: how often, and the first one.
#[derive(Clone, Default)]
struct Losses {
    count: Arc<AtomicUsize>,
    tried: Arc<AtomicUsize>,
}

impl Losses {
    fn tried(&self) {
        self.tried.fetch_add(1, Ordering::Relaxed);
    }

    fn seen(&self) {
        self.count.fetch_add(1, Ordering::Relaxed);
    }

    fn counts(&self) -> (usize, usize) {
        let read = |counter: &AtomicUsize| counter.load(Ordering::Relaxed);
        (read(&self.count), read(&self.tried))
    }
}

/// Somewhere between debit and credit the total is smaller, and a crash there makes it stay so.
pub async fn shows_the_loss_of_a_crash(lab: Lab) -> Judged<String> {
    let program = lab.start().await?;
    unsafe_alone(&lab, &program).await?;
    let from = open(&lab, &program, 1_000).await?;
    let to = open(&lab, &program, 1_000).await?;
    let total = async || Ok::<i64, Box<Stop>>(balances(&lab, &[&from, &to]).await?.iter().sum());
    let transfer = Transfer::new(&lab, &from, &to, 400);
    let points = [Point::Early, Point::Late];
    let mut walk = Walk::begin(&program, &points, transfer.unsafe_request(&program)).await;
    let (mut looks, mut is_smaller) = (0, false);
    while !is_smaller && walk.next().await?.is_some() {
        looks += 1;
        let between = total().await?;
        is_smaller = between < 2_000;
        if is_smaller {
            lab.note(format!("the total is {between}"));
            program.crash().await?;
        }
    }
    walk.end().await?.ok();
    if is_smaller {
        program.restart().await?;
        let after = total().await?;
        if after < 2_000 {
            return Ok(format!("{} of 2000 lost for good", 2_000 - after));
        }
    }
    Promise::new(
        "POST /unsafe/transfers of 400 between two accounts with 1000 each, held before and after each of its round trips, to be crashed where the total is smaller than 2000",
        "at some point it is: four statements on their own can be cut in two",
    )
    .broken(format!("2000 at each of {looks} looks"))
}

/// Two transfers at once, each computing from what it has read: one of them disappears.
pub async fn shows_a_lost_update(lab: Lab) -> Judged<String> {
    let losses = Losses::default();
    let noted = losses.clone();
    let warm = |stage: Lab, program: Instance| async move { unsafe_alone(&stage, &program).await };
    let scene = move |stage: Lab, both: Interleaving| {
        let losses = noted.clone();
        async move {
            let from = open(&stage, &both.second, 1_000).await?;
            let [one, other] = [
                open(&stage, &both.second, 1_000).await?,
                open(&stage, &both.second, 1_000).await?,
            ];
            let first = Transfer::new(&stage, &from, &one, 100);
            let second = Transfer::new(&stage, &from, &other, 200);
            let played = both
                .play(
                    first.unsafe_request(&both.first).actor("first, at A"),
                    second.unsafe_request(&both.second).actor("second, at B"),
                )
                .await?;
            if played.reached == Reached::Held {
                losses.tried();
                let left = balances(&stage, &[&from, &one, &other]).await?;
                if left != [700, 1_100, 1_200] {
                    losses.seen();
                }
            }
            Ok(played.reached)
        }
    };
    at_every_hold_point(&lab, warm, scene).await?;
    let (lost, tried) = losses.counts();
    Promise::new(
        "POST /unsafe/transfers of 100 and of 200 from one account with 1000 at once, the first held at each of its round trips while the second ran",
        "at some point the balances are not 700, 1100 and 1200: who computes from what was read writes over what was written since",
    )
    .holds(lost > 0, format!("700, 1100 and 1200 at each of {tried} hold points"))?;
    Ok(format!(
        "an update was lost at {lost} of {tried} hold points"
    ))
}

/// A loss is worth something only if the route works at all.
async fn unsafe_alone(lab: &Lab, program: &Instance) -> Judged {
    let from = open(lab, program, 1_000).await?;
    let to = open(lab, program, 1_000).await?;
    let transfer = Transfer::new(lab, &from, &to, 400);
    let answer = transfer.unsafe_request(program).attempt().await?;
    let left = balances(lab, &[&from, &to]).await?;
    Promise::new(
        "POST /unsafe/transfers of 400 between two accounts with 1000 each, alone",
        "a 2xx with the same members, and balances of 600 and 1400",
    )
    .holds(
        transfer.not_done_by(&answer).is_none() && left == [600, 1_400],
        format!("{}; balances {left:?}", told(&answer)),
    )
}
