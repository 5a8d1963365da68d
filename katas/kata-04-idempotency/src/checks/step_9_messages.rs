//! Step 9: the worker. The lab is the broker: 2xx is an ack, anything else comes again.

use std::time::{Duration, Instant};

use http::StatusCode;
use kata_lab::{
    CrashPoint, Instance, Judged, Lab, Pending, Promise, Reply, Request, at_every_crash_point,
    fakes::{Caught, Trap, payment_provider::DECLINED_CARD},
};
use serde_json::{Value, json};

use super::{
    step_6_crashes::crash,
    till::{
        LAST_RESORT, Payment, SLACK, before_the_lease_ends, caught, lease_and_slack, long_lease,
        settled, short_lease, until, well_within_the_lease, within_a_lease,
    },
};

fn push(at: &Instance, message: &Value) -> Request {
    let shown = message["message_id"]
        .as_str()
        .unwrap_or_default()
        .to_owned();
    at.post("/messages").json(message).shown(shown)
}

/// The broker pushes again and again until the message is acked.
async fn until_acked(
    lab: &Lab,
    promise: &Promise,
    at: &Instance,
    message: &Value,
) -> Judged<Reply> {
    let push = |number| push(at, message).actor(format!("push {number}"));
    let is_acked = |reply: &Reply| reply.status.is_success();
    until(lab, lease_and_slack(lab), promise, push, is_acked).await
}

/// The effect is there: captured once, and to be seen.
async fn done_once(lab: &Lab, promise: &Promise, at: &Instance, payment: &Payment) -> Judged {
    let within = lab.millis("KEY_LEASE_MS") + Duration::from_secs(5) + SLACK;
    let look = |_| payment.look_up(at, &payment.account).quietly();
    let is_captured = |reply: &Reply| reply.text("status").as_deref() == Some("captured");
    let seen = until(lab, within, promise, look, is_captured).await;
    if seen.is_err() {
        let (_, captures) = payment.captures(lab);
        lab.note(format!("GET /payments/{}: {captures}", payment.payment_id));
    }
    seen?;
    let (captures, saw) = payment.captures(lab);
    promise.holds(captures == 1, saw)
}

/// Duplicates, one after the other and at the same time.
pub async fn does_a_message_once(lab: Lab) -> Judged {
    long_lease(&lab);
    let program = lab.start().await?;
    let payment = Payment::new(&lab);
    let message = payment.message(&lab.id("message"));
    let promise = Promise::new(
        "a message, pushed until it was acked, and three times more",
        "1 charge",
    );
    until_acked(&lab, &promise, &program, &message).await?;
    done_once(&lab, &promise, &program, &payment).await?;
    for _ in 0..3 {
        until_acked(&lab, &promise, &program, &message).await?;
    }
    let (captures, saw) = payment.captures(&lab);
    promise.holds(captures == 1, saw)?;

    let instances = match lab.can_start_instances() {
        true => vec![program, lab.start_as("second instance").await?],
        false => vec![program],
    };
    within_a_lease(&lab, async {
        const PUSHES: usize = 10;
        let payment = Payment::new(&lab);
        let message = payment.message(&lab.id("message"));
        let promise = Promise::new(
            format!("{PUSHES} pushes of one message at the same time; the provider held the first call until the others had come so far as they can"),
            "1 charge",
        );
        let trap = lab.provider().trap_payment(&payment.payment_id);
        let mut pushes: Vec<Pending> = (0..PUSHES)
            .map(|number| {
                let at = &instances[number % instances.len()];
                push(at, &message).actor(format!("push {}", number + 1)).spawn()
            })
            .collect();
        let held = caught(&trap, &promise).await?;
        let unanswered = || pushes.iter().filter(|push| !push.is_answered()).count();
        settled(&lab, &instances, || trap.waiting() > 0 || unanswered() <= 1).await;
        held.answer();
        drop(trap);
        for push in &mut pushes {
            push.attempted().await?.ok();
        }
        until_acked(&lab, &promise, &instances[0], &message).await?;
        done_once(&lab, &promise, &instances[0], &payment).await
    })
    .await
}

/// An acked message never comes again, so it must be done or durably kept.
pub async fn finishes_what_it_acked(lab: Lab) -> Judged {
    before_the_lease_ends(&lab, |program| async {
        let program = program;
        acked_then_crashed(&lab, &program).await?;
        duplicate_acked_then_crashed(&lab, &program).await
    })
    .await
}

/// What comes first: the call to the provider, or the push's answer (`None`).
async fn call_or_answer(
    trap: &Trap,
    push: &mut Pending,
    promise: &Promise,
) -> Judged<Option<Caught>> {
    tokio::select! {
        biased;
        held = trap.caught() => Ok(Some(held)),
        answer = push.attempted() => answer.map(|_| None),
        _ = tokio::time::sleep(LAST_RESORT) => {
            promise.broken("neither an ack nor a call to the provider")
        }
    }
}

async fn acked_then_crashed(lab: &Lab, program: &Instance) -> Judged {
    let payment = Payment::new(lab);
    let message = payment.message(&lab.id("message"));
    let promise = Promise::new(
        "a message; crashed right after its ack, and never pushed again; started again",
        "the program finishes it by itself within its lease and 5 s: 1 charge",
    );
    let trap = lab.provider().trap_payment(&payment.payment_id);
    let mut first = push(program, &message).actor("push").spawn();
    let held = call_or_answer(&trap, &mut first, &promise).await?;
    if let Some(held) = held {
        settled(lab, std::slice::from_ref(program), || first.is_answered()).await;
        if first.is_answered() && acked(&mut first).await? {
            program.crash().await?;
            held.break_connection();
            drop(trap);
            program.restart().await?;
            return done_once(lab, &promise, program, &payment).await;
        }
        held.answer();
    }
    drop(trap);
    if !acked(&mut first).await? {
        until_acked(lab, &promise, program, &message).await?;
    }
    program.crash().await?;
    program.restart().await?;
    done_once(lab, &promise, program, &payment).await
}

/// `false` if the call was held for so long that a second handler may have taken the message over.
async fn duplicate_acked_then_crashed(lab: &Lab, program: &Instance) -> Judged<bool> {
    let payment = Payment::new(lab);
    let message = payment.message(&lab.id("message"));
    let promise = Promise::new(
        "a message, and its duplicate while the provider held the call of the first; crashed; pushed again only if neither was acked",
        "1 charge, whichever push was acked",
    );
    let trap = lab.provider().trap_payment(&payment.payment_id);
    let began = Instant::now();
    let mut first = push(program, &message).actor("push 1").spawn();
    let held = call_or_answer(&trap, &mut first, &promise).await?;
    let mut second = push(program, &message).actor("push 2").spawn();
    settled(lab, std::slice::from_ref(program), || second.is_answered()).await;
    let any_acked = async |first: &mut Pending, second: &mut Pending| -> Judged<bool> {
        let first = first.is_answered() && acked(first).await?;
        let second = second.is_answered() && acked(second).await?;
        Ok(first || second)
    };
    let was_acked = any_acked(&mut first, &mut second).await?;
    let in_time = well_within_the_lease(lab, began);
    program.crash().await?;
    if let Some(held) = held {
        held.break_connection();
    }
    drop(trap);
    program.restart().await?;
    if !was_acked {
        until_acked(lab, &promise, program, &message).await?;
    }
    if in_time {
        done_once(lab, &promise, program, &payment).await?;
    }
    Ok(in_time)
}

async fn acked(push: &mut Pending) -> Judged<bool> {
    Ok(push
        .attempted()
        .await?
        .is_ok_and(|reply| reply.status.is_success()))
}

const SURVIVED: &str = "1 charge, and the payment can be seen, after one more restart as well";

/// A crash at every point of the work on a message.
pub async fn survives_a_crash_in_a_message(lab: Lab) -> Judged<String> {
    short_lease(&lab);
    let scene = |stage: Lab, program: Instance, point: CrashPoint| async move {
        let payment = Payment::new(&stage);
        let message = payment.message(&stage.id("message"));
        let promise = Promise::new(
            format!("a message; crashed {point}; started again; pushed again until it was acked"),
            SURVIVED,
        );
        let story = async {
            let pushed = push(&program, &message).actor("push").attempt().await?;
            match pushed.is_ok_and(|reply| reply.status.is_success()) {
                // What was acked may still be worked on: the story ends when it is done.
                true => done_once(&stage, &promise, &program, &payment).await,
                false => Ok(()),
            }
        };
        if !crash(&stage, &program, point, story).await? {
            return Ok(None);
        }
        until_acked(&stage, &promise, &program, &message).await?;
        done_once(&stage, &promise, &program, &payment).await?;
        Ok(Some((point, payment, message)))
    };
    let still = |stage: Lab, program: Instance, (point, payment, message): (_, Payment, Value)| async move {
        let promise = Promise::new(
            format!(
                "a message; crashed {point}; started again; pushed until it was acked; one more restart, and pushed once more"
            ),
            SURVIVED,
        );
        until_acked(&stage, &promise, &program, &message).await?;
        done_once(&stage, &promise, &program, &payment).await
    };
    at_every_crash_point(&lab, scene, still).await
}

/// A decline is final, an outage is not, and what nobody understands is acked and left alone.
pub async fn settles_declines_and_unknown_messages(lab: Lab) -> Judged {
    short_lease(&lab);
    let program = lab.start().await?;

    let declined = Payment {
        card: DECLINED_CARD.to_owned(),
        ..Payment::new(&lab)
    };
    let message = declined.message(&lab.id("message"));
    let promise = Promise::new(
        "a message whose card is declined, pushed until it was acked, and once more",
        "it is acked, and nothing is charged",
    );
    until_acked(&lab, &promise, &program, &message).await?;
    until_acked(&lab, &promise, &program, &message).await?;
    let (captures, saw) = declined.captures(&lab);
    promise.holds(captures == 0, saw)?;

    let unknown = Payment::new(&lab);
    let mut message = unknown.message(&lab.id("message"));
    message["type"] = json!("payment.celebrated");
    let promise = Promise::new(
        "a message of a type that nobody knows",
        "it is acked, without any effect",
    );
    until_acked(&lab, &promise, &program, &message).await?;
    let calls = unknown.calls(&lab);
    promise.holds(calls == 0, format!("{calls} calls to the provider"))?;

    let payment = Payment::new(&lab);
    let message = payment.message(&lab.id("message"));
    let promise = Promise::new(
        "a message while the provider answered 503 once; pushed again until it was acked",
        "1 charge",
    );
    let trap = lab.provider().trap_payment(&payment.payment_id);
    let mut first = push(&program, &message).actor("push").spawn();
    let held = match tokio::time::timeout(LAST_RESORT, trap.caught()).await {
        Ok(held) => held,
        Err(_) => return promise.broken("the provider was never called"),
    };
    drop(trap);
    held.refuse(StatusCode::SERVICE_UNAVAILABLE);
    if !acked(&mut first).await? {
        until_acked(&lab, &promise, &program, &message).await?;
    }
    done_once(&lab, &promise, &program, &payment).await?;
    Ok(())
}
