//! librdkafka's own cluster, in this process and in memory: for tests of programs that use Kafka.

use rdkafka::config::ClientConfig;
use rdkafka::producer::{BaseProducer, Producer as _};

use super::error::{sorted, unavailable};
use crate::queue::QueueError;

/// A cluster of one broker that ends when it is dropped.
///
/// It speaks the protocol for publishing, fetching, groups and offsets. It makes topics with four
/// partitions when somebody asks about them, and deletes neither topics nor messages: `purge` and
/// `delete` of a queue are refused.
pub struct Mock {
    /// The cluster belongs to a client.
    _client: BaseProducer,
    brokers: String,
}

impl Mock {
    /// Starts it on loopback ports.
    ///
    /// # Errors
    /// `Unavailable` or `Refused` if it cannot be started.
    pub fn start() -> Result<Self, QueueError> {
        let mut config = ClientConfig::new();
        config.set("test.mock.num.brokers", "1");
        let client: BaseProducer = config.create().map_err(|error| sorted(&error))?;
        let brokers = client
            .client()
            .mock_cluster()
            .map(|cluster| cluster.bootstrap_servers())
            .ok_or_else(|| unavailable("no mock cluster in this librdkafka"))?;
        Ok(Self {
            _client: client,
            brokers,
        })
    }

    /// For `queue::connect`.
    pub fn url(&self) -> String {
        format!("kafka://{}", self.brokers)
    }
}
