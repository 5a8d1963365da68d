//! Events that cannot be published, and brokers that do not answer.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use shared::outbox::{discard, lag, retry, stuck};
use shared::queue::{Backoff, Message, QueueError};

use super::support::{Outbox, Recorder, drain, event, payload, text};
use crate::support::{Outcome, tests, until};

tests![
    an_event_that_no_attempt_helps_blocks_its_key_alone,
    a_stuck_event_is_listed_and_goes_on_when_it_is_retried,
    what_waits_behind_a_discarded_event_goes_on_in_order,
    an_event_that_fails_while_others_go_through_is_stuck_in_the_end,
    an_event_that_uses_up_all_the_time_does_not_block_others,
    a_broker_that_is_down_makes_no_event_stuck,
    a_parked_event_goes_on_by_itself,
    nothing_is_left_behind_when_operators_and_relays_race,
];

/// Long even for a machine that is busy with other things.
const LONG: Duration = Duration::from_secs(60);

fn too_large() -> QueueError {
    QueueError::TooLarge {
        broker: "Recorder",
        bytes: 2,
        limit: 1,
    }
}

fn unavailable() -> QueueError {
    QueueError::Unavailable {
        broker: "Recorder",
        reason: "it was unplugged".to_owned(),
    }
}

/// Refuses every batch with this event in it.
fn refuse(queue: &Recorder, bad: &'static str, error: fn() -> QueueError) {
    let is_bad = move |message: &Message| text(message) == bad;
    queue.refuse(move |batch| batch.iter().any(is_bad).then(error));
}

async fn an_event_that_no_attempt_helps_blocks_its_key_alone() -> Outcome {
    let outbox = Outbox::start().await?;
    let queue = Recorder::new();
    refuse(&queue, "bad:2", too_large);
    let keys = ["bad", "a", "b", "c"];
    let events = (1..=5).flat_map(|n| keys.map(|key| event(key, n)));
    outbox.stage(&events.collect::<Vec<_>>()).await;
    let mut relay = outbox.relay(&queue);
    drain(&mut relay).await;
    assert_eq!(queue.of_key("bad"), ["1"]);
    for key in ["a", "b", "c"] {
        assert_eq!(queue.of_key(key), ["1", "2", "3", "4", "5"], "{key}");
    }
    // Nor does it block what comes later, or does later work step over what is held.
    outbox.stage(&[event("bad", 6), event("a", 6)]).await;
    drain(&mut relay).await;
    assert_eq!(queue.of_key("a").len(), 6);
    assert_eq!(queue.of_key("bad"), ["1"]);
    let left = lag(&outbox.pool).await.unwrap();
    assert_eq!(
        (left.waiting, left.parked, left.stuck, left.held),
        (0, 0, 1, 4)
    );
    assert!(left.oldest_waiting.is_none() && left.oldest_failed.is_some());
    Ok(())
}

async fn a_stuck_event_is_listed_and_goes_on_when_it_is_retried() -> Outcome {
    let outbox = Outbox::start().await?;
    let queue = Recorder::new();
    refuse(&queue, "a:2", too_large);
    let events: Vec<_> = (1..=4).map(|n| event("a", n)).collect();
    outbox.stage(&events).await;
    let mut relay = outbox.relay(&queue);
    drain(&mut relay).await;
    let listed = stuck(&outbox.pool, 0, 10).await.unwrap();
    let [bad] = &listed[..] else {
        panic!("{listed:?}")
    };
    assert_eq!(bad.message_id, events[1].message.id);
    assert_eq!((&*bad.queue, bad.key.as_deref()), ("orders", Some("a")));
    assert_eq!((bad.payload_bytes, bad.attempts, bad.held), (1, 1, 2));
    assert!(
        bad.last_error
            .contains("more than the 1 that Recorder takes"),
        "{bad:?}"
    );
    assert_eq!(stuck(&outbox.pool, bad.id, 10).await.unwrap(), []);
    // Retried in vain: listed again, with what the broker says now.
    assert!(retry(&outbox.pool, bad.id).await.unwrap());
    drain(&mut relay).await;
    assert_eq!(stuck(&outbox.pool, 0, 10).await.unwrap()[0].held, 2);
    queue.refuse(|_| None);
    assert!(retry(&outbox.pool, bad.id).await.unwrap());
    drain(&mut relay).await;
    assert_eq!(queue.of_key("a"), ["1", "2", "3", "4"]);
    assert!(!retry(&outbox.pool, bad.id).await.unwrap());
    assert!(!discard(&outbox.pool, bad.id).await.unwrap());
    Ok(())
}

async fn what_waits_behind_a_discarded_event_goes_on_in_order() -> Outcome {
    let outbox = Outbox::start().await?;
    let queue = Recorder::new();
    queue.refuse(|batch| {
        let bad = |message: &Message| ["2", "4"].contains(&&*payload(message));
        batch.iter().any(bad).then(too_large)
    });
    outbox
        .stage(&(1..=6).map(|n| event("a", n)).collect::<Vec<_>>())
        .await;
    let mut relay = outbox.relay(&queue);
    for _ in 0..2 {
        drain(&mut relay).await;
        let listed = stuck(&outbox.pool, 0, 10).await.unwrap();
        // One at a time: what is behind the first was never tried.
        assert_eq!(listed.len(), 1);
        assert!(discard(&outbox.pool, listed[0].id).await.unwrap());
    }
    drain(&mut relay).await;
    assert_eq!(queue.of_key("a"), ["1", "3", "5", "6"]);
    assert_eq!(outbox.number("select count(*) from outbox_events").await, 0);
    Ok(())
}

async fn an_event_that_fails_while_others_go_through_is_stuck_in_the_end() -> Outcome {
    let outbox = Outbox::start().await?;
    let queue = Recorder::new();
    // As if the connection broke each time: nothing says that it is the event's fault.
    refuse(&queue, "bad:1", unavailable);
    let mut relay = outbox.relay_with(&queue, |options| options.max_attempts = 3);
    outbox.stage(&[event("bad", 1), event("bad", 2)]).await;
    let mut n = 0;
    let deadline = Instant::now() + LONG;
    while stuck(&outbox.pool, 0, 1).await.unwrap().is_empty() {
        n += 1;
        assert!(Instant::now() < deadline, "never stuck");
        outbox.stage(&[event("a", n), event("b", n)]).await;
        let before = queue.taken().len();
        while queue.taken().len() < before + 2 {
            relay.step().await.unwrap();
        }
    }
    let bad = &stuck(&outbox.pool, 0, 1).await.unwrap()[0];
    assert_eq!(bad.attempts, 3);
    assert!(bad.last_error.contains("unplugged"), "{bad:?}");
    assert_eq!(queue.of_key("bad"), [""; 0]);
    assert_eq!(queue.of_key("a").len(), n);
    Ok(())
}

async fn an_event_that_uses_up_all_the_time_does_not_block_others() -> Outcome {
    let outbox = Outbox::start().await?;
    let queue = Recorder::new();
    queue.hang(|batch| batch.iter().any(|message| text(message) == "bad:1"));
    let mut events = vec![event("bad", 1)];
    events.extend((1..=8).map(|n| event("a", n)));
    outbox.stage(&events).await;
    let mut relay = outbox.relay_with(&queue, |options| {
        options.lease = Duration::from_millis(200);
    });
    let deadline = Instant::now() + LONG;
    while queue.of_key("a").len() < 8 {
        relay.step().await.unwrap();
        assert!(Instant::now() < deadline, "{:?}", queue.texts());
    }
    assert_eq!(queue.of_key("bad"), [""; 0]);
    Ok(())
}

async fn a_broker_that_is_down_makes_no_event_stuck() -> Outcome {
    let outbox = Outbox::start().await?;
    let queue = Recorder::new();
    queue.refuse(|_| Some(unavailable()));
    let all: Vec<_> = (1..=5)
        .flat_map(|n| ["a", "b", "c", "d"].map(|key| (key, n)))
        .collect();
    outbox
        .stage(
            &all.iter()
                .map(|(key, n)| event(key, *n))
                .collect::<Vec<_>>(),
        )
        .await;
    let relay = outbox.relay_with(&queue, |options| {
        options.max_attempts = 1;
        options.broker_down =
            Backoff::exponential(Duration::from_millis(1), Duration::from_millis(1));
    });
    let progress = relay.progress();
    let (stop, stopped) = tokio::sync::oneshot::channel::<()>();
    let running = tokio::spawn(relay.run(async move { drop(stopped.await) }));
    until("twenty batches failed", || progress.broker_errors() >= 20).await;
    let left = lag(&outbox.pool).await.unwrap();
    assert_eq!(
        (left.waiting, left.parked, left.stuck, left.held),
        (20, 0, 0, 0)
    );
    queue.refuse(|_| None);
    until("all are published", || queue.taken().len() == all.len()).await;
    drop(stop);
    running.await.unwrap();
    for key in ["a", "b", "c", "d"] {
        assert_eq!(queue.of_key(key), ["1", "2", "3", "4", "5"], "{key}");
    }
    assert_eq!((progress.published(), progress.failed()), (20, 0));
    Ok(())
}

async fn a_parked_event_goes_on_by_itself() -> Outcome {
    let outbox = Outbox::start().await?;
    let queue = Recorder::new();
    refuse(&queue, "bad:1", unavailable);
    outbox
        .stage(&[event("bad", 1), event("bad", 2), event("a", 1)])
        .await;
    let mut relay = outbox.relay_with(&queue, |options| {
        options.retry = Backoff::exponential(Duration::from_secs(600), Duration::from_secs(600))
            .without_jitter();
    });
    drain(&mut relay).await;
    outbox.stage(&[event("a", 2)]).await;
    drain(&mut relay).await;
    let left = lag(&outbox.pool).await.unwrap();
    assert_eq!(
        (left.waiting, left.parked, left.stuck, left.held),
        (0, 1, 0, 1)
    );
    queue.refuse(|_| None);
    drain(&mut relay).await;
    assert_eq!(queue.of_key("bad"), [""; 0], "ten minutes are not over");
    outbox
        .run("update outbox_events set retry_at = clock_timestamp() where retry_at is not null")
        .await;
    let (stop, stopped) = tokio::sync::oneshot::channel::<()>();
    let running = tokio::spawn(relay.run(async move { drop(stopped.await) }));
    until("they are published", || queue.of_key("bad").len() == 2).await;
    drop(stop);
    running.await.unwrap();
    assert_eq!(queue.of_key("bad"), ["1", "2"]);
    Ok(())
}

/// A relay puts events behind a failed one at the moment in which an operator resolves it. If both
/// went by what they saw first, the event would wait behind nothing, for ever.
async fn nothing_is_left_behind_when_operators_and_relays_race() -> Outcome {
    let outbox = Arc::new(Outbox::start().await?);
    let queue = Recorder::new();
    // Every third event of a key is bad, until it is discarded.
    queue.refuse(|batch| {
        let bad = |message: &Message| payload(message).parse::<u32>().unwrap() % 3 == 0;
        batch.iter().any(bad).then(too_large)
    });
    let done = Arc::new(AtomicBool::new(false));
    let (stop, stopped) = tokio::sync::watch::channel(false);
    let mut running = Vec::new();
    for _ in 0..2 {
        let relay = outbox.relay_with(&queue, |options| {
            options.lanes = 8;
            options.batch = 16;
        });
        let mut stopped = stopped.clone();
        running.push(tokio::spawn(relay.run(async move {
            let _ = stopped.wait_for(|stop| *stop).await;
        })));
    }
    for operator in 0..2_usize {
        let (outbox, done) = (Arc::clone(&outbox), Arc::clone(&done));
        running.push(tokio::spawn(async move {
            let mut turn = operator;
            while !done.load(Ordering::Relaxed) {
                for bad in stuck(&outbox.pool, 0, 10).await.unwrap() {
                    turn += 1;
                    let resolved = match turn % 3 {
                        0 => discard(&outbox.pool, bad.id).await,
                        _ => retry(&outbox.pool, bad.id).await,
                    };
                    resolved.unwrap();
                }
                tokio::task::yield_now().await;
            }
        }));
    }
    for n in 1..=60 {
        outbox
            .stage(&["a", "b", "c", "d"].map(|key| event(key, n)))
            .await;
    }
    until("all good ones are published", || queue.taken().len() >= 160).await;
    let deadline = Instant::now() + LONG;
    while outbox.number("select count(*) from outbox_events").await > 0 {
        assert!(Instant::now() < deadline, "{:?}", lag(&outbox.pool).await);
        tokio::task::yield_now().await;
    }
    done.store(true, Ordering::Relaxed);
    stop.send_replace(true);
    for task in running {
        task.await.unwrap();
    }
    let good: Vec<String> = (1..=60)
        .filter(|n| n % 3 != 0)
        .map(|n| n.to_string())
        .collect();
    for key in ["a", "b", "c", "d"] {
        assert_eq!(queue.of_key(key), good, "{key}");
    }
    Ok(())
}
