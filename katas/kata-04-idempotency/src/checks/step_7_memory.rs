//! Step 7: a decline is remembered; an outage is not.

use std::time::Instant;

use http::StatusCode;
use kata_lab::{
    Instance, Judged, Lab, Promise, Stop,
    fakes::{Caught, payment_provider::DECLINED_CARD},
};

use super::{
    step_1_replay::is_marked,
    till::{Payment, caught_from, lease_and_slack, long_lease, short_lease, until_final},
};

/// A decline is an answer like any other: replayed, and the provider is not asked again.
pub async fn remembers_a_decline(lab: Lab) -> Judged {
    long_lease(&lab);
    let program = lab.start().await?;
    let payment = Payment {
        card: DECLINED_CARD.to_owned(),
        ..Payment::new(&lab)
    };
    let promise = Promise::new(
        "POST /pay with a card that is declined, twice",
        "402 twice, the second marked as a replay, 1 call to the provider",
    );
    let first = payment.request(&program).send().await?;
    promise.holds(
        first.status == StatusCode::PAYMENT_REQUIRED,
        first.to_string(),
    )?;
    let again = payment.request(&program).send().await?;
    promise.holds(
        again.status == StatusCode::PAYMENT_REQUIRED,
        again.to_string(),
    )?;
    let calls = payment.calls(&lab);
    promise.holds(calls == 1, format!("{calls} calls to the provider"))?;
    promise.holds(
        again.json() == first.json(),
        format!("{first}, then {again}"),
    )?;
    promise.holds(
        is_marked(&again),
        format!("{again}, not marked as a replay"),
    )
}

/// What becomes of a held call.
type Outage = fn(Caught);

/// How the provider is away.
const OUTAGES: [(&str, Outage); 4] = [
    ("answered 503", |call| {
        call.refuse(StatusCode::SERVICE_UNAVAILABLE)
    }),
    ("answered 500", |call| {
        call.refuse(StatusCode::INTERNAL_SERVER_ERROR)
    }),
    ("answered 429", |call| {
        call.refuse(StatusCode::TOO_MANY_REQUESTS)
    }),
    ("broke the connection", Caught::break_connection),
];

/// An outage says nothing about the payment: the same request gets through when it is over.
pub async fn forgets_an_outage(lab: Lab) -> Judged<Option<String>> {
    short_lease(&lab);
    let program = lab.start().await?;
    for (how, outage) in OUTAGES {
        let payment = Payment::new(&lab);
        let promise = over_when_it_is_over(&format!("the provider {how}"));
        let trap = lab.provider().trap_payment(&payment.payment_id);
        let mut first = payment.request(&program).actor("first try").spawn();
        let held = caught_from(&trap, &mut first, &promise).await?;
        drop(trap);
        outage(held);
        first.attempted().await?.ok();
        gets_through(&lab, &payment, &program, &promise).await?;
        let (captures, saw) = payment.captures(&lab);
        promise.holds(captures == 1, saw)?;
    }
    if !lab.can_start_instances() {
        let limit = lab.number("PROVIDER_TIMEOUT_MS");
        return Ok(Some(format!(
            "not tried here: a provider silent for {limit} ms"
        )));
    }
    for limit in LIMITS_MS {
        lab.prefer("PROVIDER_TIMEOUT_MS", limit);
        // Of its own, and its charges are not counted: on a busy machine so short a time may cause
        // outages that nobody arranged.
        let hasty = lab.start_as("hasty instance").await?;
        if survives_silence(&lab, &hasty).await? {
            return Ok(None);
        }
    }
    Stop::inconclusive("the machine was too slow: callers hung up before their calls had come")
}

/// How long the provider is waited for by who is to hang up. The longer ones are for a machine that
/// is too busy to get a call through in the first.
const LIMITS_MS: [u64; 3] = [1_000, 5_000, 25_000];

/// The provider holds a call until its caller has hung up. `false` if that was before the call had
/// come: then nothing can be said.
async fn survives_silence(lab: &Lab, hasty: &Instance) -> Judged<bool> {
    let payment = Payment::new(lab);
    let promise = over_when_it_is_over("the provider said nothing until its caller hung up");
    let trap = lab.provider().trap_payment(&payment.payment_id);
    let began = Instant::now();
    let mut first = payment.request(hasty).actor("first try").spawn();
    let held = match caught_from(&trap, &mut first, &promise).await {
        Err(stop) if stop.is_failed() && began.elapsed() >= lab.millis("PROVIDER_TIMEOUT_MS") => {
            return Ok(false);
        }
        caught => caught?,
    };
    drop(trap);
    if let Ok(reply) = first.attempted().await? {
        let outage = reply.status.is_server_error();
        promise.holds(
            outage,
            format!("{reply}, while the provider had not answered"),
        )?;
    }
    held.break_connection();
    gets_through(lab, &payment, hasty, &promise).await?;
    Ok(true)
}

fn over_when_it_is_over(how: &str) -> Promise {
    Promise::new(
        format!(
            "POST /pay; {how}; then it was well again, and the client tried until it got an answer"
        ),
        "the payment is made at the latest when the lease is over",
    )
}

async fn gets_through(
    lab: &Lab,
    payment: &Payment,
    program: &Instance,
    promise: &Promise,
) -> Judged {
    let last = until_final(lab, lease_and_slack(lab), promise, || {
        payment.request(program)
    })
    .await?;
    match payment.not_paid_by(lab, &last) {
        None => Ok(()),
        Some(saw) => promise.broken(saw),
    }
}
