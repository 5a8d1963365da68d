//! Kafka, through librdkafka: `kafka://host:port,host:port`.
//!
//! Kafka is a log with one offset for each group and partition. What a queue needs beyond that is
//! built on the text that can be committed with an offset (see `marks`), so that the group's
//! coordinator keeps it and fences it like the offset itself:
//!
//! - *Out of order.* A group's offset is below the first message that is not done; the text says
//!   which ones above it are. A crash repeats what was out, and not what was done behind it.
//! - *Attempts.* They are committed before a message is handed out, one commit for each batch, and
//!   so count the attempt that kills the consumer.
//! - *Retries and delays* wait in the consumer, without a place in another topic that later messages
//!   of the same key could overtake. The due time is in the text. The price: at most 256 messages
//!   of a partition can be out or waiting, and one that waits for long makes a new owner of the
//!   partition read from there on again.
//! - *Order by key.* A key has its partition, a partition one owner, and of a key one message is out.
//! - *Leases.* The lease is the membership in the group: `session_ms` after the consumer's process
//!   has died, or at once if it leaves, its partitions go to others with all that was out. A commit
//!   of a former member is refused by the coordinator (fencing). A consumer that is alive and does
//!   nothing keeps what it has.
//!
//! Topics: the queue's own name; `QUEUE.GROUP.dead`, compacted, with a group's dead letters. That
//! topic is also how a group is known to have been declared. How long messages are kept is the
//! cluster's setting (`retention`, a week by default): what no group has read by then is gone.

mod address;
mod cluster;
mod consumer;
mod dead;
mod depth;
mod error;
mod holdings;
mod marks;
mod member;
mod mock;
mod place;
mod poll;
mod queue;
mod record;
mod scan;
mod window;

pub use mock::Mock;

use std::sync::Arc;
use std::time::Duration;

use async_trait::async_trait;

use super::{
    Broker, Capabilities, ConnectOptions, KeyOrder, LeaseKind, Queue, QueueError, check_names,
};
use address::Address;
use cluster::Cluster;

/// The name for messages.
const BROKER: &str = "Kafka";

/// The client's limit on a record is 1,000,000 bytes (and the broker's 1,048,588, unless somebody
/// changed it); the rest is for the headers that we add and for framing.
const LARGEST_BYTES: usize = 990_000;

/// Far below the week for which a cluster keeps messages unless told otherwise.
const LONGEST_DELAY: Duration = Duration::from_secs(24 * 3600);

/// Connects.
///
/// # Errors
/// `Address`; `Unavailable` if no broker answers within `timeout`.
pub(super) async fn connect(
    url: &str,
    options: &ConnectOptions,
) -> Result<Arc<dyn Broker>, QueueError> {
    let cluster = Cluster::connect(Address::parse(url)?, options.clone()).await?;
    Ok(Arc::new(Kafka { cluster }))
}

struct Kafka {
    cluster: Arc<Cluster>,
}

#[async_trait]
impl Broker for Kafka {
    fn capabilities(&self) -> Capabilities {
        Capabilities {
            broker: BROKER,
            emulation: self.cluster.emulation(),
            durability:
                "acks=all: in every in-sync replica's memory; on disk when the system writes \
                         it out. It survives the loss of all but one of them"
                    .to_owned(),
            key_order: KeyOrder::Strict,
            lease: LeaseKind::Connection,
            fencing: true,
            longest_delay: Some(LONGEST_DELAY),
            delay_step: Duration::from_millis(100),
            groups: true,
            groups_see_the_past: true,
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
        self.cluster.check_open()?;
        let queue = queue::KafkaQueue::open(&self.cluster, name, groups).await?;
        Ok(Arc::new(queue))
    }

    async fn close(&self) {
        self.cluster.close().await;
    }
}

/// Runs a call of librdkafka that blocks where it holds up nobody; it runs to its end even if
/// nobody waits.
async fn blocking<T: Send + 'static>(
    work: impl FnOnce() -> Result<T, QueueError> + Send + 'static,
) -> Result<T, QueueError> {
    match tokio::task::spawn_blocking(work).await {
        Ok(result) => result,
        Err(failed) => match failed.try_into_panic() {
            Ok(panic) => std::panic::resume_unwind(panic),
            Err(_) => Err(QueueError::Closed { what: "runtime" }),
        },
    }
}
