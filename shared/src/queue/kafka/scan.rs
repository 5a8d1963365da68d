//! Reading stretches of a topic from outside any group: dead letters, and what waits in a queue.

use std::time::{Duration, Instant};

use rdkafka::consumer::{BaseConsumer, Consumer as _};
use rdkafka::error::KafkaError;
use rdkafka::message::BorrowedMessage;
use rdkafka::{Message as _, Offset, TopicPartitionList};

use super::cluster::Cluster;
use super::error::{asked, sorted, unavailable};
use crate::queue::QueueError;

/// From one offset to before another.
#[derive(Debug, Clone, Copy)]
pub(super) struct Stretch {
    pub(super) partition: i32,
    pub(super) from: i64,
    pub(super) to: i64,
}

/// A client that reads, and is member of no group: it only assigns itself what it reads. The group
/// that it names is the one whose offsets it can ask for.
pub(super) fn reader(cluster: &Cluster, group: &str) -> Result<BaseConsumer, QueueError> {
    let mut config = cluster.consumer_config(group);
    config.set("enable.partition.eof", "true");
    config.create().map_err(|error| sorted(&error))
}

/// The offsets of the first and of the next message in a partition.
pub(super) fn bounds(
    reader: &BaseConsumer,
    topic: &str,
    partition: i32,
    timeout: Duration,
) -> Result<(i64, i64), QueueError> {
    asked(timeout, |left| {
        reader.fetch_watermarks(topic, partition, left)
    })
}

/// Calls `see` with each record, in the order of each partition. Blocks.
pub(super) fn scan(
    reader: &BaseConsumer,
    topic: &str,
    stretches: &[Stretch],
    timeout: Duration,
    mut see: impl FnMut(&BorrowedMessage<'_>),
) -> Result<(), QueueError> {
    let open = |stretch: &&Stretch| stretch.from < stretch.to;
    let mut left: Vec<Stretch> = stretches.iter().filter(open).copied().collect();
    if left.is_empty() {
        return Ok(());
    }
    let mut list = TopicPartitionList::with_capacity(left.len());
    for stretch in &left {
        let from = Offset::Offset(stretch.from);
        list.add_partition_offset(topic, stretch.partition, from)
            .map_err(|error| sorted(&error))?;
    }
    reader.assign(&list).map_err(|error| sorted(&error))?;
    let mut deadline = Instant::now() + timeout;
    while !left.is_empty() {
        match reader.poll(Duration::from_millis(100)) {
            Some(Ok(record)) => {
                deadline = Instant::now() + timeout;
                let (partition, offset) = (record.partition(), record.offset());
                let wanted = left.iter().find(|stretch| stretch.partition == partition);
                if wanted.is_some_and(|stretch| offset < stretch.to) {
                    see(&record);
                }
                // The last record of a stretch may be one that no consumer is shown.
                left.retain(|stretch| stretch.partition != partition || offset + 1 < stretch.to);
            }
            Some(Err(KafkaError::PartitionEOF(partition))) => {
                left.retain(|stretch| stretch.partition != partition);
            }
            Some(Err(error)) => tracing::debug!(%error, topic, "while reading"),
            None => {}
        }
        if Instant::now() > deadline {
            return Err(unavailable(format!("{topic} cannot be read to its end")));
        }
    }
    Ok(())
}
