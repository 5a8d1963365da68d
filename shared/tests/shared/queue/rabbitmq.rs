//! RabbitMQ's fixture, and what only RabbitMQ can get wrong.
//!
//! The broker is the machine's own: it is never paused or restarted, but for the one trial that brings
//! a node along. What we make there has names of our own, and vanishes when nobody has used it for some
//! minutes, whatever ended the test.

use std::collections::HashSet;
use std::sync::Arc;
use std::time::Duration;

use async_trait::async_trait;
use shared::queue::{
    ConnectOptions, Consumer, ConsumerOptions, Delivery, KeyOrder, LeaseKind, Message, Nack,
    connect,
};
use shared::services::Upstream;
use uuid::Uuid;

use super::conformance::{self, Fixture};
use super::nothing_lost;
use super::traps::{self, Cut};
use crate::rabbitmq::Address;
use crate::rabbitmq_node::Node;
use crate::support::{End, Outcome, test};

pub(crate) fn tests() -> Vec<libtest_mimic::Trial> {
    let mut all = conformance::trials_with(
        "rabbitmq",
        || Box::pin(Named::start()),
        || Box::pin(Own::start()),
    );
    all.extend(traps::tests("rabbitmq", || Box::pin(Named::start())));
    all.extend([
        test(
            "queue::rabbitmq::a_consumer_subscribes_again_after_its_connection_was_cut",
            a_consumer_subscribes_again_after_its_connection_was_cut,
        ),
        test(
            "queue::rabbitmq::what_is_held_for_a_lane_comes_back_in_its_order",
            what_is_held_for_a_lane_comes_back_in_its_order,
        ),
        test(
            "queue::rabbitmq::a_broker_that_refuses_is_one_clear_error",
            a_broker_that_refuses_is_one_clear_error,
        ),
    ]);
    all
}

/// Long enough for the slowest trial on a busy machine.
const UNUSED_MS: u64 = 300_000;

const LEASE: Duration = Duration::from_millis(400);

/// The broker that `AMQP_URL` names, or the one of this machine.
struct Named {
    address: Address,
    prefix: String,
}

impl Named {
    async fn start() -> Result<Box<dyn Fixture>, End> {
        Ok(Box::new(Self::find().await?))
    }

    async fn find() -> Result<Self, End> {
        Ok(Self {
            address: Address::named().await?,
            prefix: format!("kata-test-{:08x}.", rand::random::<u32>()),
        })
    }

    /// The address through something on this machine.
    fn through(&self, port: u16) -> String {
        let upstream = Upstream::Tcp("127.0.0.1".to_owned(), port);
        let url = self.address.url_through(&upstream);
        format!("{url}?{}", self.parameters())
    }

    fn parameters(&self) -> String {
        format!("prefix={}&expires_ms={UNUSED_MS}", self.prefix)
    }
}

#[async_trait]
impl Fixture for Named {
    fn url(&self) -> String {
        format!("{}?{}", self.address.url(), self.parameters())
    }

    fn lease(&self) -> Duration {
        LEASE
    }
}

/// A node of this trial's own.
struct Own(Node);

impl Own {
    async fn start() -> Result<Box<dyn Fixture>, End> {
        Ok(Box::new(Self(Node::start().await?)))
    }
}

#[async_trait]
impl Fixture for Own {
    fn url(&self) -> String {
        self.0.url()
    }

    fn lease(&self) -> Duration {
        LEASE
    }

    async fn restart(&self) -> Option<Result<(), End>> {
        self.0.crash_and_restart().await;
        Some(Ok(()))
    }
}

async fn a_consumer_subscribes_again_after_its_connection_was_cut() -> Outcome {
    let named = Named::find().await?;
    let direct = connect(&named.url(), &ConnectOptions::default())
        .await
        .unwrap();
    let queue = direct.queue("cut", &["g"]).await.unwrap();
    let cut = Cut::before(&named.address.upstream().to_string()).await;
    let broker = connect(&named.through(cut.port()), &ConnectOptions::default())
        .await
        .unwrap();
    let theirs = broker.queue("cut", &["g"]).await.unwrap();
    let consumer = theirs
        .consumer("g", &ConsumerOptions::default())
        .await
        .unwrap();
    queue.publish(&[Message::new("x")]).await.unwrap();
    let first = traps::one(&consumer).await;
    cut.cut();
    let second = traps::one(&consumer).await;
    assert_eq!(second.message.id, first.message.id);
    assert_eq!(second.attempt, 2, "the broker counted the one that was cut");
    assert!(second.redelivered);
    // The old receipt is of channels that are gone.
    let late = consumer
        .ack(std::slice::from_ref(&first.receipt))
        .await
        .unwrap();
    assert_eq!(late.lost, [first.receipt]);
    nothing_lost(consumer.ack(&[second.receipt]).await);
    // Publishing goes on too, over a new connection, after one error at most.
    cut.cut();
    let message = Message::new("y");
    let published = theirs.publish(std::slice::from_ref(&message)).await;
    if published.is_err() {
        theirs
            .publish(std::slice::from_ref(&message))
            .await
            .unwrap();
    }
    // What was acknowledged just before the cut may come again.
    let mut seen = HashSet::from([first.message.id]);
    handle(&consumer, &message, &mut seen).await;
    queue.delete().await.unwrap();
    Ok(())
}

/// The broker puts a message that is refused behind those that its consumer has, and what one
/// consumer gives back behind what the next one left. So we never refuse, and the next takes it all.
async fn what_is_held_for_a_lane_comes_back_in_its_order() -> Outcome {
    let named = Named::find().await?;
    let broker = connect(&named.url(), &ConnectOptions::default())
        .await
        .unwrap();
    assert_eq!(broker.capabilities().key_order, KeyOrder::Strict);
    assert_eq!(broker.capabilities().lease, LeaseKind::Connection);
    let queue = broker.queue("lane", &["g"]).await.unwrap();
    let sent: Vec<_> = (0..200)
        .map(|n| Message::new(format!("{n}")).key("k"))
        .collect();
    queue.publish(&sent).await.unwrap();
    let mut left = sent.iter();
    let mut seen = HashSet::new();
    for (done, prefetch) in [(0, 256), (3, 8), (70, 500), (1, 1)] {
        let options = ConsumerOptions::default().prefetch(prefetch);
        let dying = queue.consumer("g", &options).await.unwrap();
        for message in left.by_ref().take(done) {
            handle(&dying, message, &mut seen).await;
        }
        let nack = Nack {
            receipt: unseen(&dying, &seen).await.receipt,
            delay: Duration::from_secs(600),
            error: "not now".to_owned(),
        };
        nothing_lost(dying.nack(&[nack]).await);
        drop(dying);
    }
    let heir = queue
        .consumer("g", &ConsumerOptions::default())
        .await
        .unwrap();
    for message in left {
        handle(&heir, message, &mut seen).await;
    }
    queue.delete().await.unwrap();
    Ok(())
}

/// The next that was not acknowledged before.
async fn unseen(consumer: &Arc<dyn Consumer>, seen: &HashSet<Uuid>) -> Delivery {
    loop {
        let delivery = traps::one(consumer).await;
        if !seen.contains(&delivery.message.id) {
            return delivery;
        }
        let _ = consumer.ack(&[delivery.receipt]).await.unwrap();
    }
}

/// Acknowledges this message, which has to be the next. What was acknowledged just before its consumer
/// died may come again, since an acknowledgement is not confirmed.
async fn handle(consumer: &Arc<dyn Consumer>, message: &Message, seen: &mut HashSet<Uuid>) {
    loop {
        let delivery = traps::one(consumer).await;
        let settled = consumer.ack(&[delivery.receipt]).await.unwrap();
        assert!(settled.lost.is_empty());
        if seen.insert(delivery.message.id) {
            assert_eq!(delivery.message.id, message.id);
            return;
        }
    }
}

async fn a_broker_that_refuses_is_one_clear_error() -> Outcome {
    let named = Named::find().await?;
    let wrong = format!("amqp://nobody:secret@{}", named.address.upstream());
    let error = connect(&wrong, &ConnectOptions::default())
        .await
        .err()
        .unwrap();
    assert!(!error.is_transient(), "{error}");
    assert!(!error.to_string().contains("secret"), "{error}");
    let closed = traps::closed_port().await;
    let error = connect(
        &format!("amqp://127.0.0.1:{closed}"),
        &ConnectOptions::default(),
    )
    .await
    .err()
    .unwrap();
    assert!(error.is_transient(), "{error}");
    Ok(())
}
