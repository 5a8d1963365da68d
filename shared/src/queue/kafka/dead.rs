//! Dead letters: a compacted topic for each group, in which the last record of a key counts and one
//! without a payload takes the key away.
//!
//! A dead letter's key is the place of the message in the queue, so that giving the same one up
//! twice, which a crash between the two steps brings about, leaves one.

use std::collections::HashMap;
use std::sync::Arc;

use rdkafka::Message as _;
use rdkafka::admin::NewTopic;
use rdkafka::message::OwnedHeaders;

use super::blocking;
use super::cluster::{Cluster, Outgoing};
use super::record;
use super::scan::{Stretch, bounds, reader, scan};
use crate::queue::{DeadLetter, Message, QueueError, Receipt};

const SUFFIX: &str = ".dead";

/// The topic of a group's dead letters.
pub(super) fn topic(queue: &str, group: &str) -> String {
    format!("{queue}.{group}{SUFFIX}")
}

/// The group, if this is the topic of dead letters of one of the queue's.
pub(super) fn group_of<'a>(queue: &str, topic: &'a str) -> Option<&'a str> {
    let rest = topic.strip_prefix(queue)?.strip_prefix('.')?;
    rest.strip_suffix(SUFFIX)
}

/// One partition, since dead letters are few and have an order; kept until they are taken away.
pub(super) fn new_topic<'a>(cluster: &Cluster, name: &'a str) -> NewTopic<'a> {
    NewTopic::new(name, 1, cluster.replication()).set("cleanup.policy", "compact")
}

/// One to be written.
pub(super) struct Burial {
    pub(super) receipt: Receipt,
    pub(super) message: Message,
    pub(super) attempts: u32,
    pub(super) reason: String,
}

/// Writes dead letters. Durable when it returns.
pub(super) async fn bury(
    cluster: &Cluster,
    topic: &str,
    burials: &[Burial],
) -> Result<(), QueueError> {
    let ids: Vec<String> = burials.iter().map(|burial| id(&burial.receipt)).collect();
    let outgoing = burials.iter().zip(&ids).map(|(burial, id)| Outgoing {
        topic,
        partition: Some(0),
        key: Some(id),
        payload: Some(&burial.message.payload),
        headers: record::dead_headers(&burial.message, burial.attempts, &burial.reason),
    });
    cluster.publish(outgoing.collect()).await
}

/// Takes dead letters away. Durable when it returns.
pub(super) async fn dig_up(
    cluster: &Cluster,
    topic: &str,
    ids: impl Iterator<Item = &str>,
) -> Result<(), QueueError> {
    let outgoing = ids.map(|id| Outgoing {
        topic,
        partition: Some(0),
        key: Some(id),
        payload: None,
        headers: OwnedHeaders::new(),
    });
    cluster.publish(outgoing.collect()).await
}

/// All that a group has, oldest first.
pub(super) async fn all(
    cluster: &Arc<Cluster>,
    group: &str,
    topic: &str,
) -> Result<Vec<DeadLetter>, QueueError> {
    let (cluster, group, topic) = (Arc::clone(cluster), group.to_owned(), topic.to_owned());
    blocking(move || {
        let timeout = cluster.timeout();
        let reader = reader(&cluster, &group)?;
        let (from, to) = bounds(&reader, &topic, 0, timeout)?;
        let stretch = Stretch {
            partition: 0,
            from,
            to,
        };
        let mut found: HashMap<String, (i64, DeadLetter)> = HashMap::new();
        scan(&reader, &topic, &[stretch], timeout, |record| {
            let id = String::from_utf8_lossy(record.key().unwrap_or_default()).into_owned();
            match record::read_dead(record, id.clone()) {
                Some(letter) => found.insert(id, (record.offset(), letter)),
                None => found.remove(&id),
            };
        })?;
        let mut found: Vec<_> = found.into_values().collect();
        found.sort_by_key(|(offset, _)| *offset);
        Ok(found.into_iter().map(|(_, letter)| letter).collect())
    })
    .await
}

fn id(receipt: &Receipt) -> String {
    receipt.place().to_string()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_topic_of_dead_letters_tells_its_group_and_other_topics_tell_none() {
        let name = topic("orders", "mail-1");
        assert_eq!(group_of("orders", &name), Some("mail-1"));
        for other in ["orders", "orders-2.mail-1.dead", "orders.mail-1", "x"] {
            assert_eq!(group_of("orders", other), None, "{other}");
        }
    }
}
