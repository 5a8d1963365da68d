//! The order of a key, with several relays.

use std::collections::HashMap;
use std::sync::Arc;
use std::time::Duration;

use shared::db::{TxOptions, begin};
use shared::outbox::{Event, stage};
use shared::queue::{Message, Queue};
use sqlx::Row;
use uuid::Uuid;

use super::support::{Outbox, Recorder, drain, event, payload, text};
use crate::support::{End, Outcome, tests, until};

tests![
    while_one_relay_publishes_a_key_no_other_takes_its_later_events,
    claiming_rows_one_by_one_breaks_the_order,
    order_for_each_key_holds_with_four_relays,
    a_batch_is_limited_in_bytes_and_never_stops_at_a_large_event,
];

async fn while_one_relay_publishes_a_key_no_other_takes_its_later_events() -> Outcome {
    let outbox = Outbox::start().await?;
    let (slow, fast) = (Recorder::holding(), Recorder::new());
    outbox.stage(&[event("a", 1)]).await;
    let mut first = outbox.relay(&slow);
    let step = tokio::spawn(async move { first.step().await.unwrap() });
    slow.next_stored().await;
    // The first relay has a:1 at its broker and no answer yet.
    outbox.stage(&[event("a", 2), event("b", 1)]).await;
    drain(&mut outbox.relay(&fast)).await;
    assert_eq!(fast.texts(), ["b:1"]);
    slow.answer_all();
    assert_eq!(step.await.unwrap().published, 1);
    drain(&mut outbox.relay(&fast)).await;
    assert_eq!(fast.texts(), ["b:1", "a:2"]);
    Ok(())
}

/// The same scene with the usual claim, `for update skip locked` on the events themselves. It must
/// break the order, else the scene above shows nothing.
async fn claiming_rows_one_by_one_breaks_the_order() -> Outcome {
    let outbox = Outbox::start().await?;
    outbox.stage(&[event("a", 1)]).await;
    let sql = "select key || ':' || convert_from(payload, 'utf8') from outbox_events
               order by id limit 10 for update skip locked";
    let mut first = begin(&outbox.pool, &TxOptions::default()).await.unwrap();
    let claimed = sqlx::query(sql).fetch_all(&mut *first).await.unwrap();
    assert_eq!(claimed[0].get::<String, _>(0), "a:1");
    outbox.stage(&[event("a", 2)]).await;
    let mut second = begin(&outbox.pool, &TxOptions::default()).await.unwrap();
    let claimed = sqlx::query(sql).fetch_all(&mut *second).await.unwrap();
    assert_eq!(claimed[0].get::<String, _>(0), "a:2", "overtakes a:1");
    Ok(())
}

/// Stages `events` for one of `keys`, each time with the next number of its key, as a program does:
/// change the row, then stage.
async fn produce(outbox: &Outbox, seed: u64, keys: u64, events: u64) -> Result<(), End> {
    for n in 0..events {
        let key = format!("k{}", (n * 7 + seed * 13) % keys);
        let mut tx = begin(&outbox.pool, &TxOptions::default()).await.unwrap();
        let next: i64 = sqlx::query_scalar(
            "insert into counters values ($1, 1)
             on conflict (key) do update set n = counters.n + 1 returning n",
        )
        .bind(&key)
        .fetch_one(&mut *tx)
        .await
        .unwrap();
        let message = Message::new(next.to_string()).key(key);
        stage(&mut tx, &Event::new("orders", message))
            .await
            .unwrap();
        if n % 10 == 9 {
            tx.rollback().await.unwrap();
        } else {
            tx.commit().await.unwrap();
        }
    }
    Ok(())
}

async fn order_for_each_key_holds_with_four_relays() -> Outcome {
    let outbox = Arc::new(Outbox::start().await?);
    outbox
        .run("create table counters (key text primary key, n bigint not null)")
        .await;
    let queue = Recorder::new();
    let (stop, stopped) = tokio::sync::watch::channel(false);
    let relays = (0..4).map(|_| {
        let relay = outbox.relay_with(&queue, |options| {
            options.lanes = 3;
            options.batch = 7;
        });
        let mut stopped = stopped.clone();
        tokio::spawn(relay.run(async move {
            let _ = stopped.wait_for(|stop| *stop).await;
        }))
    });
    let relays: Vec<_> = relays.collect();
    let producers = (0..4).map(|seed| {
        let outbox = Arc::clone(&outbox);
        tokio::spawn(async move { produce(&outbox, seed, 20, 150).await })
    });
    for producer in producers.collect::<Vec<_>>() {
        producer.await.unwrap()?;
    }
    let committed = outbox.number("select sum(n)::int8 from counters").await;
    until("all are published", || {
        queue.taken().len() as i64 >= committed
    })
    .await;
    stop.send_replace(true);
    for relay in relays {
        relay.await.unwrap();
    }
    let mut last: HashMap<String, u64> = HashMap::new();
    for message in queue.taken() {
        let last = last.entry(message.key.clone().unwrap()).or_default();
        assert_eq!(
            payload(&message),
            (*last + 1).to_string(),
            "{}",
            text(&message)
        );
        *last += 1;
    }
    assert_eq!(last.values().sum::<u64>() as i64, committed);
    Ok(())
}

async fn a_batch_is_limited_in_bytes_and_never_stops_at_a_large_event() -> Outcome {
    let outbox = Outbox::start().await?;
    let queue = Recorder::new();
    let large = |n: u8| {
        let message = Message::new(vec![n; 3_000])
            .id(Uuid::from_u128(n.into()))
            .key("a");
        Event::new("orders", message)
    };
    outbox.stage(&[1, 2, 3, 4].map(large)).await;
    let mut relay = outbox.relay_with(&queue, |options| {
        options.batch_bytes = 5_000;
        options.lease = Duration::from_secs(60);
    });
    let steps = [relay.step().await.unwrap(), relay.step().await.unwrap()];
    assert_eq!(steps.map(|step| step.published), [2, 2]);
    let mut relay = outbox.relay_with(&queue, |options| options.batch_bytes = 1);
    outbox.stage(&[5, 6].map(large)).await;
    let steps = [relay.step().await.unwrap(), relay.step().await.unwrap()];
    assert_eq!(steps.map(|step| step.published), [1, 1]);
    assert_eq!(queue.name(), "orders");
    let ids: Vec<u128> = queue
        .taken()
        .iter()
        .map(|message| message.id.as_u128())
        .collect();
    assert_eq!(ids, [1, 2, 3, 4, 5, 6]);
    Ok(())
}
