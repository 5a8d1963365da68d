//! Sizes, duplicates, refusals.

use shared::queue::{Message, QueueError};

use super::lab::{GROUP, LIMIT};
use super::{Lab, list};
use crate::support::Outcome;

list![
    the_largest_message_passes_and_a_larger_one_is_refused,
    a_second_message_of_the_same_id,
    a_batch_with_a_bad_message_is_refused_whole,
    a_purged_queue_is_empty,
];

async fn the_largest_message_passes_and_a_larger_one_is_refused(lab: &Lab) -> Outcome {
    let largest = lab.can.largest_message_bytes;
    let payload = |bytes: usize| vec![b'x'; bytes];
    let error = lab
        .queue
        .publish(&[Message::new(payload(largest + 1))])
        .await;
    let error = error.expect_err("it is too large");
    assert!(matches!(error, QueueError::TooLarge { .. }), "{error}");
    lab.publish(&[Message::new(payload(largest))]).await;
    let consumer = lab.consumer().await;
    let came = lab.some(&consumer, 1, LIMIT).await.remove(0);
    assert_eq!(came.message.payload.len(), largest);
    let _ = consumer.ack(&[came.receipt]).await.unwrap();
    let size = match largest {
        bytes if bytes % (1024 * 1024) == 0 => format!("{} MiB", bytes / 1024 / 1024),
        bytes => format!("{} KiB", bytes / 1024),
    };
    lab.measured("largest message", size);
    Ok(())
}

async fn a_second_message_of_the_same_id(lab: &Lab) -> Outcome {
    let message = Message::new("x");
    lab.publish(std::slice::from_ref(&message)).await;
    lab.publish(std::slice::from_ref(&message)).await;
    let consumer = lab.consumer().await;
    let first = lab.some(&consumer, 1, LIMIT).await.remove(0);
    assert_eq!(first.message.id, message.id);
    let value = match lab.can.deduplication {
        Some(window) => {
            lab.nothing(&consumer, lab.fixture.lease() * 2).await;
            format!("refused for {} s", window.as_secs())
        }
        None => {
            let second = lab.some(&consumer, 1, LIMIT).await.remove(0);
            assert_eq!(second.message.id, message.id);
            "delivered twice, same id".to_owned()
        }
    };
    lab.measured("published twice", value);
    Ok(())
}

async fn a_batch_with_a_bad_message_is_refused_whole(lab: &Lab) -> Outcome {
    let bad = [Message::new("good"), Message::new("bad").key("")];
    let error = lab
        .queue
        .publish(&bad)
        .await
        .expect_err("a key is not empty");
    assert!(matches!(error, QueueError::Invalid { .. }), "{error}");
    let consumer = lab.consumer().await;
    lab.nothing(&consumer, lab.fixture.lease()).await;
    lab.queue.publish(&[]).await.unwrap();
    for name in ["", "Upper", "a.b"] {
        assert!(lab.broker.queue(name, &[GROUP]).await.is_err(), "{name:?}");
        let refused = lab.queue.consumer(name, &lab.options()).await;
        assert!(refused.is_err(), "{name:?}");
    }
    Ok(())
}

async fn a_purged_queue_is_empty(lab: &Lab) -> Outcome {
    let consumer = lab.consumer().await;
    let some: Vec<_> = (0..10).map(|n| Message::new(format!("{n}"))).collect();
    lab.publish(&some).await;
    let taken = lab.some(&consumer, 2, LIMIT).await;
    let _ = consumer
        .dead_letter(&[(taken[0].receipt.clone(), "x".to_owned())])
        .await
        .unwrap();
    match lab.queue.purge().await {
        Err(QueueError::Unsupported { .. }) => return Err(lab.declared("purge", "purge a queue")),
        purged => purged.unwrap(),
    }
    lab.nothing(&consumer, lab.fixture.lease() * 2).await;
    if lab.can.dead_letters {
        let dead = lab.queue.dead_letters(GROUP, None, 10).await.unwrap();
        assert!(dead.is_empty(), "{dead:?}");
    }
    lab.measured("purge", "yes");
    // And works on.
    lab.publish(&[Message::new("next")]).await;
    assert_eq!(&lab.one(&consumer).await.message.payload[..], b"next");
    Ok(())
}
