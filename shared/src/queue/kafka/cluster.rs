//! The connection to a cluster that a broker's queues share: one producer, one admin client, and
//! who has to be told when it is closed.

use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, PoisonError, Weak};
use std::time::Duration;

use rdkafka::admin::{AdminClient, AdminOptions, NewTopic, TopicReplication};
use rdkafka::client::{Client, ClientContext, DefaultClientContext};
use rdkafka::config::ClientConfig;
use rdkafka::error::{KafkaError, RDKafkaErrorCode};
use rdkafka::message::OwnedHeaders;
use rdkafka::metadata::Metadata;
use rdkafka::producer::{BaseProducer, DeliveryFuture, FutureProducer, FutureRecord, Producer};
use rdkafka::types::RDKafkaErrorCode as Code;

use super::address::Address;
use super::error::{asked, code, sorted, unavailable};
use super::member::Member;
use super::{BROKER, LARGEST_BYTES, blocking};
use crate::queue::{ConnectOptions, QueueError};

pub(super) struct Cluster {
    pub(super) address: Address,
    pub(super) options: ConnectOptions,
    /// What the cluster calls itself.
    id: String,
    producer: FutureProducer,
    admin: AdminClient<DefaultClientContext>,
    closed: AtomicBool,
    members: Mutex<Vec<Weak<Member>>>,
}

/// What is published: where, and what.
pub(super) struct Outgoing<'a> {
    pub(super) topic: &'a str,
    /// `None` leaves it to the key, and without a key to chance.
    pub(super) partition: Option<i32>,
    pub(super) key: Option<&'a str>,
    /// `None` takes a dead letter away (a tombstone, in Kafka's words).
    pub(super) payload: Option<&'a [u8]>,
    pub(super) headers: OwnedHeaders,
}

impl Cluster {
    pub(super) async fn connect(
        address: Address,
        options: ConnectOptions,
    ) -> Result<Arc<Self>, QueueError> {
        let timeout_ms = options
            .timeout
            .as_millis()
            .clamp(1_000, 300_000)
            .to_string();
        let mut config = base_config(&address, &options);
        // Idempotent: what the client sends again after a lost answer is stored once, and in order.
        config
            .set("enable.idempotence", "true")
            .set("acks", "all")
            .set("linger.ms", "2")
            .set("compression.type", "lz4")
            .set("message.max.bytes", "1000000")
            .set("message.timeout.ms", &timeout_ms)
            // As the Java client does it, so that a key has one partition whoever publishes.
            .set("partitioner", "murmur2_random")
            // Without a key any partition will do, and many at once keep many consumers busy.
            .set("sticky.partitioning.linger.ms", "0");
        let producer: FutureProducer = config.create().map_err(|error| sorted(&error))?;
        let admin = base_config(&address, &options).create();
        let admin = admin.map_err(|error| sorted(&error))?;
        let (first, timeout) = (producer.clone(), options.timeout);
        let id = blocking(move || {
            metadata(first.client(), Some("__none"), timeout)?;
            Ok(first.client().fetch_cluster_id(timeout).unwrap_or_default())
        })
        .await?;
        Ok(Arc::new(Self {
            address,
            options,
            id,
            producer,
            admin,
            closed: AtomicBool::new(false),
            members: Mutex::default(),
        }))
    }

    /// What answers, if it is known not to be Apache Kafka.
    pub(super) fn emulation(&self) -> Option<String> {
        let id = &self.id;
        if id.starts_with("tansu") {
            return Some(format!(
                "Tansu, a broker that speaks Kafka's protocol (cluster {id})"
            ));
        }
        self.is_mock()
            .then(|| "librdkafka's mock cluster".to_owned())
    }

    fn is_mock(&self) -> bool {
        self.id.starts_with("mockCluster")
    }

    /// What only an administrator's requests can do.
    ///
    /// # Errors
    /// `Unsupported` by the mock cluster, which would let them run into their time limit.
    pub(super) fn admin(
        &self,
        deed: &str,
    ) -> Result<&AdminClient<DefaultClientContext>, QueueError> {
        match self.is_mock() {
            false => Ok(&self.admin),
            true => Err(QueueError::Unsupported {
                broker: "librdkafka's mock cluster",
                what: deed.to_owned(),
            }),
        }
    }

    pub(super) fn check_open(&self) -> Result<(), QueueError> {
        match self.closed.load(Ordering::Acquire) {
            true => Err(QueueError::Closed { what: "broker" }),
            false => Ok(()),
        }
    }

    pub(super) fn timeout(&self) -> Duration {
        self.options.timeout
    }

    /// For a client without a group, or one in the given group.
    pub(super) fn consumer_config(&self, group: &str) -> ClientConfig {
        let mut config = base_config(&self.address, &self.options);
        config
            .set("group.id", group)
            .set("enable.auto.commit", "false")
            .set("enable.auto.offset.store", "false")
            .set("auto.offset.reset", "earliest");
        config
    }

    /// Publishes, in this order, and waits until the broker has stored all.
    ///
    /// Cancel safe: what was begun is sent all the same.
    pub(super) async fn publish(&self, outgoing: Vec<Outgoing<'_>>) -> Result<(), QueueError> {
        self.check_open()?;
        let mut deliveries = Vec::with_capacity(outgoing.len());
        let mut trouble = None;
        for outgoing in outgoing {
            match self.enqueue(outgoing).await {
                Ok(delivery) => deliveries.push(delivery),
                Err(error) => {
                    trouble = Some(error);
                    break;
                }
            }
        }
        for delivery in deliveries {
            match delivery.await {
                Ok(Ok(_)) => {}
                Ok(Err((error, _))) => trouble = trouble.or_else(|| Some(sorted(&error))),
                Err(_) => trouble = trouble.or(Some(QueueError::Closed { what: "broker" })),
            }
        }
        trouble.map_or(Ok(()), Err)
    }

    async fn enqueue(&self, outgoing: Outgoing<'_>) -> Result<DeliveryFuture, QueueError> {
        let mut record: FutureRecord<'_, str, [u8]> = FutureRecord::to(outgoing.topic);
        record.partition = outgoing.partition;
        record.key = outgoing.key;
        record.payload = outgoing.payload;
        record.headers = Some(outgoing.headers);
        let deadline = tokio::time::Instant::now() + self.timeout();
        loop {
            let (error, back) = match self.producer.send_result(record) {
                Ok(delivery) => return Ok(delivery),
                Err(refused) => refused,
            };
            let code = code(&error);
            if code == Some(RDKafkaErrorCode::MessageSizeTooLarge) {
                return Err(QueueError::TooLarge {
                    broker: BROKER,
                    bytes: outgoing.payload.map_or(0, <[u8]>::len),
                    limit: LARGEST_BYTES,
                });
            }
            if code != Some(RDKafkaErrorCode::QueueFull) || tokio::time::Instant::now() > deadline {
                return Err(sorted(&error));
            }
            // The client's buffer is full, and nothing tells when it no longer is.
            tokio::time::sleep(Duration::from_millis(2)).await;
            record = back;
        }
    }

    /// Makes topics that are missing; those that are there stay as they are.
    pub(super) async fn create_topics(&self, topics: &[NewTopic<'_>]) -> Result<(), QueueError> {
        if !self.options.create || topics.is_empty() {
            return Ok(());
        }
        if self.is_mock() {
            return self.mention(topics).await;
        }
        let options = AdminOptions::new().operation_timeout(Some(self.timeout()));
        let made = self.admin.create_topics(topics, &options).await;
        for made in made.map_err(|error| sorted(&error))? {
            match made {
                Ok(_) | Err((_, Code::TopicAlreadyExists)) => {}
                Err((_, code)) => return Err(sorted(&KafkaError::AdminOp(code))),
            }
        }
        Ok(())
    }

    /// Makes topics by asking about them, which is the only way that the mock cluster knows.
    async fn mention(&self, topics: &[NewTopic<'_>]) -> Result<(), QueueError> {
        let mut config = base_config(&self.address, &self.options);
        config.set("allow.auto.create.topics", "true");
        let names: Vec<String> = topics.iter().map(|topic| topic.name.to_owned()).collect();
        let timeout = self.timeout();
        blocking(move || {
            let asking: BaseProducer = config.create().map_err(|error| sorted(&error))?;
            for name in names {
                metadata(asking.client(), Some(&name), timeout)?;
            }
            Ok(())
        })
        .await
    }

    pub(super) fn replication(&self) -> TopicReplication<'static> {
        TopicReplication::Fixed(self.address.replication)
    }

    /// The names of all topics.
    pub(super) async fn topics(&self) -> Result<Vec<String>, QueueError> {
        let (producer, timeout) = (self.producer.clone(), self.timeout());
        blocking(move || {
            let metadata = metadata(producer.client(), None, timeout)?;
            let names = metadata
                .topics()
                .iter()
                .map(|topic| topic.name().to_owned());
            Ok(names.collect())
        })
        .await
    }

    /// How many partitions a topic has.
    pub(super) async fn partitions(&self, topic: &str) -> Result<i32, QueueError> {
        let (producer, timeout) = (self.producer.clone(), self.timeout());
        let name = topic.to_owned();
        blocking(move || {
            let metadata = metadata(producer.client(), Some(&name), timeout)?;
            let topic = metadata.topics().iter().find(|topic| topic.name() == name);
            let count = topic.map_or(0, |topic| topic.partitions().len());
            match i32::try_from(count) {
                Ok(count) if count > 0 => Ok(count),
                _ => Err(unavailable(format!("there is no topic {name} (yet)"))),
            }
        })
        .await
    }

    pub(super) fn remember(&self, member: &Arc<Member>) {
        let mut members = self.members.lock().unwrap_or_else(PoisonError::into_inner);
        members.retain(|member| member.strong_count() > 0);
        members.push(Arc::downgrade(member));
    }

    /// The consumers of this broker that are in the queue.
    pub(super) fn members_of(&self, topic: &str) -> Vec<Arc<Member>> {
        let members = self.members.lock().unwrap_or_else(PoisonError::into_inner);
        let alive = members.iter().filter_map(Weak::upgrade);
        alive.filter(|member| member.topic() == topic).collect()
    }

    pub(super) async fn close(&self) {
        self.closed.store(true, Ordering::Release);
        let members: Vec<_> = {
            let members = self.members.lock().unwrap_or_else(PoisonError::into_inner);
            members.iter().filter_map(Weak::upgrade).collect()
        };
        for member in members {
            member.leave().await;
        }
        let (producer, timeout) = (self.producer.clone(), self.timeout());
        let flushed = blocking(move || producer.flush(timeout).map_err(|error| sorted(&error)));
        if let Err(error) = flushed.await {
            tracing::warn!(%error, "not all that was published may have arrived");
        }
    }
}

/// What the cluster tells about one topic, or about all. Blocks.
fn metadata<C: ClientContext>(
    client: &Client<C>,
    topic: Option<&str>,
    timeout: Duration,
) -> Result<Metadata, QueueError> {
    asked(timeout, |left| client.fetch_metadata(topic, left))
}

fn base_config(address: &Address, options: &ConnectOptions) -> ClientConfig {
    let timeout_ms = options
        .timeout
        .as_millis()
        .clamp(1_000, 300_000)
        .to_string();
    let mut config = ClientConfig::new();
    config
        .set("bootstrap.servers", &address.brokers)
        .set("client.id", &options.client_name)
        .set("socket.timeout.ms", &timeout_ms)
        .set("reconnect.backoff.ms", "50")
        .set("reconnect.backoff.max.ms", "1000")
        // A topic is made with the settings that it needs, or not at all.
        .set("allow.auto.create.topics", "false");
    config
}
