//! Step 4: the client gives up, tries again, and gets the answer.

use std::time::Instant;

use kata_lab::{Instance, Judged, Lab, Promise, Stop};

use super::till::{Payment, caught_from, lease_and_slack, settled, until_final};

/// A hang-up in the middle of the charge: one charge, and the retry gets it.
pub async fn answers_a_client_that_gave_up(lab: Lab) -> Judged {
    lab.prefer("KEY_TTL_MS", 120_000);
    lab.prefer("KEY_LEASE_MS", LEASES[0]);
    let mut program = lab.start().await?;
    let mut longer = LEASES[1..].iter();
    for retries_early in [false, true] {
        while !gives_up(&lab, &program, retries_early).await? {
            let (true, Some(lease)) = (lab.can_start_instances(), longer.next()) else {
                return Stop::inconclusive(
                    "the machine took longer than the lease to hang up and try again",
                );
            };
            lab.prefer("KEY_LEASE_MS", *lease);
            program = lab.start_as("instance with a longer lease").await?;
        }
    }
    Ok(())
}

/// In milliseconds: the longer ones are for a machine that is too slow for the first.
const LEASES: [u64; 3] = [2_000, 8_000, 30_000];

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
    let in_time = began.elapsed() < lab.millis("KEY_LEASE_MS") * 3 / 4;
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
