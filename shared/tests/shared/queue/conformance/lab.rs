//! What a trial works with: a queue of its own, and the few deeds that trials repeat.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use shared::queue::{
    Broker, Capabilities, ConnectOptions, Consumer, ConsumerOptions, Delivery, Message, Queue,
    connect,
};

use super::Fixture;
use crate::support::End;

/// Far longer than anything takes, on a machine that is busy with other things.
pub(crate) const LIMIT: Duration = Duration::from_secs(60);

/// The group of trials that need only one.
pub(crate) const GROUP: &str = "group";

/// What trials measured: broker → row of the table → value.
static MEASURED: Mutex<BTreeMap<&str, BTreeMap<&str, String>>> = Mutex::new(BTreeMap::new());

/// What was measured so far.
pub(crate) fn measured() -> BTreeMap<String, BTreeMap<String, String>> {
    let all = MEASURED.lock().unwrap();
    let owned = |column: &BTreeMap<&str, String>| {
        let rows = column.iter();
        rows.map(|(row, value)| ((*row).to_owned(), value.clone()))
            .collect()
    };
    let columns = all.iter();
    columns
        .map(|(broker, column)| ((*broker).to_owned(), owned(column)))
        .collect()
}

/// One trial's world.
pub(crate) struct Lab {
    broker_name: &'static str,
    pub(crate) fixture: Box<dyn Fixture>,
    pub(crate) broker: Arc<dyn Broker>,
    pub(crate) queue: Arc<dyn Queue>,
    pub(crate) can: Capabilities,
}

impl Lab {
    pub(super) async fn open(
        broker_name: &'static str,
        trial: &str,
        fixture: Box<dyn Fixture>,
    ) -> Result<Self, End> {
        let options = ConnectOptions::default();
        let broker = connect(&fixture.url(), &options).await.unwrap();
        // Short enough for every broker, and nobody else's.
        let name = format!(
            "{:.24}-{:08x}",
            trial.replace('_', "-"),
            rand::random::<u32>()
        );
        let queue = broker.queue(&name, &[GROUP]).await.unwrap();
        let lab = Self {
            broker_name,
            can: broker.capabilities(),
            fixture,
            broker,
            queue,
        };
        lab.measured("durability of a publication", lab.can.durability.as_str());
        let emulation = lab.can.emulation.clone();
        lab.measured(
            "measured against",
            emulation.unwrap_or_else(|| "the broker itself".to_owned()),
        );
        Ok(lab)
    }

    pub(super) async fn close(self) {
        // A trial may have left the broker in pieces; the fixture removes what is left.
        let _ = self.queue.delete().await;
        self.broker.close().await;
    }

    /// Another connection, as another process would have it, and its view of the queue.
    pub(crate) async fn another(&self) -> (Arc<dyn Broker>, Arc<dyn Queue>) {
        let options = ConnectOptions::default();
        let broker = connect(&self.fixture.url(), &options).await.unwrap();
        let queue = broker.queue(self.queue.name(), &[]).await.unwrap();
        (broker, queue)
    }

    /// Polls often, so that trials are short.
    pub(crate) fn options(&self) -> ConsumerOptions {
        ConsumerOptions::default().poll_interval(Duration::from_millis(50))
    }

    pub(crate) async fn consumer(&self) -> Arc<dyn Consumer> {
        self.consumer_of(GROUP).await
    }

    /// A consumer that its group has let in, while the queue is empty: for trials that compare
    /// times, and those that do not care which member gets a message.
    pub(crate) async fn joined(&self) -> Arc<dyn Consumer> {
        let consumer = self.consumer().await;
        self.nothing(&consumer, self.fixture.joining()).await;
        consumer
    }

    /// One message, and which of these consumers got it: where a part of the queue belongs to one
    /// member, only that one does.
    pub(crate) async fn whoever(
        &self,
        consumers: &[Arc<dyn Consumer>],
        lease: Duration,
    ) -> (usize, Delivery) {
        let deadline = Instant::now() + LIMIT;
        loop {
            for (number, consumer) in consumers.iter().enumerate() {
                let wait = Duration::from_millis(100);
                let mut came = consumer.receive(1, lease, wait).await.unwrap();
                if let Some(delivery) = came.pop() {
                    return (number, delivery);
                }
            }
            assert!(Instant::now() < deadline, "nobody got it");
        }
    }

    pub(crate) async fn consumer_of(&self, group: &str) -> Arc<dyn Consumer> {
        self.queue.consumer(group, &self.options()).await.unwrap()
    }

    pub(crate) async fn publish(&self, messages: &[Message]) {
        self.queue.publish(messages).await.unwrap();
    }

    /// One message, however long it takes.
    pub(crate) async fn one(&self, consumer: &Arc<dyn Consumer>) -> Delivery {
        let mut some = self.some(consumer, 1, self.fixture.lease()).await;
        some.pop().unwrap()
    }

    /// Exactly so many messages, taken for so long. They may come in several batches.
    pub(crate) async fn some(
        &self,
        consumer: &Arc<dyn Consumer>,
        number: usize,
        lease: Duration,
    ) -> Vec<Delivery> {
        taken(consumer, number, lease, LIMIT).await
    }

    /// That nothing comes within this time.
    pub(crate) async fn nothing(&self, consumer: &Arc<dyn Consumer>, wait: Duration) {
        let came = consumer
            .receive(1, self.fixture.lease(), wait)
            .await
            .unwrap();
        assert!(came.is_empty(), "{came:?}");
    }

    /// Waits for a condition that has to be asked for.
    pub(crate) async fn until(&self, what: &str, condition: impl AsyncFn() -> bool) {
        let deadline = Instant::now() + LIMIT;
        while !condition().await {
            assert!(Instant::now() < deadline, "never came true: {what}");
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
    }

    /// Writes down what was measured.
    pub(crate) fn measured(&self, row: &'static str, value: impl Into<String>) {
        let mut all = MEASURED.lock().unwrap();
        all.entry(self.broker_name)
            .or_default()
            .insert(row, value.into());
    }

    /// What the broker says it cannot do, for a trial that ends with that.
    pub(crate) fn declared(&self, row: &'static str, what: &str) -> End {
        self.measured(row, "no (declared)");
        End::Skip(format!("declared: {} cannot {what}", self.can.broker))
    }
}

/// Exactly so many messages, taken for so long; within this time, or the test fails.
pub(crate) async fn taken(
    consumer: &Arc<dyn Consumer>,
    number: usize,
    lease: Duration,
    limit: Duration,
) -> Vec<Delivery> {
    let deadline = Instant::now() + limit;
    let mut all = Vec::new();
    while all.len() < number {
        assert!(Instant::now() < deadline, "{} of {number} came", all.len());
        let wait = Duration::from_millis(500);
        let came = consumer.receive(number - all.len(), lease, wait).await;
        all.extend(came.unwrap());
    }
    all
}
