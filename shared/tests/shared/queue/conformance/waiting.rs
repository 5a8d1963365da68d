//! Waiting: who waits is woken, and finds what nobody woke it for.

use std::time::{Duration, Instant};

use shared::queue::Message;

use super::{Lab, list};
use crate::support::{End, Outcome};

list![
    an_empty_receive_waits_and_is_woken,
    what_nobody_woke_it_for_is_found_by_polling,
    a_stopped_consumer_returns_at_once,
    a_delayed_message_is_never_early,
];

async fn an_empty_receive_waits_and_is_woken(lab: &Lab) -> Outcome {
    let consumer = lab.consumer().await;
    lab.nothing(&consumer, Duration::ZERO).await;
    let waiting = tokio::spawn({
        let (consumer, lease) = (consumer.clone(), lab.fixture.lease());
        async move {
            let came = consumer.receive(1, lease, super::lab::LIMIT).await.unwrap();
            (came, Instant::now())
        }
    });
    // Long enough for it to be asleep; were it not, the trial would pass all the same.
    tokio::time::sleep(Duration::from_millis(200)).await;
    let published = Instant::now();
    lab.publish(&[Message::new("x")]).await;
    let (came, at) = waiting.await.unwrap();
    assert_eq!(came.len(), 1);
    let took = at.saturating_duration_since(published);
    lab.measured(
        "wake-up of a waiting consumer",
        format!("{} ms", took.as_millis()),
    );
    let _ = consumer.ack(&[came[0].receipt.clone()]).await.unwrap();
    Ok(())
}

async fn what_nobody_woke_it_for_is_found_by_polling(lab: &Lab) -> Outcome {
    let row = "a wake-up that got lost";
    let consumer = lab.consumer().await;
    let waiting = tokio::spawn({
        let (consumer, lease) = (consumer.clone(), lab.fixture.lease());
        async move { consumer.receive(1, lease, super::lab::LIMIT).await.unwrap() }
    });
    tokio::time::sleep(Duration::from_millis(200)).await;
    let Some(published) = lab.fixture.publish_silently(lab.queue.name(), "x").await else {
        waiting.abort();
        lab.measured(row, "cannot be lost");
        return Err(End::Skip(
            "the broker itself wakes whoever waits".to_owned(),
        ));
    };
    published?;
    assert_eq!(waiting.await.unwrap().len(), 1);
    lab.measured(row, "found by polling");
    Ok(())
}

async fn a_stopped_consumer_returns_at_once(lab: &Lab) -> Outcome {
    let consumer = lab.consumer().await;
    let waiting = tokio::spawn({
        let (consumer, lease) = (consumer.clone(), lab.fixture.lease());
        async move {
            consumer
                .receive(1, lease, super::lab::LIMIT * 2)
                .await
                .unwrap()
        }
    });
    tokio::time::sleep(Duration::from_millis(100)).await;
    consumer.stop_receiving();
    let ended = tokio::time::timeout(super::lab::LIMIT, waiting).await;
    assert!(ended.expect("it returns").unwrap().is_empty());
    lab.publish(&[Message::new("x")]).await;
    lab.nothing(&consumer, super::lab::LIMIT).await;
    Ok(())
}

async fn a_delayed_message_is_never_early(lab: &Lab) -> Outcome {
    let row = "delay";
    let delay = lab.can.delay_step.max(Duration::from_millis(500));
    let delayed = Message::new("later").delay(delay);
    let Some(longest) = lab.can.longest_delay else {
        let refused = lab.queue.publish(&[delayed]).await;
        assert!(
            refused.is_err(),
            "declared that it cannot delay, and took it"
        );
        return Err(lab.declared(row, "delay a message"));
    };
    assert!(longest >= delay);
    let consumer = lab.joined().await;
    let published = Instant::now();
    lab.publish(&[delayed, Message::new("now")]).await;
    let first = lab.one(&consumer).await;
    assert_eq!(&first.message.payload[..], b"now");
    let _ = consumer.ack(&[first.receipt]).await.unwrap();
    let second = lab.one(&consumer).await;
    let after = published.elapsed();
    assert_eq!(&second.message.payload[..], b"later");
    assert!(after >= delay, "{after:?} is before {delay:?}");
    let _ = consumer.ack(&[second.receipt]).await.unwrap();
    let longest = match longest {
        Duration::MAX => "any".to_owned(),
        longest => format!("up to {} s", longest.as_secs()),
    };
    lab.measured(row, longest);
    Ok(())
}
