//! Amazon SQS: `sqs+https://sqs.eu-west-1.amazonaws.com`.
//!
//! Each group of a queue has a FIFO queue of its own, since SQS has no groups, and `publish` sends
//! to all of them. FIFO for all messages, those without a key included:
//!
//! - *Order by key.* The key is the message group, of which SQS hands out nothing while something is
//!   in flight. A message without a key is a group of its own and waits for nobody.
//! - *Leases* are visibility timeouts, in whole seconds; `extend` changes them. A late delete is
//!   refused: by this client, which counts from before the request, and by SQS for FIFO queues.
//! - *Retries* are visibility timeouts as well, so that a message that waits keeps its key back.
//! - *Delays.* A FIFO queue can delay no single message. It is received, found early, and hidden for
//!   the rest, at most twelve hours; that receive is taken off the attempts again. Like all that is
//!   hidden it counts as in flight, of which SQS allows 20,000 (120,000 for some accounts).
//! - *Attempts* are SQS's own count of receives. Nothing takes one back, so `release` burns one.
//! - *Dead letters* go to a FIFO queue with reason and attempts; SQS's redrive policy sends there
//!   what was received a thousand times and never settled. Listing them hides them while it lasts.
//!
//! A group that is declared elsewhere is found within five seconds: what is published meanwhile does
//! not reach it. Declare groups before you publish.

mod address;
mod api;
mod consumer;
mod dead;
mod envelope;
mod error;
mod messages;
mod names;
mod queue;

use std::sync::Arc;
use std::time::Duration;

use async_trait::async_trait;

use super::{
    Broker, Capabilities, ConnectOptions, KeyOrder, LeaseKind, Queue, QueueError, check_names,
};
use address::Address;
use api::Api;

/// The name for messages.
const BROKER: &str = "SQS";

/// SQS counts the body and the attributes, each with its name and type.
const LIMIT_BYTES: usize = 262_144;

/// What is left of it for payload, key and headers.
const LARGEST_BYTES: usize = LIMIT_BYTES - 8_192;

/// A visibility timeout, and so everything that is built on it.
const LONGEST: Duration = Duration::from_secs(12 * 3600);

/// For how long SQS remembers a deduplication id.
const DEDUPLICATION: Duration = Duration::from_secs(300);

/// Connects.
///
/// # Errors
/// `Address`; `Unavailable` if it does not answer within `timeout`; `Refused` without valid
/// credentials.
pub(super) async fn connect(
    url: &str,
    options: &ConnectOptions,
) -> Result<Arc<dyn Broker>, QueueError> {
    let api = Api::connect(Address::parse(url)?, options).await?;
    Ok(Arc::new(Sqs { api }))
}

struct Sqs {
    api: Arc<Api>,
}

#[async_trait]
impl Broker for Sqs {
    fn capabilities(&self) -> Capabilities {
        Capabilities {
            broker: BROKER,
            emulation: self.api.address.emulation.clone(),
            durability: "stored in several data centres before it answers".to_owned(),
            key_order: KeyOrder::Strict,
            lease: LeaseKind::Time {
                shortest: Duration::from_secs(1),
                longest: Some(LONGEST),
            },
            fencing: true,
            longest_delay: Some(LONGEST),
            delay_step: Duration::from_secs(1),
            groups: true,
            groups_see_the_past: false,
            durable_attempts: true,
            release_burns_no_attempt: false,
            priority: false,
            deduplication: Some(DEDUPLICATION),
            largest_message_bytes: LARGEST_BYTES,
            dead_letters: true,
        }
    }

    async fn queue(&self, name: &str, groups: &[&str]) -> Result<Arc<dyn Queue>, QueueError> {
        check_names(name, groups)?;
        self.api.check_open()?;
        let queue = queue::SqsQueue::open(&self.api, name, groups).await?;
        Ok(Arc::new(queue))
    }

    async fn close(&self) {
        self.api.close();
    }
}

/// SQS knows whole seconds; a part of one is a whole one.
fn whole_seconds(time: Duration) -> i32 {
    let seconds = time.as_secs() + u64::from(time.subsec_nanos() > 0);
    i32::try_from(seconds).unwrap_or(i32::MAX)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_part_of_a_second_is_a_whole_one() {
        for (ms, seconds) in [(0, 0), (1, 1), (1_000, 1), (1_001, 2)] {
            assert_eq!(whole_seconds(Duration::from_millis(ms)), seconds);
        }
    }
}
