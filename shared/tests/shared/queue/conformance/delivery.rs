//! That what goes in comes out: whole, once while all is well, again when it is not.

use std::time::{Duration, Instant};

use shared::queue::{Message, Settled};

use super::{Lab, list};
use crate::support::Outcome;

list![
    what_is_published_arrives_as_it_was,
    a_crash_of_the_consumer_delivers_again,
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
    let consumer = queue
        .consumer(super::lab::GROUP, &Default::default())
        .await
        .unwrap();
    let first = lab.one(&consumer).await;
    let taken = Instant::now();
    drop((consumer, queue));
    drop(dying);
    let survivor = lab.consumer().await;
    let second = lab.one(&survivor).await;
    let after = taken.elapsed();
    assert_eq!(second.message.id, first.message.id);
    assert!(second.redelivered);
    let _ = survivor.ack(&[second.receipt]).await.unwrap();
    lab.measured("after a crash of the consumer", "delivered again");
    lab.measured(
        "redelivery after a lease",
        format!("{} ms", after.as_millis()),
    );
    Ok(())
}
