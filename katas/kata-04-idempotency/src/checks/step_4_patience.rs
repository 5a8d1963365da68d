//! Step 4: the client gives up, tries again, and gets the answer.

use kata_lab::{Judged, Lab, Promise};

use super::till::{Payment, caught_from, lease_and_slack, settled, short_lease, until_final};

/// A hang-up in the middle of the charge: one charge, and the retry gets it.
pub async fn answers_a_client_that_gave_up(lab: Lab) -> Judged {
    short_lease(&lab);
    let program = lab.start().await?;
    let promise = Promise::new(
        "POST /pay; the client hung up while the provider held the call, tried again while it was still held, and went on trying until the lease was over",
        "1 charge, and the client gets it",
    );
    for retries_before in [false, true] {
        let payment = Payment::new(&lab);
        let trap = lab.provider().trap_payment(&payment.payment_id);
        let mut first = payment.request(&program).actor("first try").spawn();
        let held = caught_from(&trap, &mut first, &promise).await?;
        first.hang_up();
        lab.note("the client hangs up");
        let mut early = None;
        if retries_before {
            let retry = payment.request(&program).actor("early retry").spawn();
            settled(&lab, std::slice::from_ref(&program), || {
                trap.waiting() > 0 || retry.is_answered()
            })
            .await;
            early = Some(retry);
        }
        held.answer();
        drop(trap);
        let last = until_final(&lab, lease_and_slack(&lab), &promise, || {
            payment.request(&program)
        })
        .await?;
        if let Some(saw) = payment.not_paid_by(&lab, &last) {
            return promise.broken(saw);
        }
        if let Some(mut early) = early {
            // Whatever it says, it must be through before the charges are counted.
            early.attempted().await?.ok();
        }
        let (captures, saw) = payment.captures(&lab);
        promise.holds(captures == 1, saw)?;
    }
    Ok(())
}
