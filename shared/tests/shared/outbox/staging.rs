//! What goes in comes out: after the commit, as it was, and never without one.

use std::time::Duration;

use shared::db::{PoolSettings, TxOptions, begin, connect, transaction};
use shared::outbox::{Event, OutboxError, lag, stage, stage_all};
use shared::queue::{Message, header};
use shared::telemetry::trace;
use tracing::Instrument;
use uuid::Uuid;

use super::support::{Outbox, Recorder, drain, event};
use crate::role::Role;
use crate::support::{Outcome, tests};

tests![
    an_event_is_published_after_its_commit_and_never_without_one,
    an_event_arrives_as_it_was_staged,
    a_delay_counts_from_staging,
    an_event_that_no_broker_takes_is_refused_when_it_is_staged,
    events_for_another_queue_wait_for_another_relay,
    staging_works_in_a_transaction_that_is_tried_again,
    the_trace_and_the_request_in_hand_go_along,
];

/// The role's name, for `role::play`.
pub(crate) const ROLE: &str = "outbox-stages-in-a-span";

/// Stages two events in a span, of which one names a trace and a request of its own.
pub(crate) async fn play() {
    let _guard = shared::telemetry::init("shop");
    let url = std::env::var("OUTBOX_URL").unwrap();
    let pool = connect(&url, &PoolSettings::default()).await.unwrap();
    let span = tracing::info_span!("request", request_id = "r-7");
    async {
        let named = Message::new("2")
            .header(header::TRACEPARENT, TRACE)
            .header(header::REQUEST_ID, "mine");
        let events = [Message::new("1"), named].map(|message| Event::new("orders", message));
        let mut tx = begin(&pool, &TxOptions::default()).await.unwrap();
        stage_all(&mut tx, &events).await.unwrap();
        tx.commit().await.unwrap();
        println!("{}", trace::current().unwrap().trace_id());
    }
    .instrument(span)
    .await;
}

/// A trace that somebody else began.
const TRACE: &str = "00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01";

async fn the_trace_and_the_request_in_hand_go_along() -> Outcome {
    let outbox = Outbox::start().await?;
    let mut process = Role::start(ROLE, &[("OUTBOX_URL", &outbox.url())], None);
    let trace = process.ready().remove(0);
    process.finish();
    let queue = Recorder::new();
    drain(&mut outbox.relay(&queue)).await;
    let taken = queue.taken();
    let [ours, named] = &taken[..] else {
        panic!("{taken:?}")
    };
    assert_eq!(ours.headers[header::REQUEST_ID], "r-7");
    let parent = &ours.headers[header::TRACEPARENT];
    assert_eq!(parent.split('-').nth(1), Some(&*trace), "{parent}");
    assert_eq!(named.headers[header::REQUEST_ID], "mine");
    assert_eq!(named.headers[header::TRACEPARENT], TRACE);
    Ok(())
}

async fn an_event_is_published_after_its_commit_and_never_without_one() -> Outcome {
    let outbox = Outbox::start().await?;
    let queue = Recorder::new();
    let mut relay = outbox.relay(&queue);
    let mut tx = begin(&outbox.pool, &TxOptions::default()).await.unwrap();
    stage(&mut tx, &event("a", 1)).await.unwrap();
    drain(&mut relay).await;
    assert_eq!(queue.texts(), [""; 0], "before the commit");
    tx.commit().await.unwrap();
    let mut tx = begin(&outbox.pool, &TxOptions::default()).await.unwrap();
    stage(&mut tx, &event("a", 2)).await.unwrap();
    tx.rollback().await.unwrap();
    drain(&mut relay).await;
    assert_eq!(queue.texts(), ["a:1"]);
    assert_eq!(outbox.number("select count(*) from outbox_events").await, 0);
    Ok(())
}

async fn an_event_arrives_as_it_was_staged() -> Outcome {
    let outbox = Outbox::start().await?;
    let queue = Recorder::new();
    let message = Message::new(vec![0_u8, 159, 146, 150])
        .id(Uuid::from_u128(7))
        .key("customer-ä \"3\"")
        .header(header::TRACEPARENT, TRACE)
        .header(header::REQUEST_ID, "r-7")
        .priority(200);
    let plain = Message::new("");
    let events = [message.clone(), plain.clone()].map(|message| Event::new("orders", message));
    outbox.stage(&events).await;
    drain(&mut outbox.relay(&queue)).await;
    assert_eq!(queue.taken(), [message, plain]);
    Ok(())
}

async fn a_delay_counts_from_staging() -> Outcome {
    let outbox = Outbox::start().await?;
    let queue = Recorder::new();
    let hour = Duration::from_secs(3600);
    let delayed = |delay| Event::new("orders", Message::new("x").delay(delay));
    outbox.stage(&[delayed(hour)]).await;
    // As if the relay came twenty minutes later, and for the second one after two hours.
    outbox
        .run("update outbox_events set due_at = due_at - interval '20 min'")
        .await;
    outbox.stage(&[delayed(hour)]).await;
    outbox
        .run("update outbox_events set due_at = due_at - interval '2 h' where id = 2")
        .await;
    drain(&mut outbox.relay(&queue)).await;
    let delays: Vec<u64> = queue.taken().iter().map(|m| m.delay.as_secs()).collect();
    assert!((2000..=2400).contains(&delays[0]), "{delays:?}");
    assert_eq!(delays[1], 0);
    Ok(())
}

async fn an_event_that_no_broker_takes_is_refused_when_it_is_staged() -> Outcome {
    let outbox = Outbox::start().await?;
    let mut tx = begin(&outbox.pool, &TxOptions::default()).await.unwrap();
    for bad in [
        Event::new("Orders", Message::new("x")),
        Event::new("orders", Message::new("x").key("")),
        Event::new("orders", Message::new("x").key("a\0b")),
        Event::new("orders", Message::new("x").header("Bad", "x")),
    ] {
        let refused = stage_all(&mut tx, &[event("a", 1), bad]).await;
        assert!(
            matches!(refused, Err(OutboxError::Invalid(_))),
            "{refused:?}"
        );
    }
    // The transaction is none the worse for it.
    stage_all(&mut tx, &[]).await.unwrap();
    stage(&mut tx, &event("a", 2)).await.unwrap();
    tx.commit().await.unwrap();
    assert_eq!(lag(&outbox.pool).await.unwrap().waiting, 1);
    Ok(())
}

async fn events_for_another_queue_wait_for_another_relay() -> Outcome {
    let outbox = Outbox::start().await?;
    let queue = Recorder::new();
    let other = Event::new("mails", Message::new("m").key("a"));
    outbox.stage(&[other, event("a", 1)]).await;
    drain(&mut outbox.relay(&queue)).await;
    assert_eq!(queue.texts(), ["a:1"]);
    assert_eq!(lag(&outbox.pool).await.unwrap().waiting, 1);
    Ok(())
}

async fn staging_works_in_a_transaction_that_is_tried_again() -> Outcome {
    let outbox = Outbox::start().await?;
    let queue = Recorder::new();
    let mut attempts = 0;
    transaction(&outbox.pool, &TxOptions::serializable(), async |tx| {
        attempts += 1;
        stage(tx, &event("a", attempts)).await?;
        if attempts < 3 {
            let sql = "do $$ begin raise exception using errcode = '40001'; end $$";
            sqlx::raw_sql(sql).execute(tx).await?;
        }
        Ok::<_, OutboxError>(())
    })
    .await
    .unwrap();
    drain(&mut outbox.relay(&queue)).await;
    assert_eq!(queue.texts(), ["a:3"]);
    Ok(())
}
