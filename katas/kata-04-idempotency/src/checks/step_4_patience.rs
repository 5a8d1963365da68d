//! Step 4: the client gives up, tries again, and gets the answer.

use std::time::Instant;

use kata_lab::{Instance, Judged, Lab, Promise};

use super::till::{
    Payment, before_the_lease_ends, caught_from, lease_and_slack, settled, until_final,
    well_within_the_lease,
};

/// A hang-up in the middle of the charge: one charge, and the retry gets it.
pub async fn answers_a_client_that_gave_up(lab: Lab) -> Judged {
    before_the_lease_ends(&lab, |program| async {
        let program = program;
        Ok(gives_up(&lab, &program, false).await? && gives_up(&lab, &program, true).await?)
    })
    .await
}

/// One round; `false` if it took so long that the lease was over, and a second charge in it could
/// be a successor's.
async fn gives_up(lab: &Lab, program: &Instance, retries_early: bool) -> Judged<bool> {
    let promise = Promise::new(
        match retries_early {
            true => {
                "POST /pay; the client hung up while the provider held the call, tried again while it was still held, and went on trying"
            }
            false => {
                "POST /pay; the client hung up while the provider held the call, and tried again when that was over"
            }
        },
        "1 charge, and the client gets it when the lease is over at the latest",
    );
    let payment = Payment::new(lab);
    let trap = lab.provider().trap_payment(&payment.payment_id);
    let began = Instant::now();
    let mut first = payment.request(program).actor("first try").spawn();
    let held = caught_from(&trap, &mut first, &promise).await?;
    first.hang_up();
    lab.note("the client hangs up");
    let mut early = None;
    if retries_early {
        let retry = payment.request(program).actor("early retry").spawn();
        let enough = || trap.waiting() > 0 || retry.is_answered();
        settled(lab, std::slice::from_ref(program), enough).await;
        early = Some(retry);
    }
    held.answer();
    drop(trap);
    let in_time = well_within_the_lease(lab, began);
    let within = lease_and_slack(lab);
    let last = until_final(lab, within, &promise, || payment.request(program)).await?;
    if let Some(saw) = payment.not_paid_by(lab, &last) {
        return promise.broken(saw);
    }
    if let Some(mut early) = early {
        // Whatever it says, it must be through before the charges are counted.
        early.attempted().await?.ok();
    }
    let (captures, saw) = payment.captures(lab);
    if in_time {
        promise.holds(captures == 1, saw)?;
    }
    Ok(in_time)
}
