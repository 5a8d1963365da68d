//! Which exchanges and queues there are, and how they are declared.

use std::collections::BTreeSet;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use lapin::options::{
    ExchangeDeclareOptions, ExchangeDeleteOptions, QueueBindOptions, QueueDeclareOptions,
    QueueDeleteOptions,
};
use lapin::types::{AMQPValue, FieldTable};
use lapin::{Channel, ExchangeKind};
use sha2::{Digest, Sha256};

use super::connection::Link;
use crate::queue::QueueError;
use crate::queue::connect::without_password;

/// How many lanes a group has. No setting: whoever published with another number would put a key
/// into another lane, and its order would be gone.
pub(super) const LANES: u8 = 4;

/// How many messages of a lane are sent ahead. No setting either: the broker puts what a consumer
/// gives back behind what the next one left there, so the next one must take it all.
pub(super) const LANE_AHEAD: u16 = 64;

/// The routing key of messages without a key.
const FREE: &str = "free";

/// For how long the queues hold what waits: each four times as long as the one before.
const STEPS: [u64; 9] = [
    25, 100, 400, 1_600, 6_400, 25_600, 102_400, 409_600, 1_638_400,
];

/// An address, with our parameters taken out.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Address {
    pub(super) url: String,
    prefix: String,
    expires_ms: Option<u32>,
}

impl Address {
    pub(super) fn parse(url: &str) -> Result<Self, QueueError> {
        let refuse = |reason: &str| QueueError::Address {
            address: without_password(url),
            reason: reason.to_owned(),
        };
        let (address, query) = url.split_once('?').unwrap_or((url, ""));
        let (mut prefix, mut expires_ms, mut rest) = (String::new(), None, Vec::new());
        for parameter in query.split('&').filter(|text| !text.is_empty()) {
            match parameter.split_once('=') {
                Some(("prefix", text)) if text.len() <= 64 && text.is_ascii() => {
                    prefix = text.to_owned();
                }
                Some(("prefix", _)) => return Err(refuse("a prefix takes 64 ASCII characters")),
                Some(("expires_ms", text)) => {
                    let ms = text
                        .parse()
                        .ok()
                        .filter(|ms| *ms > 0 && *ms <= i32::MAX as u32);
                    expires_ms = Some(ms.ok_or_else(|| refuse("expires_ms is no such time"))?);
                }
                _ => rest.push(parameter),
            }
        }
        // Strictly, a path of nothing but a slash is the virtual host without a name, which nobody
        // has; everybody means the default one.
        let (scheme, place) = address.split_once("://").unwrap_or(("amqp", address));
        let place = match place.split_once('/') {
            Some((_, "")) | None => format!("{}/%2f", place.trim_end_matches('/')),
            Some(_) => place.to_owned(),
        };
        let query = match rest.is_empty() {
            true => String::new(),
            false => format!("?{}", rest.join("&")),
        };
        Ok(Self {
            url: format!("{scheme}://{place}{query}"),
            prefix,
            expires_ms,
        })
    }
}

/// One queue's exchanges and queues.
#[derive(Debug)]
pub(super) struct Topology {
    pub(super) exchange: String,
    expires_ms: Option<u32>,
    groups: Mutex<BTreeSet<String>>,
    /// The queues for waiting and for the dead are made when they are needed first: a quorum queue
    /// is dear.
    declared: Mutex<BTreeSet<String>>,
    /// How often the queues were purged.
    purges: AtomicU64,
}

impl Topology {
    pub(super) fn new(address: &Address, name: &str, groups: &[&str]) -> Self {
        Self {
            exchange: format!("{}{name}", address.prefix),
            expires_ms: address.expires_ms,
            groups: Mutex::new(groups.iter().map(|&group| group.to_owned()).collect()),
            declared: Mutex::default(),
            purges: AtomicU64::new(0),
        }
    }

    /// What consumers compare: after a purge, what they have in hand is worth nothing. The broker
    /// tells them too, a moment later.
    pub(super) fn purges(&self) -> u64 {
        self.purges.load(Ordering::Acquire)
    }

    /// The groups that this handle knows of.
    pub(super) fn groups(&self) -> Vec<String> {
        lock(&self.groups).iter().cloned().collect()
    }

    pub(super) async fn add_group(&self, link: &Link, group: &str) -> Result<(), QueueError> {
        lock(&self.groups).insert(group.to_owned());
        self.declare(link).await
    }

    /// Declares the exchange and the queues of the groups that we know of.
    pub(super) async fn declare(&self, link: &Link) -> Result<(), QueueError> {
        let channel = link.channel().await?;
        let options = ExchangeDeclareOptions {
            durable: true,
            // Nobody else can make an exchange vanish that is not used any more.
            auto_delete: self.expires_ms.is_some(),
            ..ExchangeDeclareOptions::default()
        };
        let exchange = channel.exchange_declare(
            self.exchange.as_str().into(),
            ExchangeKind::Direct,
            options,
            FieldTable::default(),
        );
        link.within(exchange).await?;
        for group in self.groups() {
            for source in 0..=LANES {
                let queue = self.queue(&group, source);
                let mut arguments = self.quorum();
                if source > 0 {
                    let single = AMQPValue::Boolean(true);
                    arguments.insert("x-single-active-consumer".into(), single);
                }
                self.make(link, &channel, &queue, arguments).await?;
                let binding = channel.queue_bind(
                    queue.as_str().into(),
                    self.exchange.as_str().into(),
                    routing_key(source).as_str().into(),
                    QueueBindOptions::default(),
                    FieldTable::default(),
                );
                link.within(binding).await?;
            }
        }
        Ok(())
    }

    /// A group's queue: 0 for messages without a key, from 1 for the lanes.
    pub(super) fn queue(&self, group: &str, source: u8) -> String {
        match source {
            0 => format!("{}.{group}", self.exchange),
            lane => format!("{}.{group}.lane-{}", self.exchange, lane - 1),
        }
    }

    /// Where a group's dead letters are, made if it is missing.
    pub(super) async fn dead(&self, link: &Link, group: &str) -> Result<String, QueueError> {
        let queue = format!("{}.{group}.dead", self.exchange);
        if !lock(&self.declared).contains(&queue) {
            let mut arguments = self.quorum();
            // With a limit, which nobody reaches, what was only looked at is given back; without one
            // it is written once more, which for every look would be a lot.
            let limit = AMQPValue::LongInt(i32::MAX);
            arguments.insert("x-delivery-limit".into(), limit);
            let channel = link.channel().await?;
            self.make(link, &channel, &queue, arguments).await?;
            lock(&self.declared).insert(queue.clone());
        }
        Ok(queue)
    }

    /// A queue in which a message waits for no longer than this, made if it is missing. What comes
    /// out of it goes to the group, or to all groups.
    pub(super) async fn wait(
        &self,
        link: &Link,
        group: Option<&str>,
        time: Duration,
    ) -> Result<String, QueueError> {
        let step = step(time);
        let queue = self.wait_name(group, step);
        if lock(&self.declared).contains(&queue) {
            return Ok(queue);
        }
        let (exchange, key) = match group {
            Some(group) => (String::new(), self.queue(group, 0)),
            None => (self.exchange.clone(), FREE.to_owned()),
        };
        let mut arguments = self.quorum();
        let ttl = i32::try_from(step).unwrap_or(i32::MAX);
        for (name, value) in [
            ("x-message-ttl", AMQPValue::LongInt(ttl)),
            ("x-dead-letter-exchange", text(&exchange)),
            ("x-dead-letter-routing-key", text(&key)),
            // The message leaves this queue when the next has confirmed it. Needs the overflow rule.
            ("x-dead-letter-strategy", text("at-least-once")),
            ("x-overflow", text("reject-publish")),
        ] {
            arguments.insert(name.into(), value);
        }
        let channel = link.channel().await?;
        self.make(link, &channel, &queue, arguments).await?;
        lock(&self.declared).insert(queue.clone());
        Ok(queue)
    }

    /// Looks again, at the next call, whether queues are there.
    pub(super) fn forget(&self) {
        lock(&self.declared).clear();
    }

    /// Empties everything that we know of. What is out cannot be purged, so the queues are deleted.
    pub(super) async fn purge(&self, link: &Link) -> Result<(), QueueError> {
        self.delete(link, false).await?;
        self.purges.fetch_add(1, Ordering::AcqRel);
        self.declare(link).await
    }

    /// Deletes everything that we know of; what is not there is no error.
    pub(super) async fn delete(&self, link: &Link, exchange_too: bool) -> Result<(), QueueError> {
        self.forget();
        let channel = link.channel().await?;
        let groups = self.groups();
        let mut queues: Vec<String> = STEPS.iter().map(|ms| self.wait_name(None, *ms)).collect();
        for group in &groups {
            queues.extend((0..=LANES).map(|source| self.queue(group, source)));
            queues.extend(STEPS.iter().map(|ms| self.wait_name(Some(group), *ms)));
            queues.push(format!("{}.{group}.dead", self.exchange));
        }
        for queue in queues {
            let options = QueueDeleteOptions::default();
            link.within(channel.queue_delete(queue.as_str().into(), options))
                .await?;
        }
        if exchange_too {
            let options = ExchangeDeleteOptions::default();
            let exchange = self.exchange.as_str().into();
            link.within(channel.exchange_delete(exchange, options))
                .await?;
        }
        Ok(())
    }

    fn wait_name(&self, group: Option<&str>, ms: u64) -> String {
        match group {
            Some(group) => format!("{}.{group}.wait-{ms}", self.exchange),
            None => format!("{}.wait-{ms}", self.exchange),
        }
    }

    fn quorum(&self) -> FieldTable {
        let mut arguments = FieldTable::default();
        arguments.insert("x-queue-type".into(), text("quorum"));
        if let Some(ms) = self.expires_ms {
            let ms = i32::try_from(ms).unwrap_or(i32::MAX);
            arguments.insert("x-expires".into(), AMQPValue::LongInt(ms));
        }
        arguments
    }

    async fn make(
        &self,
        link: &Link,
        channel: &Channel,
        queue: &str,
        arguments: FieldTable,
    ) -> Result<(), QueueError> {
        let options = QueueDeclareOptions::durable();
        link.within(channel.queue_declare(queue.into(), options, arguments))
            .await?;
        Ok(())
    }
}

/// Where a message with this key goes: 0 without one, else its lane, from 1.
pub(super) fn source_of(key: Option<&str>) -> u8 {
    // A hash that is the same in every process and version.
    key.map_or(0, |key| Sha256::digest(key.as_bytes())[0] % LANES + 1)
}

pub(super) fn routing_key(source: u8) -> String {
    match source {
        0 => FREE.to_owned(),
        lane => format!("lane-{}", lane - 1),
    }
}

/// The shortest wait that has a queue.
pub(super) const SHORTEST_WAIT: Duration = Duration::from_millis(STEPS[0]);

/// The longest that is not longer than this; the shortest if all are.
fn step(time: Duration) -> u64 {
    let fits = |ms: &&u64| Duration::from_millis(**ms) <= time;
    STEPS.iter().rev().find(fits).copied().unwrap_or(STEPS[0])
}

fn text(text: &str) -> AMQPValue {
    AMQPValue::LongString(text.into())
}

/// Locks; what we lock is sound whatever panicked.
pub(super) fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn our_parameters_are_taken_out_of_the_address() {
        for (url, client, prefix, expires_ms) in [
            ("amqp://h", "amqp://h/%2f", "", None),
            ("amqp://u:p@h:1/", "amqp://u:p@h:1/%2f", "", None),
            ("amqp://h/shop?prefix=a.", "amqp://h/shop", "a.", None),
            (
                "amqp://h?heartbeat=5&expires_ms=7",
                "amqp://h/%2f?heartbeat=5",
                "",
                Some(7),
            ),
        ] {
            let address = Address::parse(url).unwrap();
            assert_eq!(
                (
                    address.url.as_str(),
                    address.prefix.as_str(),
                    address.expires_ms
                ),
                (client, prefix, expires_ms)
            );
        }
        for bad in [
            "amqp://u:secret@h?expires_ms=x",
            "amqp://u:secret@h?prefix=ä",
        ] {
            let error = Address::parse(bad).unwrap_err().to_string();
            assert!(!error.contains("secret"), "{error}");
        }
    }

    #[test]
    fn the_wait_is_never_longer_than_what_is_left_unless_that_is_next_to_nothing() {
        for (ms, expected) in [
            (0, 25),
            (25, 25),
            (99, 25),
            (100, 100),
            (86_400_000, 1_638_400),
        ] {
            assert_eq!(step(Duration::from_millis(ms)), expected);
        }
    }

    #[test]
    fn a_key_has_one_lane_and_keys_are_spread() {
        let lanes: BTreeSet<u8> = (0..64).map(|n| source_of(Some(&n.to_string()))).collect();
        assert_eq!(lanes, BTreeSet::from([1, 2, 3, 4]));
        // Kept for ever: messages lie in the lanes that older versions chose.
        assert_eq!(source_of(Some("customer-3")), source_of(Some("customer-3")));
        assert_eq!(source_of(None), 0);
    }
}
