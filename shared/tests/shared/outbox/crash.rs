//! A relay that dies, or is so slow that it is taken for dead.

use std::pin::pin;
use std::time::Duration;

use shared::outbox::{lag, stuck};
use shared::queue::QueueError;
use uuid::Uuid;

use super::support::{Outbox, Recorder, drain, event};
use crate::support::{Outcome, poll_times, tests};

tests![
    a_relay_that_dies_between_publish_and_mark_causes_a_repetition_and_no_loss,
    a_relay_dropped_at_any_await_loses_nothing,
    a_relay_that_lost_its_lanes_writes_nothing_about_them,
    the_lanes_of_a_dead_relay_are_free_when_the_lease_ends,
];

async fn a_relay_that_dies_between_publish_and_mark_causes_a_repetition_and_no_loss() -> Outcome {
    let outbox = Outbox::start().await?;
    let queue = Recorder::holding();
    let events = [event("a", 1), event("a", 2), event("b", 1)];
    outbox.stage(&events).await;
    let mut relay = outbox.relay(&queue);
    {
        let mut step = pin!(relay.step());
        tokio::select! {
            _ = &mut step => panic!("the broker has not answered"),
            () = queue.next_stored() => {}
        }
        // The broker has them. Now the relay is gone, as after SIGKILL.
    }
    queue.answer_all();
    let mut successor = outbox.relay(&queue);
    drain(&mut successor).await;
    assert_eq!(
        queue.texts().len(),
        3,
        "while the lease lasts nobody takes the lanes"
    );
    outbox.end_leases().await;
    drain(&mut successor).await;
    assert_eq!(queue.texts(), ["a:1", "a:2", "b:1", "a:1", "a:2", "b:1"]);
    let ids: Vec<Uuid> = queue.taken().iter().map(|message| message.id).collect();
    assert_eq!(ids[..3], ids[3..], "a consumer can tell");
    assert_eq!(ids[0], events[0].message.id);
    assert_eq!(outbox.number("select count(*) from outbox_events").await, 0);
    Ok(())
}

async fn a_relay_dropped_at_any_await_loses_nothing() -> Outcome {
    let outbox = Outbox::start().await?;
    let queue = Recorder::new();
    let (mut polls, mut drops, mut finished) = (1, 0, 0);
    // Several times over every await: how many polls each takes is not the same each time.
    while finished < 5 {
        outbox.stage(&[event("a", drops), event("b", drops)]).await;
        let mut relay = outbox.relay(&queue);
        match poll_times(relay.step(), polls).await {
            Some(_) => (polls, finished) = (1, finished + 1),
            None => (polls, drops) = (polls + 1, drops + 1),
        }
        outbox.end_leases().await;
    }
    assert!(drops >= 15, "{drops}");
    let sql = "select count(*) from pg_stat_activity
               where usename = current_user and state like 'idle in transaction%'";
    assert_eq!(outbox.number(sql).await, 0);
    drain(&mut outbox.relay(&queue)).await;
    assert_eq!(outbox.number("select count(*) from outbox_events").await, 0);
    let mut seen: Vec<usize> = Vec::new();
    for n in queue.of_key("a") {
        let n = n.parse().unwrap();
        if !seen.contains(&n) {
            seen.push(n);
        }
    }
    assert_eq!(
        seen,
        (0..=drops).collect::<Vec<_>>(),
        "all, and for the first time in order"
    );
    Ok(())
}

/// The slow relay's news is old: the event that it published failed with its successor, and another
/// one waits behind it. To mark it published now would leave that one waiting for ever.
async fn a_relay_that_lost_its_lanes_writes_nothing_about_them() -> Outcome {
    let outbox = Outbox::start().await?;
    let (slow, fast) = (Recorder::holding(), Recorder::new());
    outbox.stage(&[event("a", 1)]).await;
    let mut first = outbox.relay_with(&slow, |options| options.lease = Duration::from_secs(600));
    let step = tokio::spawn(async move { first.step().await.unwrap() });
    slow.next_stored().await;
    outbox.end_leases().await;
    outbox.stage(&[event("a", 2)]).await;
    fast.refuse(|_| {
        Some(QueueError::Invalid {
            what: "it".to_owned(),
            reason: "a test".to_owned(),
        })
    });
    let mut second = outbox.relay(&fast);
    drain(&mut second).await;
    slow.answer_all();
    let step = step.await.unwrap();
    assert!(step.is_lost, "{step:?}");
    let left = lag(&outbox.pool).await.unwrap();
    assert_eq!((left.waiting, left.stuck, left.held), (0, 1, 1));
    let bad = &stuck(&outbox.pool, 0, 1).await.unwrap()[0];
    fast.refuse(|_| None);
    shared::outbox::retry(&outbox.pool, bad.id).await.unwrap();
    drain(&mut second).await;
    assert_eq!(fast.texts(), ["a:1", "a:2"]);
    Ok(())
}

async fn the_lanes_of_a_dead_relay_are_free_when_the_lease_ends() -> Outcome {
    let outbox = Outbox::start().await?;
    let queue = Recorder::holding();
    outbox.stage(&[event("a", 1)]).await;
    let mut dead = outbox.relay_with(&queue, |options| options.lease = Duration::from_millis(300));
    tokio::select! {
        _ = dead.step() => panic!("the broker has not answered"),
        () = queue.next_stored() => {}
    }
    queue.answer_all();
    let mut successor = outbox.relay(&queue);
    while queue.taken().len() < 2 {
        successor.step().await.unwrap();
    }
    assert_eq!(queue.texts(), ["a:1", "a:1"]);
    Ok(())
}
