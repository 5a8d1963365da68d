//! Step 5: the provider charges, and its answer is lost.

use std::collections::BTreeSet;

use kata_lab::{Judged, Lab, Promise};

use super::till::{Payment, caught_from, lease_and_slack, short_lease, until_final};

/// Whatever was lost on the way, the retry reaches the provider under the same key.
pub async fn retries_with_the_same_provider_key(lab: Lab) -> Judged {
    short_lease(&lab);
    let program = lab.start().await?;
    let payment = Payment::new(&lab);
    let promise = Promise::new(
        "POST /pay; the provider charged and broke the connection without an answer; the client tried until it got one",
        "the retry has the provider's key of the first call: 1 charge, and the client gets it",
    );
    let trap = lab.provider().trap_payment(&payment.payment_id);
    let mut first = payment.request(&program).actor("first try").spawn();
    let held = caught_from(&trap, &mut first, &promise).await?;
    drop(trap);
    held.act();
    held.break_connection();
    let outage = first.attempted().await?;
    if let Ok(reply) = &outage
        && reply.status.is_success()
    {
        // Some HTTP clients repeat a call whose connection broke, and then all is well.
        if let Some(saw) = payment.not_paid_by(&lab, reply) {
            return promise.broken(saw);
        }
    }
    let last = until_final(&lab, lease_and_slack(&lab), &promise, || {
        payment.request(&program)
    })
    .await?;
    let (captures, saw) = payment.captures(&lab);
    let keys: BTreeSet<_> = lab
        .provider()
        .calls_for(&payment.payment_id)
        .into_iter()
        .map(|call| call.key.unwrap_or_else(|| "none".to_owned()))
        .collect();
    let keys_seen = keys.iter().cloned().collect::<Vec<_>>().join(", ");
    promise.holds(
        captures == 1,
        format!("{saw}; the provider's keys: {keys_seen}"),
    )?;
    match payment.not_paid_by(&lab, &last) {
        None => promise.holds(keys.len() == 1, format!("the provider's keys: {keys_seen}")),
        Some(saw) => promise.broken(saw),
    }
}
