//! Step 2: fifty at once make one charge.

use http::StatusCode;
use kata_lab::{Instance, Judged, Lab, NoAnswer, Pending, Promise, Reply};

use super::till::{Payment, caught, long_lease, settled, within_a_lease};

/// How many ask at once.
const CROWD: usize = 50;

/// Fifty requests with one key at once: one call to the provider, one charge, one answer.
pub async fn charges_once_under_concurrency(lab: Lab) -> Judged {
    long_lease(&lab);
    let program = lab.start().await?;
    crowd(&lab, &[program]).await
}

/// The same through two instances: a lock in the memory of a process does not hold here.
pub async fn charges_once_across_instances(lab: Lab) -> Judged {
    long_lease(&lab);
    let instances = [
        lab.start_as("instance A").await?,
        lab.start_as("instance B").await?,
    ];
    crowd(&lab, &instances).await
}

async fn crowd(lab: &Lab, instances: &[Instance]) -> Judged {
    let payment = Payment::new(lab);
    let through = match instances.len() {
        1 => String::new(),
        more => format!(" through {more} instances"),
    };
    let promise = Promise::new(
        format!(
            "{CROWD} × POST /pay with the same key at once{through}; the provider held the first call until the others had come so far as they can"
        ),
        "1 call to the provider, 1 charge, and answers that agree: the payment, or 409; no 5xx",
    );
    within_a_lease(lab, async {
        let trap = lab.provider().trap_payment(&payment.payment_id);
        let at = |number: usize| &instances[number % instances.len()];
        let mut crowd: Vec<Pending> = (0..CROWD)
            .map(|number| {
                payment
                    .request(at(number))
                    .actor(format!("request {}", number + 1))
                    .spawn()
            })
            .collect();

        let early = futures::future::select_all(crowd.iter_mut().map(|one| Box::pin(early(one))));
        let first = tokio::select! {
            biased;
            caught = caught(&trap, &promise) => caught?,
            (early, ..) = early => {
                return promise.broken(format!("{} before the provider was called", early?));
            }
        };
        // All but the one whose call is held can be answered; which one that is, nobody knows.
        let unanswered = || crowd.iter().filter(|one| !one.is_answered()).count();
        settled(lab, instances, || trap.waiting() > 0 || unanswered() <= 1).await;
        first.answer();
        drop(trap);

        let mut replies = Vec::new();
        for one in &mut crowd {
            replies.push(one.attempted().await?);
        }
        one_call_and_one_charge(lab, &payment, &promise)?;
        agree(lab, &payment, &promise, &replies)?;
        let last = payment.request(at(0)).actor("afterwards").send().await?;
        match payment.not_paid_by(lab, &last) {
            None => one_call_and_one_charge(lab, &payment, &promise),
            Some(saw) => promise.broken(format!("afterwards: {saw}")),
        }
    })
    .await
}

/// The first answer that cannot have come before a call to the provider: only a 409 can.
async fn early(one: &mut Pending) -> Judged<String> {
    match one.attempted().await? {
        Ok(reply) if reply.status == StatusCode::CONFLICT => std::future::pending().await,
        Ok(reply) => Ok(reply.to_string()),
        Err(silence) => Ok(silence.to_string()),
    }
}

fn one_call_and_one_charge(lab: &Lab, payment: &Payment, promise: &Promise) -> Judged {
    let (captures, saw) = payment.captures(lab);
    let calls = payment.calls(lab);
    promise.holds(
        captures == 1 && calls == 1,
        format!("{saw}, {calls} calls to the provider"),
    )
}

fn agree(
    lab: &Lab,
    payment: &Payment,
    promise: &Promise,
    replies: &[Result<Reply, NoAnswer>],
) -> Judged {
    let mut paid = 0;
    for reply in replies {
        match reply {
            Ok(reply) if reply.status == StatusCode::CONFLICT => {}
            Ok(reply) => match payment.not_paid_by(lab, reply) {
                None => paid += 1,
                Some(saw) => return promise.broken(saw),
            },
            Err(silence) => return promise.broken(silence.to_string()),
        }
    }
    promise.holds(
        paid > 0,
        format!("{} × 409 and no answer that says paid", replies.len()),
    )
}
