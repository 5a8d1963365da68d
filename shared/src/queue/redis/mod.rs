//! Redis Streams as a broker.
//!
//! Each group has two streams of its own, and what is in them is what can be handed out: `ready`
//! holds what is new, `again` what waited before and goes first. A consumer group keeps track of
//! what is out. Everything else stands beside the streams until its time has come:
//!
//! | key, after `{queue}:group:` | what it holds |
//! | --- | --- |
//! | `delayed` | a sorted set, by the time at which its members are due |
//! | `busy` | the keys (of messages) of which one is on its way |
//! | `parked` | a sorted set of the messages behind those, by key and arrival |
//! | `dead` | a stream of what was given up, with the reason |
//! | `tick` | a stream that wakes a consumer when something is due earlier than it thought |
//!
//! **Order.** Of each key at most one message is in the streams. The next follows in the same script
//! that ends the one before, so neither prefetch nor many consumers nor a crash can overtake. What
//! has no key pays nothing for that.
//!
//! **Fencing.** An entry is handed out once. Whoever hands its message out again deletes the entry
//! and adds a new one, with a new id; a receipt is the old id, and finds nothing.
//!
//! **Leases.** Redis knows since when an entry is out. For how long it may be is part of the name
//! under which it was taken; everybody who looks for work looks for expired ones too.
//!
//! Scripts do all that. They need a server, or one node of a cluster, of version 6.2.
//!
//! ```text
//! redis://[[user]:password@]host[:port][/database][?prefix=text-before-every-key]
//! ```

mod consumer;
mod durability;
mod entry;
mod link;
mod publish;
mod queue;
mod script;
mod waiting;

use std::sync::Arc;
use std::time::Duration;

use async_trait::async_trait;

use self::link::Link;
use self::queue::RedisQueue;
use super::connect::without_password;
use super::{
    Broker, Capabilities, ConnectOptions, KeyOrder, LeaseKind, Queue, QueueError, check_names,
};

pub(super) const BROKER: &str = "Redis Streams";

/// Redis takes 512 MB, but a message is copied within a script, which holds up everybody else.
const LARGEST_BYTES: usize = 16 * 1024 * 1024;

const SHORTEST_LEASE: Duration = Duration::from_millis(10);

struct RedisBroker {
    link: Arc<Link>,
    prefix: String,
    durability: String,
}

/// Connects, and asks the server how durable it is.
///
/// # Errors
/// `Address`; `Unavailable`; `Refused`; `Unsupported` below version 6.2.
pub(super) async fn connect(
    url: &str,
    options: &ConnectOptions,
) -> Result<Arc<dyn Broker>, QueueError> {
    let (url, prefix) = without_prefix(url);
    let client = redis::Client::open(url.as_str()).map_err(|error| QueueError::Address {
        address: without_password(&url),
        reason: error.to_string(),
    })?;
    let link = Link::new(client, &options.client_name, options.timeout);
    let durability = durability::of(&link).await?;
    Ok(Arc::new(RedisBroker {
        link: Arc::new(link),
        prefix,
        durability,
    }))
}

#[async_trait]
impl Broker for RedisBroker {
    fn capabilities(&self) -> Capabilities {
        Capabilities {
            broker: BROKER,
            emulation: None,
            durability: self.durability.clone(),
            key_order: KeyOrder::Strict,
            lease: LeaseKind::Time {
                shortest: SHORTEST_LEASE,
                longest: None,
            },
            fencing: true,
            longest_delay: Some(Duration::MAX),
            delay_step: Duration::from_millis(1),
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
        let queue = RedisQueue::new(Arc::clone(&self.link), &self.prefix, name, groups);
        queue.place.declare(&self.link).await?;
        Ok(Arc::new(queue))
    }

    async fn close(&self) {
        self.link.close().await;
    }
}

/// The parameter `prefix` is ours; the rest is for the client.
fn without_prefix(url: &str) -> (String, String) {
    let Some((address, query)) = url.split_once('?') else {
        return (url.to_owned(), String::new());
    };
    let (ours, rest): (Vec<&str>, Vec<&str>) = query
        .split('&')
        .partition(|parameter| parameter.starts_with("prefix="));
    let prefix = ours.last().map_or("", |text| &text["prefix=".len()..]);
    let url = match rest.is_empty() {
        true => address.to_owned(),
        false => format!("{address}?{}", rest.join("&")),
    };
    (url, prefix.to_owned())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_prefix_is_ours_and_the_rest_is_the_clients() {
        for (url, client, prefix) in [
            ("redis://h/1", "redis://h/1", ""),
            ("redis://h/1?prefix=a:", "redis://h/1", "a:"),
            (
                "redis://h?protocol=3&prefix=a:",
                "redis://h?protocol=3",
                "a:",
            ),
        ] {
            assert_eq!(without_prefix(url), (client.to_owned(), prefix.to_owned()));
        }
    }
}
