//! What the conformance suite does not ask and the two brokers whose clients keep part of the state
//! could get wrong: settling out of order before a crash, settling what was lost without knowing,
//! redriving among groups, receives that nobody waits for.

use std::collections::BTreeSet;
use std::sync::Arc;
use std::time::Duration;

use futures::future::BoxFuture;
use shared::queue::{
    Broker, ConnectOptions, Consumer, ConsumerOptions, Delivery, Message, Queue, Receipt, connect,
};

use super::conformance::lab::taken;
use super::conformance::{Fixture, Start};
use super::nothing_lost;
use crate::support::{Outcome, test};

const LIMIT: Duration = Duration::from_secs(120);
const GROUPS: [&str; 2] = ["one", "two"];

type Judge = for<'a> fn(&'a World) -> BoxFuture<'a, ()>;

macro_rules! list {
    ($($name:ident,)*) => {
        const ALL: &[(&str, Judge)] = &[$((stringify!($name), |world| Box::pin($name(world))),)*];
    };
}

list![
    what_was_acknowledged_out_of_order_does_not_come_again,
    who_lost_a_delivery_cannot_settle_it,
    each_group_gets_everything_and_a_redriven_message_goes_to_its_own,
    what_is_released_or_not_taken_up_can_be_had_again,
];

pub(super) fn tests(broker: &'static str, start: Start) -> Vec<libtest_mimic::Trial> {
    let trial = |(name, judge): &(&'static str, Judge)| {
        let (name, judge) = (*name, *judge);
        test(&format!("queue::{broker}::{name}"), move || async move {
            let world = World::open(start().await?).await;
            judge(&world).await;
            let _ = world.queue.delete().await;
            world.broker.close().await;
            Outcome::Ok(())
        })
    };
    ALL.iter().map(trial).collect()
}

struct World {
    fixture: Box<dyn Fixture>,
    broker: Arc<dyn Broker>,
    queue: Arc<dyn Queue>,
}

impl World {
    async fn open(fixture: Box<dyn Fixture>) -> Self {
        let broker = connection(fixture.as_ref()).await;
        let name = format!("failing-{:08x}", rand::random::<u32>());
        let queue = broker.queue(&name, &GROUPS).await.unwrap();
        Self {
            fixture,
            broker,
            queue,
        }
    }

    /// A consumer with a connection of its own, as another process would have it.
    async fn consumer(&self) -> Arc<dyn Consumer> {
        let broker = connection(self.fixture.as_ref()).await;
        let queue = broker.queue(self.queue.name(), &[]).await.unwrap();
        self.member_of(&queue, GROUPS[0]).await
    }

    async fn member_of(&self, queue: &Arc<dyn Queue>, group: &str) -> Arc<dyn Consumer> {
        let options = ConsumerOptions::default().poll_interval(Duration::from_millis(50));
        queue.consumer(group, &options).await.unwrap()
    }

    async fn publish(&self, messages: &[Message]) {
        self.queue.publish(messages).await.unwrap();
    }

    async fn some(&self, consumer: &Arc<dyn Consumer>, number: usize) -> Vec<Delivery> {
        self.some_for(consumer, number, self.fixture.lease()).await
    }

    async fn some_for(
        &self,
        consumer: &Arc<dyn Consumer>,
        number: usize,
        lease: Duration,
    ) -> Vec<Delivery> {
        taken(consumer, number, lease, LIMIT).await
    }

    async fn one(&self, consumer: &Arc<dyn Consumer>) -> Delivery {
        self.some(consumer, 1).await.pop().unwrap()
    }

    async fn nothing(&self, consumer: &Arc<dyn Consumer>) {
        let (lease, wait) = (self.fixture.lease(), Duration::from_millis(500));
        let came = consumer.receive(10, lease, wait).await.unwrap();
        assert!(came.is_empty(), "{came:?}");
    }
}

async fn connection(fixture: &dyn Fixture) -> Arc<dyn Broker> {
    let options = ConnectOptions::default();
    connect(&fixture.url(), &options).await.unwrap()
}

fn receipts(deliveries: &[Delivery]) -> Vec<Receipt> {
    let receipts = deliveries.iter().map(|delivery| delivery.receipt.clone());
    receipts.collect()
}

async fn what_was_acknowledged_out_of_order_does_not_come_again(world: &World) {
    let sent: Vec<Message> = (0..20).map(|n| Message::new(format!("{n}"))).collect();
    world.publish(&sent).await;
    let dying = world.consumer().await;
    let came = world.some_for(&dying, 20, world.fixture.lease() * 8).await;
    let (kept, done): (Vec<_>, Vec<_>) = came
        .into_iter()
        .partition(|delivery| [0, 7].contains(&index(&delivery.message)));
    nothing_lost(dying.ack(&receipts(&done)).await);
    // What is settled is settled once.
    assert_eq!(dying.ack(&receipts(&done)).await.unwrap().lost.len(), 18);
    drop(dying);
    let consumer = world.consumer().await;
    let again = world.some_for(&consumer, 2, LIMIT).await;
    let ids = |all: &[Delivery]| {
        all.iter()
            .map(|one| one.message.id)
            .collect::<BTreeSet<_>>()
    };
    assert_eq!(ids(&again), ids(&kept));
    assert!(
        again.iter().all(|delivery| delivery.attempt == 2),
        "{again:?}"
    );
    nothing_lost(consumer.ack(&receipts(&again)).await);
    world.nothing(&consumer).await;
    let depth = world.queue.depth(GROUPS[0]).await.unwrap();
    assert!(depth.ready.is_none_or(|ready| ready == 0), "{depth:?}");
}

fn index(message: &Message) -> usize {
    std::str::from_utf8(&message.payload)
        .unwrap()
        .parse()
        .unwrap()
}

async fn who_lost_a_delivery_cannot_settle_it(world: &World) {
    let sent: Vec<Message> = (0..24).map(|n| Message::new(format!("{n}"))).collect();
    world.publish(&sent).await;
    let slow = world.consumer().await;
    let taken = world.some_for(&slow, 24, world.fixture.lease() * 8).await;
    // In Kafka it takes partitions over; in SQS it waits until the leases end.
    let other = world.consumer().await;
    let second = world.some_for(&other, 5, LIMIT).await;
    assert!(
        second.iter().all(|delivery| delivery.attempt == 2),
        "{second:?}"
    );
    let lost = slow.ack(&receipts(&taken)).await.unwrap().lost;
    let lost: BTreeSet<_> = taken
        .iter()
        .filter(|delivery| lost.contains(&delivery.receipt))
        .map(|delivery| delivery.message.id)
        .collect();
    for delivery in &second {
        assert!(lost.contains(&delivery.message.id), "two could settle it");
    }
    nothing_lost(other.ack(&receipts(&second)).await);
    let extended = slow.extend(&receipts(&taken), world.fixture.lease()).await;
    assert_eq!(extended.unwrap().lost.len(), taken.len());
}

async fn each_group_gets_everything_and_a_redriven_message_goes_to_its_own(world: &World) {
    let sent: Vec<Message> = (0..5).map(|n| Message::new(format!("{n}"))).collect();
    world.publish(&sent).await;
    let mut consumers = Vec::new();
    for group in GROUPS {
        let consumer = world.member_of(&world.queue, group).await;
        let came = world
            .some_for(&consumer, 5, world.fixture.lease() * 8)
            .await;
        let ids: BTreeSet<_> = came.iter().map(|delivery| delivery.message.id).collect();
        assert_eq!(ids.len(), 5);
        nothing_lost(consumer.ack(&receipts(&came[1..])).await);
        let reason = (came[0].receipt.clone(), "no".to_owned());
        nothing_lost(consumer.dead_letter(&[reason]).await);
        consumers.push(consumer);
    }
    let letters = world.queue.dead_letters(GROUPS[1], None, 10).await.unwrap();
    let ids: Vec<String> = letters.iter().map(|letter| letter.id.clone()).collect();
    assert_eq!(world.queue.redrive(GROUPS[1], &ids).await.unwrap(), 1);
    let again = world.one(&consumers[1]).await;
    assert_eq!(again.message.id, letters[0].message.id);
    nothing_lost(consumers[1].ack(&[again.receipt]).await);
    world.nothing(&consumers[0]).await;
    let depth = world.queue.depth(GROUPS[0]).await.unwrap();
    assert!(depth.ready.is_none_or(|ready| ready == 0), "{depth:?}");
    assert_eq!(depth.dead, Some(1));
}

async fn what_is_released_or_not_taken_up_can_be_had_again(world: &World) {
    world.publish(&[Message::new("x")]).await;
    let consumer = world.consumer().await;
    let first = world.one(&consumer).await;
    nothing_lost(consumer.release(std::slice::from_ref(&first.receipt)).await);
    let second = world.one(&consumer).await;
    let burnt = !world.broker.capabilities().release_burns_no_attempt;
    assert_eq!(second.attempt, 1 + u32::from(burnt));
    assert_eq!(consumer.ack(&[first.receipt]).await.unwrap().lost.len(), 1);
    nothing_lost(consumer.ack(&[second.receipt]).await);
    // A receive that nobody waits for any more takes nothing along.
    let lease = world.fixture.lease();
    let abandoned = consumer.receive(1, lease, LIMIT);
    let published = async {
        tokio::time::sleep(Duration::from_millis(100)).await;
        world.publish(&[Message::new("y")]).await;
    };
    tokio::select! {
        biased;
        () = published => {}
        came = abandoned => {
            let _ = consumer.release(&receipts(&came.unwrap())).await.unwrap();
        }
    }
    let third = world.one(&consumer).await;
    assert_eq!(&third.message.payload[..], b"y");
    nothing_lost(consumer.ack(&[third.receipt]).await);
    consumer.close().await.unwrap();
    assert!(consumer.receive(1, lease, Duration::ZERO).await.is_err());
}
