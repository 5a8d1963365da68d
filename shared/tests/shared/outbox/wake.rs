//! How a relay learns that there is work, and what that costs those who make it.

use std::sync::Arc;
use std::time::{Duration, Instant};

use shared::outbox::Relay;
use sqlx::postgres::PgListener;
use tokio::sync::oneshot;
use tokio::task::JoinHandle;

use super::support::{Outbox, Recorder, event};
use crate::support::{Outcome, tests, until};

tests![
    a_sleeping_relay_is_woken_by_a_commit,
    what_nobody_notified_of_is_found_by_looking,
    staging_notifies_once_for_a_transaction_and_only_if_somebody_sleeps,
    a_relay_that_was_killed_in_its_sleep_is_not_notified_for_ever,
    a_polite_stop_finishes_the_batch,
];

/// So long that no test sees the end of it.
const NEVER: Duration = Duration::from_secs(3_600);

struct Running {
    stop: Option<oneshot::Sender<()>>,
    task: JoinHandle<()>,
}

impl Running {
    fn start(relay: Relay) -> Self {
        let (stop, stopped) = oneshot::channel::<()>();
        let task = tokio::spawn(relay.run(async move { drop(stopped.await) }));
        Self {
            stop: Some(stop),
            task,
        }
    }

    async fn stop(mut self) {
        drop(self.stop.take());
        self.task.await.unwrap();
    }
}

/// Waits until the relay has said that it sleeps and can be woken.
async fn asleep(outbox: &Outbox) {
    let deadline = Instant::now() + Duration::from_secs(60);
    let sleeping = "select count(*) from outbox_sleepers where until > clock_timestamp()";
    let listening = "select count(*) from pg_stat_activity
                     where usename = current_user and query like 'LISTEN%'";
    while outbox.number(sleeping).await == 0 || outbox.number(listening).await == 0 {
        assert!(Instant::now() < deadline, "never falls asleep");
        tokio::task::yield_now().await;
    }
}

async fn a_sleeping_relay_is_woken_by_a_commit() -> Outcome {
    let outbox = Outbox::start().await?;
    let queue = Recorder::new();
    let running = Running::start(outbox.relay_with(&queue, |options| options.poll = NEVER));
    // More than once: the first may be found by the looks before it sleeps.
    for n in 1..=5 {
        asleep(&outbox).await;
        outbox.stage(&[event("a", n)]).await;
        until("the relay wakes up", || queue.taken().len() == n).await;
    }
    running.stop().await;
    Ok(())
}

async fn what_nobody_notified_of_is_found_by_looking() -> Outcome {
    let outbox = Outbox::start().await?;
    let queue = Recorder::new();
    let running = Running::start(outbox.relay(&queue));
    for n in 1..=5 {
        asleep(&outbox).await;
        outbox
            .run(&format!(
                "insert into outbox_events (message_id, queue, key, payload)
                 values (gen_random_uuid(), 'orders', 'a', '{n}')"
            ))
            .await;
        until("it is found", || queue.taken().len() == n).await;
    }
    running.stop().await;
    Ok(())
}

async fn staging_notifies_once_for_a_transaction_and_only_if_somebody_sleeps() -> Outcome {
    let outbox = Outbox::start().await?;
    let channel: String =
        sqlx::query_scalar("select 'outbox_' || 'outbox_events'::regclass::oid::text")
            .fetch_one(&outbox.pool)
            .await
            .unwrap();
    let mut listener = PgListener::connect_with(&outbox.pool).await.unwrap();
    listener.listen_all([&*channel, "marker"]).await.unwrap();
    // How many until the marker comes.
    let mut heard = async || {
        outbox.run("notify marker").await;
        let mut heard = 0;
        while listener.recv().await.unwrap().channel() != "marker" {
            heard += 1;
        }
        heard
    };
    for n in 0..20 {
        outbox.stage(&[event("a", n)]).await;
    }
    assert_eq!(heard().await, 0, "nobody sleeps");
    outbox
        .run("insert into outbox_sleepers values (gen_random_uuid(), clock_timestamp() + interval '1 h')")
        .await;
    let events: Vec<_> = (0..20).map(|n| event("a", n)).collect();
    outbox.stage(&events).await;
    assert_eq!(heard().await, 1, "one for the transaction");
    outbox
        .run("update outbox_sleepers set until = clock_timestamp()")
        .await;
    outbox.stage(&events).await;
    assert_eq!(heard().await, 0, "its sleep has ended");
    Ok(())
}

async fn a_relay_that_was_killed_in_its_sleep_is_not_notified_for_ever() -> Outcome {
    let outbox = Outbox::start().await?;
    let queue = Recorder::new();
    let killed = Running::start(outbox.relay(&queue));
    asleep(&outbox).await;
    killed.task.abort();
    let sleeping = "select count(*) from outbox_sleepers where until > clock_timestamp()";
    let deadline = Instant::now() + Duration::from_secs(60);
    while outbox.number(sleeping).await > 0 {
        assert!(Instant::now() < deadline, "still listed");
        tokio::task::yield_now().await;
    }
    // And its row goes with the next relay that wakes up.
    outbox
        .run("update outbox_sleepers set until = until - interval '1 h'")
        .await;
    let running = Running::start(outbox.relay(&queue));
    asleep(&outbox).await;
    outbox.stage(&[event("a", 1)]).await;
    until("it is published", || queue.taken().len() == 1).await;
    running.stop().await;
    assert_eq!(
        outbox.number("select count(*) from outbox_sleepers").await,
        0
    );
    Ok(())
}

async fn a_polite_stop_finishes_the_batch() -> Outcome {
    let outbox = Arc::new(Outbox::start().await?);
    let queue = Recorder::holding();
    outbox.stage(&[event("a", 1)]).await;
    let mut running = Running::start(outbox.relay(&queue));
    queue.next_stored().await;
    drop(running.stop.take());
    assert!(!running.task.is_finished());
    queue.answer_all();
    running.stop().await;
    assert_eq!(queue.texts(), ["a:1"]);
    assert_eq!(outbox.number("select count(*) from outbox_events").await, 0);
    assert_eq!(
        outbox
            .number("select count(*) from outbox_lanes where claim is not null")
            .await,
        0
    );
    Ok(())
}
