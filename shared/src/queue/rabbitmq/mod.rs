//! RabbitMQ as a broker: quorum queues, publisher confirms.
//!
//! | name | what it is |
//! | --- | --- |
//! | exchange `q` | what is published to the queue `q`; copies go to every group |
//! | queue `q.g` | messages without a key for the group `g`, shared by its consumers |
//! | queues `q.g.lane-0` … | messages with a key, which decides the lane; one consumer at a time |
//! | queue `q.g.dead` | what was given up |
//! | queues `q.wait-…`, `q.g.wait-…` | what waits; each holds its messages for one time and passes them on |
//!
//! **Order.** A lane has a single active consumer, and that consumer hands out of each key one message
//! at a time. A keyed message that failed or is not due waits in its consumer's hands, not settled, so
//! that it keeps its place: the broker would put it behind later ones. The price: all lanes may go to
//! the consumer that came first; a key that waits holds up its lane when 64 messages, which are sent
//! ahead, lie behind it; of a keyed message the failures are counted by its consumer, so that they are
//! forgotten with it; and what was sent ahead to a consumer that closes has an attempt burnt.
//!
//! **Sending ahead.** A consumer that does not receive for a quarter of a second gives back what was
//! sent to it and has no key. A lane it keeps until it is closed or dropped.
//!
//! **Attempts.** The broker counts how often a message was sent to a consumer that went away, whether
//! or not it was begun. Failures of messages without a key travel in a header.
//!
//! **Leases.** A delivery is out for as long as its consumer's channel stands; the broker closes it
//! when something was out for longer than `consumer_timeout` (30 minutes unless set otherwise). A
//! settlement is sent, and not confirmed: if the connection breaks then, the message comes again.
//!
//! **Waiting.** A message without a key goes to the queue with the longest time that is not too long,
//! and from there, if it is still early, to the next. It is never early, as far as the clocks of
//! publisher and consumer agree.
//!
//! ```text
//! amqp://[user:password@]host[:port]/[vhost][?prefix=before-every-name][&expires_ms=unused-for]
//! ```
//!
//! `expires_ms` makes queues vanish that nobody used for so long, for tests.

mod connection;
mod consumer;
mod dead;
mod desk;
mod hands;
mod publisher;
mod queue;
mod session;
mod topology;
mod wire;

use std::sync::Arc;
use std::time::Duration;

use async_trait::async_trait;

use self::connection::Link;
use self::publisher::Publisher;
use self::queue::RabbitQueue;
use self::topology::{Address, Topology};
use super::{
    Broker, Capabilities, ConnectOptions, KeyOrder, LeaseKind, Queue, QueueError, check_names,
};

pub(super) const BROKER: &str = "RabbitMQ";

/// The broker takes 128 MB, but keeps what is out in memory.
const LARGEST_BYTES: usize = 16 * 1024 * 1024;

/// How long a message can wait in a consumer's hands. Less than the broker's `consumer_timeout`, and
/// far enough from it for a retry to be worked on.
const LONGEST_KEYED_DELAY: Duration = Duration::from_secs(15 * 60);

struct RabbitBroker {
    shared: Arc<Shared>,
    address: Address,
}

/// What all queues and consumers of a broker share.
struct Shared {
    /// For what is asked and for consumers.
    link: Link,
    /// Its own connection: a broker that is short of memory stops reading from those that publish,
    /// and would not read acknowledgements either.
    publisher: Publisher,
}

/// Connects.
///
/// # Errors
/// `Address`; `Unavailable`; `Refused`.
pub(super) async fn connect(
    url: &str,
    options: &ConnectOptions,
) -> Result<Arc<dyn Broker>, QueueError> {
    let address = Address::parse(url)?;
    let name = &options.client_name;
    let link = Link::new(&address.url, format!("{name}: consumers"), options.timeout);
    let publisher = Link::new(&address.url, format!("{name}: publisher"), options.timeout);
    link.connection().await?;
    Ok(Arc::new(RabbitBroker {
        shared: Arc::new(Shared {
            link,
            publisher: Publisher::new(publisher),
        }),
        address,
    }))
}

#[async_trait]
impl Broker for RabbitBroker {
    fn capabilities(&self) -> Capabilities {
        Capabilities {
            broker: BROKER,
            emulation: None,
            durability: "quorum queue, publisher confirm: in the log on the disks of most of the \
                         queue's nodes; survives a restart and the loss of the others"
                .to_owned(),
            key_order: KeyOrder::Strict,
            lease: LeaseKind::Connection,
            fencing: true,
            longest_delay: Some(LONGEST_KEYED_DELAY),
            delay_step: Duration::from_millis(250),
            groups: true,
            groups_see_the_past: false,
            durable_attempts: true,
            release_burns_no_attempt: true,
            priority: false,
            deduplication: None,
            largest_message_bytes: LARGEST_BYTES,
            dead_letters: true,
        }
    }

    async fn queue(&self, name: &str, groups: &[&str]) -> Result<Arc<dyn Queue>, QueueError> {
        check_names(name, groups)?;
        let topology = Topology::new(&self.address, name, groups);
        topology.declare(&self.shared.link).await?;
        let shared = Arc::clone(&self.shared);
        Ok(Arc::new(RabbitQueue::new(shared, name, topology)))
    }

    async fn close(&self) {
        self.shared.publisher.close().await;
        self.shared.link.close().await;
    }
}
