//! What is kept, how it goes, and how far behind we are.

use std::time::Duration;

use shared::outbox::{clean_up, lag};

use super::support::{Outbox, Recorder, drain, event};
use crate::support::{Outcome, tests, until};

tests![
    published_events_are_kept_as_long_as_wanted_and_removed_a_few_at_a_time,
    cleaning_up_reads_no_more_than_it_removes,
    the_lag_tells_how_many_wait_and_since_when,
    events_share_the_lanes,
];

async fn published_events_are_kept_as_long_as_wanted_and_removed_a_few_at_a_time() -> Outcome {
    let outbox = Outbox::start().await?;
    let queue = Recorder::new();
    let hour = Duration::from_secs(3_600);
    let mut relay = outbox.relay_with(&queue, |options| options.keep = hour);
    outbox
        .stage(&(1..=25).map(|n| event("a", n)).collect::<Vec<_>>())
        .await;
    drain(&mut relay).await;
    drain(&mut relay).await;
    assert_eq!(queue.taken().len(), 25, "kept is not waiting");
    assert_eq!(
        outbox.number("select count(*) from outbox_events").await,
        25
    );
    assert_eq!(clean_up(&outbox.pool, hour, 10).await.unwrap(), 0);
    outbox
        .run("update outbox_events set published_at = published_at - interval '2 h' where id <= 23")
        .await;
    outbox.stage(&[event("b", 1)]).await;
    let mut removed = Vec::new();
    for _ in 0..4 {
        removed.push(clean_up(&outbox.pool, hour, 10).await.unwrap());
    }
    assert_eq!(removed, [10, 10, 3, 0]);
    assert_eq!(outbox.number("select count(*) from outbox_events").await, 3);
    // The relay does it by itself.
    outbox
        .run("update outbox_events set published_at = published_at - interval '2 h'")
        .await;
    let (stop, stopped) = tokio::sync::oneshot::channel::<()>();
    let running = tokio::spawn(relay.run(async move { drop(stopped.await) }));
    let deadline = std::time::Instant::now() + Duration::from_secs(60);
    while outbox.number("select count(*) from outbox_events").await > 1 {
        assert!(std::time::Instant::now() < deadline, "never cleaned up");
        tokio::task::yield_now().await;
    }
    drop(stop);
    running.await.unwrap();
    assert_eq!(queue.of_key("b"), ["1"]);
    Ok(())
}

async fn cleaning_up_reads_no_more_than_it_removes() -> Outcome {
    let outbox = Outbox::start().await?;
    outbox
        .run(
            "insert into outbox_events (message_id, queue, payload, published_at)
             select gen_random_uuid(), 'orders', 'x', clock_timestamp() - make_interval(secs => n)
             from generate_series(1, 20000) n;
             analyze outbox_events",
        )
        .await;
    // The plan of the statement itself, with what it touched.
    let plan: serde_json::Value = sqlx::query_scalar(
        "explain (analyze, format json) delete from outbox_events where id in (
             select id from outbox_events
             where published_at < clock_timestamp() - make_interval(secs => 60)
             order by published_at limit 10 for update skip locked)",
    )
    .fetch_one(&outbox.pool)
    .await
    .unwrap();
    fn scanned(plan: &serde_json::Value, rows: &mut Vec<(String, f64)>) {
        if let Some(kind) = plan["Node Type"]
            .as_str()
            .filter(|kind| kind.contains("Scan"))
        {
            let loops = plan["Actual Loops"].as_f64().unwrap();
            rows.push((
                kind.to_owned(),
                plan["Actual Rows"].as_f64().unwrap() * loops,
            ));
        }
        for child in plan["Plans"].as_array().into_iter().flatten() {
            scanned(child, rows);
        }
    }
    let mut rows = Vec::new();
    scanned(&plan[0]["Plan"], &mut rows);
    assert!(
        !rows.is_empty() && rows.iter().all(|(_, rows)| *rows <= 10.0),
        "{rows:?}"
    );
    assert!(rows.iter().all(|(kind, _)| kind != "Seq Scan"), "{rows:?}");
    assert_eq!(
        clean_up(&outbox.pool, Duration::from_secs(60), 10)
            .await
            .unwrap(),
        10
    );
    Ok(())
}

async fn the_lag_tells_how_many_wait_and_since_when() -> Outcome {
    let outbox = Outbox::start().await?;
    let empty = lag(&outbox.pool).await.unwrap();
    assert_eq!(
        (empty.waiting, empty.parked, empty.stuck, empty.held),
        (0, 0, 0, 0)
    );
    assert_eq!((empty.oldest_waiting, empty.oldest_failed), (None, None));
    outbox
        .stage(
            &(1..=30)
                .map(|n| event(&n.to_string(), n))
                .collect::<Vec<_>>(),
        )
        .await;
    outbox
        .run("update outbox_events set staged_at = staged_at - interval '1 h' where id = 17")
        .await;
    let late = lag(&outbox.pool).await.unwrap();
    assert_eq!(late.waiting, 30);
    let oldest = late.oldest_waiting.unwrap().as_secs();
    assert!((3_600..3_700).contains(&oldest), "{oldest}");
    let queue = Recorder::new();
    let relay = outbox.relay(&queue);
    let progress = relay.progress();
    let (stop, stopped) = tokio::sync::oneshot::channel::<()>();
    let running = tokio::spawn(relay.run(async move { drop(stopped.await) }));
    until("all are published", || progress.published() == 30).await;
    drop(stop);
    running.await.unwrap();
    assert_eq!(lag(&outbox.pool).await.unwrap(), empty);
    Ok(())
}

/// Else several relays would have nothing to share.
async fn events_share_the_lanes() -> Outcome {
    let outbox = Outbox::start().await?;
    outbox
        .stage(
            &(0..2_000)
                .map(|n| event(&n.to_string(), n))
                .collect::<Vec<_>>(),
        )
        .await;
    let lanes = outbox
        .number("select count(distinct lane) from outbox_events")
        .await;
    assert_eq!(lanes, 64);
    let fullest = "select max(n) from (select count(*) n from outbox_events group by lane) l";
    assert!(outbox.number(fullest).await < 80);
    outbox
        .stage(&(0..500).map(|n| event("hot", n)).collect::<Vec<_>>())
        .await;
    let lanes = "select count(distinct lane) from outbox_events where key = 'hot'";
    assert_eq!(outbox.number(lanes).await, 1);
    Ok(())
}
