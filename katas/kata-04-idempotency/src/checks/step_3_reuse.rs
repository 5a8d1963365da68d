//! Step 3: another body under the same key is refused, and two callers never meet.

use http::StatusCode;
use kata_lab::{Judged, Lab, Pending, Promise, Reply};

use super::{
    step_1_replay::is_marked,
    till::{Payment, caught_from, long_lease, settled, within_a_lease},
};

/// After the first answer: each member changed alone is another body.
pub async fn rejects_a_reused_key(lab: Lab) -> Judged {
    long_lease(&lab);
    let program = lab.start().await?;
    let payment = Payment::new(&lab);
    let made = Promise::new("POST /pay", "the payment is made");
    let first = payment.request(&program).send().await?;
    if let Some(saw) = payment.not_paid_by(&lab, &first) {
        return made.broken(saw);
    }
    for (member, other) in payment.with_one_member_changed(&lab) {
        let promise = Promise::new(
            format!(
                "POST /pay with the same key and another {member}, after the first was answered"
            ),
            "422, nothing of the first answer in it, and no call to the provider",
        );
        let calls = lab.provider().calls().len();
        let reply = other.request(&program).send().await?;
        refused(&promise, &reply, &first)?;
        let more = lab.provider().calls().len() - calls;
        promise.holds(
            more == 0,
            format!("{reply}, and {more} calls to the provider"),
        )?;
    }
    let promise = Promise::new("the first request again", "its own answer");
    let again = payment.request(&program).send().await?;
    promise.holds(
        again.json() == first.json() && is_marked(&again),
        again.to_string(),
    )
}

fn refused(promise: &Promise, reply: &Reply, first: &Reply) -> Judged {
    promise.holds(
        reply.status == StatusCode::UNPROCESSABLE_ENTITY,
        reply.to_string(),
    )?;
    let body = String::from_utf8_lossy(&reply.body);
    let leaked = first
        .text("charge_id")
        .is_some_and(|charge| body.contains(&charge));
    promise.holds(!leaked, format!("{reply}, which tells the first charge"))
}

/// While the first is still running: 422 as well, and not 409, which would ask for a retry that
/// can never succeed.
pub async fn rejects_a_reused_key_while_running(lab: Lab) -> Judged {
    long_lease(&lab);
    let program = lab.start().await?;
    within_a_lease(&lab, async {
        let payment = Payment::new(&lab);
        let promise = Promise::new(
            "POST /pay; while the provider held its call, the same key with each of the four members changed",
            "422 for each of them, 1 call to the provider, and the first is paid",
        );
        let trap = lab.provider().trap(|request| request.path() == "/charges");
        let mut first = payment.request(&program).actor("first").spawn();
        let held = caught_from(&trap, &mut first, &promise).await?;
        let others = payment.with_one_member_changed(&lab);
        let mut others: Vec<(&str, Pending)> = others
            .into_iter()
            .map(|(member, other)| (member, other.request(&program).actor(format!("other {member}")).spawn()))
            .collect();
        let answered = || others.iter().all(|(_, other)| other.is_answered());
        settled(&lab, std::slice::from_ref(&program), || trap.waiting() > 0 || answered()).await;
        held.answer();
        drop(trap);

        let first = match first.attempted().await? {
            Ok(reply) => reply,
            Err(silence) => return promise.broken(format!("the first request: {silence}")),
        };
        for (member, other) in &mut others {
            match other.attempted().await? {
                Ok(reply) => {
                    let saw = format!("another {member}: {reply}");
                    promise.holds(reply.status == StatusCode::UNPROCESSABLE_ENTITY, saw)?;
                    refused(&promise, &reply, &first)?;
                }
                Err(silence) => return promise.broken(format!("another {member}: {silence}")),
            }
        }
        if let Some(saw) = payment.not_paid_by(&lab, &first) {
            return promise.broken(format!("the first request: {saw}"));
        }
        let calls = lab.provider().calls().len();
        promise.holds(calls == 1, format!("{calls} calls to the provider"))
    })
    .await
}

/// Two accounts may choose the same key; they must not meet, here or at the provider.
pub async fn keeps_callers_apart(lab: Lab) -> Judged {
    long_lease(&lab);
    let program = lab.start().await?;
    let one = Payment::new(&lab);
    let two = Payment {
        key: one.key.clone(),
        ..Payment::new(&lab)
    };
    let promise = Promise::new(
        "POST /pay of two accounts with the same key and different payments, each twice",
        "each account gets its own payment, and the same answer again",
    );
    let mut firsts = Vec::new();
    for payment in [&one, &two] {
        let first = payment
            .request(&program)
            .actor(&payment.account)
            .send()
            .await?;
        if let Some(saw) = payment.not_paid_by(&lab, &first) {
            return promise.broken(format!("{}: {saw}", payment.account));
        }
        firsts.push(first);
    }
    for (payment, first) in [&one, &two].into_iter().zip(&firsts) {
        let again = payment
            .request(&program)
            .actor(&payment.account)
            .send()
            .await?;
        let same = again.status == first.status && again.json() == first.json();
        promise.holds(same, format!("{}: {again}", payment.account))?;
        let (captures, saw) = payment.captures(&lab);
        promise.holds(captures == 1, format!("{}: {saw}", payment.account))?;
    }
    Ok(())
}
