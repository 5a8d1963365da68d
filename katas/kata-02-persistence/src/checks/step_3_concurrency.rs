//! Step 3: two transfers at once are as good as one after the other.
//!
//! Each of these but the last holds the first transfer at every point of its way, while the second
//! goes through another instance: a lock in the memory of a process does not hold here.

use http::StatusCode;
use kata_lab::{Instance, Interleaving, Judged, Lab, Played, Promise, at_every_hold_point, told};

use super::{
    bank::{Transfer, balances, open, says_wait},
    points::behind_a_lock,
    writes,
};

/// One transfer on each instance, so that connecting does not count as a hold point.
async fn warm(stage: Lab, program: Instance) -> Judged {
    let from = open(&stage, &program, 10).await?;
    let to = open(&stage, &program, 0).await?;
    let transfer = Transfer::new(&stage, &from, &to, 1);
    let answer = transfer.request(&program).quietly().attempt().await?;
    let promise = Promise::new("POST /transfers of 1, alone", "a 2xx with the same members");
    match transfer.not_done_by(&answer) {
        None => Ok(()),
        Some(saw) => promise.broken(saw),
    }
}

async fn both_at_once(both: &Interleaving, first: &Transfer, second: &Transfer) -> Judged<Played> {
    both.play(
        first.request(&both.first).actor("first, at A"),
        second.request(&both.second).actor("second, at B"),
    )
    .await
}

/// Two transfers from one account at once: both are made.
pub async fn loses_no_update(lab: Lab) -> Judged<String> {
    // With one instance only there is nothing to write down.
    if lab.can_start_instances() {
        writes::record(&lab).await?;
    }
    let scene = |stage: Lab, both: Interleaving| async move {
        let from = open(&stage, &both.second, 1_000).await?;
        let [one, other] = [
            open(&stage, &both.second, 0).await?,
            open(&stage, &both.second, 0).await?,
        ];
        let first = Transfer::new(&stage, &from, &one, 100);
        let second = Transfer::new(&stage, &from, &other, 200);
        let played = both_at_once(&both, &first, &second).await?;
        let accounts = [(&*from, 1_000), (&*one, 0), (&*other, 0)];
        let (is_right, saw) = both_made(&stage, accounts, [&first, &second]).await?;
        Promise::new(
            "POST /transfers of 100 and of 200 from one account with 1000 at once, through two instances; the first held at every point of its way",
            "both are made: balances of 700, 100 and 200",
        )
        .holds(is_right, saw)?;
        Ok(played.reached)
    };
    let note = at_every_hold_point(&lab, warm, scene).await?;
    loses_none_behind_a_lock(&lab).await?;
    Ok(note)
}

/// Whether transfers of 100 and of 200 were both made, and what the accounts say of it.
async fn both_made(
    lab: &Lab,
    accounts: [(&str, i64); 3],
    transfers: [&Transfer; 2],
) -> Judged<(bool, String)> {
    let left = balances(lab, &accounts.map(|(account, _)| account)).await?;
    let anomaly = writes::anomaly(lab, &accounts, &transfers).await?;
    let is_right = left == [700, 100, 200] && anomaly.is_none();
    let why = anomaly.map(|anomaly| format!("; {anomaly}"));
    let saw = format!("balances {left:?}{}", why.unwrap_or_default());
    Ok((is_right, saw))
}

/// The same for a transfer of a single statement, whose snapshot gets old while it waits.
async fn loses_none_behind_a_lock(lab: &Lab) -> Judged {
    let a = lab.start_as("instance C").await?;
    let b = lab.start_as("instance D").await?;
    let from = open(lab, &a, 1_000).await?;
    let [one, other] = [open(lab, &a, 0).await?, open(lab, &a, 0).await?];
    let first = Transfer::new(lab, &from, &one, 100);
    let second = Transfer::new(lab, &from, &other, 200);
    let transfers = [
        (&a, first.request(&a).actor("first, at C")),
        (&b, second.request(&b).actor("second, at D")),
    ];
    let answers = behind_a_lock(lab, "accounts", transfers).await?;
    let accounts = [(&*from, 1_000), (&*one, 0), (&*other, 0)];
    let (is_right, saw) = both_made(lab, accounts, [&first, &second]).await?;
    Promise::new(
        "POST /transfers of 100 and of 200 from one account with 1000 at once, through two instances, while another session held the rows and then let go",
        "both are made: balances of 700, 100 and 200",
    )
    .holds(
        is_right,
        format!("{} and {}; {saw}", told(&answers[0]), told(&answers[1])),
    )
}

/// Two transfers at once from an account that has enough for one: one is made.
pub async fn never_overdraws(lab: Lab) -> Judged<String> {
    let scene = |stage: Lab, both: Interleaving| async move {
        let from = open(&stage, &both.second, 100).await?;
        let [one, other] = [
            open(&stage, &both.second, 0).await?,
            open(&stage, &both.second, 0).await?,
        ];
        let first = Transfer::new(&stage, &from, &one, 70);
        let second = Transfer::new(&stage, &from, &other, 80);
        let played = both_at_once(&both, &first, &second).await?;
        let left = balances(&stage, &[&from, &one, &other]).await?;
        let one_was_made = match (&played.first, &played.second) {
            (Ok(first), Ok(second)) if first.status.is_success() => {
                is_refused(second.status) && left == [30, 70, 0]
            }
            (Ok(first), Ok(second)) if second.status.is_success() => {
                is_refused(first.status) && left == [20, 0, 80]
            }
            _ => false,
        };
        Promise::new(
            "POST /transfers of 70 and of 80 from one account with 100 at once, through two instances; the first held at every point of its way",
            "one is made, the other is refused with 409, and no balance is below 0",
        )
        .holds(
            one_was_made,
            format!(
                "{} and {}; balances {left:?}",
                told(&played.first),
                told(&played.second)
            ),
        )?;
        Ok(played.reached)
    };
    at_every_hold_point(&lab, warm, scene).await
}

fn is_refused(status: StatusCode) -> bool {
    status == StatusCode::CONFLICT
}

/// Opposite transfers between two accounts at once: neither hears of a deadlock.
pub async fn hides_deadlocks(lab: Lab) -> Judged<String> {
    let scene = |stage: Lab, both: Interleaving| async move {
        let a = open(&stage, &both.second, 1_000).await?;
        let b = open(&stage, &both.second, 1_000).await?;
        // Whichever order a program locks in, one of the two meets it from the other side.
        let first = Transfer::new(&stage, &a, &b, 100);
        let second = Transfer::new(&stage, &b, &a, 200);
        let played = both_at_once(&both, &first, &second).await?;
        let promise = Promise::new(
            "POST /transfers between two accounts at once, in opposite directions and through two instances; the first held at every point of its way",
            "both are answered 2xx: nobody is refused because another one is writing",
        );
        for (transfer, answer) in [(&first, &played.first), (&second, &played.second)] {
            if let Some(saw) = transfer.not_done_by(answer) {
                return promise.broken(saw);
            }
        }
        Ok(played.reached)
    };
    at_every_hold_point(&lab, warm, scene).await
}

/// The same transfer twice at once: it is made once.
pub async fn moves_it_once_under_concurrency(lab: Lab) -> Judged<String> {
    let scene = |stage: Lab, both: Interleaving| async move {
        let from = open(&stage, &both.second, 1_000).await?;
        let to = open(&stage, &both.second, 0).await?;
        let transfer = Transfer::new(&stage, &from, &to, 100);
        let played = both_at_once(&both, &transfer, &transfer).await?;
        let left = balances(&stage, &[&from, &to]).await?;
        let mut made = 0;
        let mut saw = format!(
            "{} and {}; balances {left:?}",
            told(&played.first),
            told(&played.second)
        );
        for answer in [&played.first, &played.second] {
            match (transfer.not_done_by(answer), answer) {
                (None, _) => made += 1,
                (Some(_), Ok(reply)) if says_wait(reply) => {}
                (Some(why), _) => {
                    saw = format!("{why}; balances {left:?}");
                    made = 0;
                    break;
                }
            }
        }
        Promise::new(
            "the same POST /transfers of 100 twice at once, through two instances; the first held at every point of its way",
            "2xx with the same JSON value, or for one of them 409 with Retry-After; 100 moved once",
        )
        .holds(made > 0 && left == [900, 100], saw)?;
        Ok(played.reached)
    };
    at_every_hold_point(&lab, warm, scene).await
}

/// How many transfers there are, and how many at once.
const TRANSFERS: usize = 200;
const AT_ONCE: usize = 50;

/// Two hundred transfers, fifty at once, in both directions between two accounts.
pub async fn survives_two_hundred_transfers(lab: Lab) -> Judged {
    let mut instances = vec![lab.start_as("instance A").await?];
    if lab.can_start_instances() {
        instances.push(lab.start_as("instance B").await?);
    }
    let a = open(&lab, &instances[0], 1_000_000).await?;
    let b = open(&lab, &instances[0], 1_000_000).await?;
    let mut expected = 1_000_000;
    let promise = Promise::new(
        format!(
            "{TRANSFERS} × POST /transfers in both directions between two accounts, {AT_ONCE} at once"
        ),
        "each is answered 2xx, and the balances are what all of them together make",
    );
    for wave in 0..TRANSFERS / AT_ONCE {
        let mut pending = Vec::new();
        for number in 0..AT_ONCE {
            let amount = 1 + lab.pick(0..=99).cast_signed();
            let (from, to) = match number % 2 {
                0 => (&a, &b),
                _ => (&b, &a),
            };
            expected += match number % 2 {
                0 => -amount,
                _ => amount,
            };
            let mut transfer = Transfer::new(&lab, from, to, amount);
            // Random ids are short; among so many of them two might be the same.
            transfer.transfer_id = format!("{}-{wave}-{number}", transfer.transfer_id);
            let at = &instances[(number / 2) % instances.len()];
            let request = transfer.request(at).actor(format!("request {number}"));
            pending.push((transfer, request.spawn()));
        }
        for (transfer, mut pending) in pending {
            let answer = pending.attempted().await?;
            if let Some(saw) = transfer.not_done_by(&answer) {
                return promise.broken(saw);
            }
        }
    }
    let left = balances(&lab, &[&a, &b]).await?;
    promise.holds(
        left == [expected, 2_000_000 - expected],
        format!(
            "balances {left:?}, and not {expected} and {}",
            2_000_000 - expected
        ),
    )
}
