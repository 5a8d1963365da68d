//! That what goes in comes out: whole, once while all is well, again when it is not.

use std::collections::BTreeSet;
use std::sync::Arc;
use std::time::{Duration, Instant};

use shared::queue::worker::Worker;
use shared::queue::{Delivery, Message, Nack, Settled};
use tokio::sync::Notify;

use super::lab::{GROUP, LIMIT};
use super::{Lab, list};
use crate::support::Outcome;

list![
    what_is_published_arrives_as_it_was,
    a_batch_is_delivered_once_and_acknowledged_at_once,
    the_depth_is_what_there_is,
    a_crash_of_the_consumer_delivers_again,
    a_polite_stop_finishes_what_runs_and_burns_no_attempt,
];

async fn what_is_published_arrives_as_it_was(lab: &Lab) -> Outcome {
    let sent = Message::new(&b"\x00\xffbytes"[..])
        .key("customer-3")
        .header(
            "traceparent",
            "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01",
        )
        .header("x-request-id", "ä \"quoted\" {id}");
    let before = std::time::SystemTime::now();
    lab.publish(std::slice::from_ref(&sent)).await;
    let consumer = lab.consumer().await;
    let delivery = lab.one(&consumer).await;
    assert_eq!(delivery.message, sent);
    assert_eq!(delivery.attempt, 1);
    assert!(!delivery.redelivered);
    let age = delivery
        .first_enqueued_at
        .duration_since(before - Duration::from_secs(1));
    assert!(
        age.unwrap() < Duration::from_secs(60),
        "{:?}",
        delivery.first_enqueued_at
    );
    assert_eq!(
        consumer.ack(&[delivery.receipt]).await.unwrap(),
        Settled::default()
    );
    lab.nothing(&consumer, lab.fixture.lease() * 2).await;
    Ok(())
}

async fn a_crash_of_the_consumer_delivers_again(lab: &Lab) -> Outcome {
    lab.publish(&[Message::new("x")]).await;
    let (dying, queue) = lab.another().await;
    let consumer = queue.consumer(GROUP, &lab.options()).await.unwrap();
    let taken = Instant::now();
    let first = lab.one(&consumer).await;
    drop((consumer, queue));
    drop(dying);
    let survivor = lab.consumer().await;
    let second = lab.one(&survivor).await;
    let after = taken.elapsed();
    assert_eq!(second.message.id, first.message.id);
    assert!(second.redelivered);
    let _ = survivor.ack(&[second.receipt]).await.unwrap();
    lab.measured("after a crash of the consumer", "delivered again");
    let lease = lab.fixture.lease().as_millis();
    let value = format!("{} ms with a lease of {lease} ms", after.as_millis());
    lab.measured("redelivery after the consumer took it", value);
    Ok(())
}

async fn a_batch_is_delivered_once_and_acknowledged_at_once(lab: &Lab) -> Outcome {
    let sent: Vec<_> = (0..300).map(|n| Message::new(format!("{n}"))).collect();
    lab.publish(&sent).await;
    let consumer = lab.consumer().await;
    let came = lab.some(&consumer, 300, LIMIT).await;
    let ids: BTreeSet<_> = came.iter().map(|delivery| delivery.message.id).collect();
    assert_eq!(ids, sent.iter().map(|message| message.id).collect());
    let receipts: Vec<_> = came.into_iter().map(|delivery| delivery.receipt).collect();
    assert_eq!(consumer.ack(&receipts).await.unwrap(), Settled::default());
    lab.nothing(&consumer, lab.fixture.lease()).await;
    Ok(())
}

/// What a broker cannot tell is `None`; what it tells is right.
async fn the_depth_is_what_there_is(lab: &Lab) -> Outcome {
    let consumer = lab.consumer().await;
    let number = 5 + usize::from(lab.can.longest_delay.is_some());
    let mut sent: Vec<_> = (0..5).map(|n| Message::new(format!("{n}"))).collect();
    if number == 6 {
        sent.push(Message::new("later").delay(LIMIT * 2));
    }
    lab.publish(&sent).await;
    let taken = lab.some(&consumer, 3, LIMIT * 2).await;
    let settled = consumer
        .dead_letter(&[(taken[0].receipt.clone(), "x".to_owned())])
        .await;
    assert_eq!(settled.unwrap(), Settled::default());
    let mut told = 0;
    // Some brokers count a moment later than they act.
    lab.until("the depth is right", async || {
        let depth = lab.queue.depth(GROUP).await.unwrap();
        let is = |count: Option<u64>, right: u64| count.is_none_or(|count| count == right);
        is(depth.ready, 2)
            && is(depth.delayed, (number - 5) as u64)
            && is(depth.leased, 2)
            && is(depth.dead, 1)
            && depth.oldest.is_none_or(|age| age < LIMIT)
    })
    .await;
    let depth = lab.queue.depth(GROUP).await.unwrap();
    for count in [depth.ready, depth.delayed, depth.leased, depth.dead] {
        told += usize::from(count.is_some());
    }
    told += usize::from(depth.oldest.is_some());
    lab.measured(
        "depth: ready, delayed, leased, dead, age",
        format!("{told} of 5"),
    );
    Ok(())
}

async fn a_polite_stop_finishes_what_runs_and_burns_no_attempt(lab: &Lab) -> Outcome {
    let row = "a polite stop";
    let sent: Vec<_> = (0..8).map(|n| Message::new(format!("{n}"))).collect();
    lab.publish(&sent).await;
    let (begun, go_on) = (Arc::new(Notify::new()), Arc::new(Notify::new()));
    let handler = {
        let (begun, go_on) = (Arc::clone(&begun), Arc::clone(&go_on));
        move |_: Delivery| {
            let (begun, go_on) = (Arc::clone(&begun), Arc::clone(&go_on));
            async move {
                begun.notify_one();
                go_on.notified().await;
                Ok(())
            }
        }
    };
    let stop = async {
        begun.notified().await;
        // It finishes after the stop, and not before.
        tokio::spawn(async move {
            tokio::time::sleep(Duration::from_millis(200)).await;
            go_on.notify_one();
        });
    };
    let worker = Worker::new(lab.consumer().await)
        .concurrency(1)
        .prefetch(8)
        .lease(LIMIT * 2);
    let report = worker.run(handler, stop).await;
    assert_eq!((report.done, report.lost, report.retried), (1, 0, 0));
    let consumer = lab.consumer().await;
    let left = lab.some(&consumer, 7, LIMIT).await;
    if lab.can.release_burns_no_attempt {
        let attempts: Vec<_> = left.iter().map(|delivery| delivery.attempt).collect();
        assert_eq!(attempts, [1; 7]);
        lab.measured(row, "finishes, gives back, burns nothing");
    } else {
        lab.measured(row, "finishes, gives back");
    }
    // A nack is a failure, and counts.
    let nack = Nack {
        receipt: left[0].receipt.clone(),
        delay: Duration::ZERO,
        error: "x".to_owned(),
    };
    let _ = consumer.nack(&[nack]).await.unwrap();
    let again = lab.one(&consumer).await;
    assert_eq!(again.attempt, left[0].attempt + 1);
    Ok(())
}
