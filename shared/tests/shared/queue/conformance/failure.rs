//! Failing: attempts, leases, delays, dead letters.

use std::time::{Duration, Instant};

use shared::queue::worker::{Failure, Worker};
use shared::queue::{Backoff, Delivery, LeaseKind, Message, Nack, Settled};

use super::lab::{GROUP, LIMIT};
use super::{Lab, list};
use crate::support::Outcome;

list![
    attempts_survive_the_crash_of_the_consumer,
    a_late_ack_is_fenced,
    a_lease_that_is_extended_is_kept,
    a_nack_with_a_delay_holds_nobody_else_back,
    a_release_burns_no_attempt,
    dead_letters_are_listed_redriven_and_discarded,
    what_always_fails_ends_among_the_dead_letters,
    what_kills_its_worker_is_given_up,
];

/// Takes the message and dies with it.
async fn crash(lab: &Lab) -> Delivery {
    let (dying, queue) = lab.another().await;
    let consumer = queue.consumer(GROUP, &lab.options()).await.unwrap();
    let delivery = lab.one(&consumer).await;
    drop((consumer, queue, dying));
    delivery
}

async fn attempts_survive_the_crash_of_the_consumer(lab: &Lab) -> Outcome {
    let row = "attempts survive a crash of the consumer";
    if !lab.can.durable_attempts {
        return Err(lab.declared(row, "count attempts over a crash"));
    }
    lab.publish(&[Message::new("x")]).await;
    for attempt in 1..=3 {
        assert_eq!(crash(lab).await.attempt, attempt);
    }
    let consumer = lab.consumer().await;
    let last = lab.one(&consumer).await;
    assert_eq!(last.attempt, 4);
    assert_eq!(
        consumer.ack(&[last.receipt]).await.unwrap(),
        Settled::default()
    );
    lab.measured(row, "yes");
    Ok(())
}

async fn a_late_ack_is_fenced(lab: &Lab) -> Outcome {
    let row = "a late acknowledgement";
    if !lab.can.fencing || lab.can.lease == LeaseKind::Connection {
        return Err(lab.declared(row, "tell a late acknowledgement"));
    }
    lab.publish(&[Message::new("x")]).await;
    let (late, other) = (lab.consumer().await, lab.consumer().await);
    let first = lab.one(&late).await;
    let second = lab
        .some(&other, 1, lab.fixture.lease() * 20)
        .await
        .remove(0);
    assert_eq!(second.message.id, first.message.id);
    for settled in [
        late.ack(std::slice::from_ref(&first.receipt)).await,
        late.extend(std::slice::from_ref(&first.receipt), LIMIT)
            .await,
        late.release(std::slice::from_ref(&first.receipt)).await,
        late.dead_letter(&[(first.receipt.clone(), "late".into())])
            .await,
        late.nack(&[Nack {
            receipt: first.receipt.clone(),
            delay: Duration::ZERO,
            error: "late".to_owned(),
        }])
        .await,
    ] {
        assert_eq!(settled.unwrap().lost, std::slice::from_ref(&first.receipt));
    }
    // Nothing of that has touched the other's delivery.
    let settled = other.ack(&[second.receipt]).await.unwrap();
    assert_eq!(settled, Settled::default());
    lab.nothing(&late, lab.fixture.lease() * 2).await;
    lab.measured(row, "refused");
    Ok(())
}

async fn a_lease_that_is_extended_is_kept(lab: &Lab) -> Outcome {
    let consumers = [lab.joined().await, lab.joined().await];
    lab.publish(&[Message::new("x")]).await;
    // Longer than the trial's own pauses on a busy machine.
    let lease = lab.fixture.lease() * 4;
    let (number, held) = lab.whoever(&consumers, lease).await;
    let (holder, other) = (&consumers[number], &consumers[1 - number]);
    let until = Instant::now() + lease * 2;
    while Instant::now() < until {
        let extended = holder
            .extend(std::slice::from_ref(&held.receipt), lease)
            .await;
        assert_eq!(extended.unwrap(), Settled::default());
        lab.nothing(other, lease / 8).await;
    }
    assert_eq!(
        holder.ack(&[held.receipt]).await.unwrap(),
        Settled::default()
    );
    lab.nothing(other, lease).await;
    lab.measured(
        "lease",
        match lab.can.lease {
            LeaseKind::Time { .. } => "a time, extended",
            LeaseKind::Connection => "the connection",
        },
    );
    Ok(())
}

async fn a_nack_with_a_delay_holds_nobody_else_back(lab: &Lab) -> Outcome {
    let row = "a retry with a delay";
    if lab.can.longest_delay.is_none() {
        return Err(lab.declared(row, "delay a retry"));
    }
    let delay = lab.can.delay_step.max(Duration::from_millis(700));
    let consumer = lab.consumer().await;
    lab.publish(&[Message::new("fails")]).await;
    let failed = lab.one(&consumer).await;
    let nack = Nack {
        receipt: failed.receipt,
        delay,
        error: "not now".to_owned(),
    };
    let refused = Instant::now();
    assert_eq!(consumer.nack(&[nack]).await.unwrap(), Settled::default());
    lab.publish(&[Message::new("other")]).await;
    let other = lab.one(&consumer).await;
    assert_eq!(&other.message.payload[..], b"other");
    let _ = consumer.ack(&[other.receipt]).await.unwrap();
    let again = lab.one(&consumer).await;
    let after = refused.elapsed();
    assert_eq!(again.message.id, failed.message.id);
    assert!(after >= delay, "{after:?} is before {delay:?}");
    assert_eq!(again.attempt, 2);
    assert!(again.redelivered);
    let _ = consumer.ack(&[again.receipt]).await.unwrap();
    lab.measured(row, "holds nobody else back");
    Ok(())
}

async fn a_release_burns_no_attempt(lab: &Lab) -> Outcome {
    let row = "a release burns no attempt";
    if !lab.can.release_burns_no_attempt {
        return Err(lab.declared(row, "take an attempt back"));
    }
    let consumers = [lab.joined().await, lab.joined().await];
    lab.publish(&[Message::new("x")]).await;
    for _ in 0..3 {
        // A lease that does not end by itself meanwhile.
        let (number, taken) = lab.whoever(&consumers, LIMIT * 2).await;
        assert_eq!(taken.attempt, 1);
        let released = consumers[number].release(&[taken.receipt]).await.unwrap();
        assert_eq!(released, Settled::default());
    }
    let (number, last) = lab.whoever(&consumers, LIMIT * 2).await;
    assert_eq!(last.attempt, 1);
    let _ = consumers[number].ack(&[last.receipt]).await.unwrap();
    lab.measured(row, "yes");
    Ok(())
}

async fn dead_letters_are_listed_redriven_and_discarded(lab: &Lab) -> Outcome {
    let row = "dead letters";
    let sent: Vec<_> = (0..5)
        .map(|n| Message::new(format!("{n}")).header("n", n.to_string()))
        .collect();
    lab.publish(&sent).await;
    let consumer = lab.consumer().await;
    let taken = lab.some(&consumer, 5, LIMIT).await;
    let given_up: Vec<_> = taken
        .iter()
        .map(|delivery| {
            let n = &delivery.message.headers["n"];
            (delivery.receipt.clone(), format!("no order {n}"))
        })
        .collect();
    let settled = consumer.dead_letter(&given_up).await.unwrap();
    assert_eq!(settled, Settled::default());
    if !lab.can.dead_letters {
        return Err(lab.declared(row, "list dead letters"));
    }
    let first = lab.queue.dead_letters(GROUP, None, 2).await.unwrap();
    assert_eq!(first.len(), 2);
    let after = Some(first[1].id.as_str());
    let rest = lab.queue.dead_letters(GROUP, after, 10).await.unwrap();
    let letters: Vec<_> = first.into_iter().chain(rest).collect();
    assert_eq!(letters.len(), 5);
    for letter in &letters {
        let original = sent.iter().find(|sent| sent.id == letter.message.id);
        assert_eq!(&letter.message, original.unwrap());
        let n = &letter.message.headers["n"];
        assert_eq!(letter.reason, format!("no order {n}"));
        assert!(letter.attempts.is_none_or(|attempts| attempts == 1));
    }
    let ids: Vec<_> = letters.iter().map(|letter| letter.id.clone()).collect();
    assert_eq!(lab.queue.discard(GROUP, &ids[..1]).await.unwrap(), 1);
    assert_eq!(
        lab.queue.redrive(GROUP, &ids[..2]).await.unwrap(),
        1,
        "one is gone"
    );
    let redriven = lab.one(&consumer).await;
    assert_eq!(redriven.message, letters[1].message);
    assert_eq!(redriven.attempt, 1, "attempts begin anew");
    let _ = consumer.ack(&[redriven.receipt]).await.unwrap();
    let left = lab.queue.dead_letters(GROUP, None, 10).await.unwrap();
    let left: Vec<_> = left.into_iter().map(|letter| letter.id).collect();
    assert_eq!(left, ids[2..]);
    lab.measured(row, "listed, redriven, discarded");
    Ok(())
}

/// A worker that hardly waits between attempts.
fn worker(lab: &Lab, consumer: std::sync::Arc<dyn shared::queue::Consumer>) -> Worker {
    let step = lab.can.delay_step.max(Duration::from_millis(20));
    Worker::new(consumer)
        .lease(lab.fixture.lease() * 20)
        .backoff(Backoff::exponential(step, step).without_jitter())
}

async fn what_always_fails_ends_among_the_dead_letters(lab: &Lab) -> Outcome {
    let row = "what always fails";
    let bad: Vec<_> = ["fails", "panics", "is hopeless"].map(Message::new).into();
    lab.publish(&bad).await;
    let worker = worker(lab, lab.consumer().await).max_attempts(3);
    let handler = |delivery: Delivery| async move {
        match &delivery.message.payload[..] {
            b"fails" => Err(Failure::retry(format!("failure {}", delivery.attempt))),
            b"panics" => panic!("at attempt {}", delivery.attempt),
            _ => Err(Failure::dead("no such order")),
        }
    };
    let stop = async {
        lab.until("all are dead", async || {
            lab.queue.dead_letters(GROUP, None, 10).await.unwrap().len() == 3
        })
        .await;
    };
    if !lab.can.dead_letters {
        return Err(lab.declared(row, "list dead letters"));
    }
    let report = worker.run(handler, stop).await;
    assert_eq!((report.retried, report.dead, report.done), (4, 3, 0));
    let letters = lab.queue.dead_letters(GROUP, None, 10).await.unwrap();
    let reason = |payload: &str| {
        let mut letters = letters.iter();
        let letter = letters.find(|l| l.message.payload == payload.as_bytes());
        letter.unwrap().reason.clone()
    };
    assert_eq!(reason("fails"), "failure 3 (attempt 3, the last)");
    assert_eq!(
        reason("panics"),
        "the handler panicked: at attempt 3 (attempt 3, the last)"
    );
    assert_eq!(reason("is hopeless"), "no such order");
    lab.measured(row, "dead letter with its last error");
    Ok(())
}

async fn what_kills_its_worker_is_given_up(lab: &Lab) -> Outcome {
    let row = "what kills its worker";
    if !lab.can.durable_attempts || !lab.can.dead_letters {
        return Err(lab.declared(row, "count attempts over a crash and list dead letters"));
    }
    lab.publish(&[Message::new("kills")]).await;
    crash(lab).await;
    crash(lab).await;
    let worker = worker(lab, lab.consumer().await).max_attempts(2);
    let stop = async {
        lab.until("it is dead", async || {
            lab.queue.dead_letters(GROUP, None, 10).await.unwrap().len() == 1
        })
        .await;
    };
    let report = worker.run(|_: Delivery| async { Ok(()) }, stop).await;
    assert_eq!((report.done, report.dead), (0, 1), "it did not run again");
    lab.measured(row, "given up");
    Ok(())
}
