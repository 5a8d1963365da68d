//! The contract between programs and brokers.
//!
//! Everything is reached through `dyn`, since the broker is chosen when the program runs. A call
//! costs an allocation, which beside a round trip is nothing; calls take batches.

use std::sync::Arc;
use std::time::{Duration, SystemTime};

use async_trait::async_trait;

use super::{Capabilities, Delivery, Message, QueueError, Receipt};

/// A connection to a broker. Clones of the `Arc` share it.
#[async_trait]
pub trait Broker: Send + Sync {
    /// What it can do.
    fn capabilities(&self) -> Capabilities;

    /// Opens a queue, and makes it if it is missing. Names of queues and groups take 1 to 64 of
    /// `a`–`z`, `0`–`9`, `-` and `_`: see [`check_name`].
    ///
    /// The groups are declared: from now on every message that is published goes to each of them,
    /// whether or not somebody consumes yet. Who only publishes may name none, if somebody declared
    /// them before; a message for no group at all would go nowhere, and publishing it is `Refused`.
    ///
    /// # Errors
    /// `Invalid` name; `Unavailable`; `Refused`; `Unsupported` for more groups than it can.
    ///
    /// # Cancel safety
    /// Safe: part of it may have been made, and is found there the next time.
    async fn queue(&self, name: &str, groups: &[&str]) -> Result<Arc<dyn Queue>, QueueError>;

    /// Ends what runs in the background and the connections. Queues and consumers of this broker
    /// answer `Closed` or `Unavailable` afterwards.
    ///
    /// Without it the same happens some time after the last handle is dropped.
    async fn close(&self);
}

/// A named queue.
#[async_trait]
pub trait Queue: Send + Sync {
    /// Its name.
    fn name(&self) -> &str;

    /// Stores messages, in this order. `Ok` means that they are as durable as
    /// `Capabilities::durability` says; an empty slice is `Ok`.
    ///
    /// # Errors
    /// `Invalid` or `TooLarge`: nothing was stored. Otherwise some, all or none were: publish again
    /// with the same ids, and let the consumer find the doubles.
    ///
    /// # Cancel safety
    /// As for an error that is not `Invalid` or `TooLarge`.
    async fn publish(&self, messages: &[Message]) -> Result<(), QueueError>;

    /// A consumer in a group, which is declared if it was not. Consumers of the same group share
    /// its messages.
    ///
    /// # Errors
    /// `Invalid` name; `Unavailable`; `Refused`.
    async fn consumer(
        &self,
        group: &str,
        options: &ConsumerOptions,
    ) -> Result<Arc<dyn Consumer>, QueueError>;

    /// How much there is for a group. What a broker cannot tell is `None`, never 0.
    ///
    /// # Errors
    /// `Unavailable`; `Refused`.
    async fn depth(&self, group: &str) -> Result<Depth, QueueError>;

    /// A group's dead letters, oldest first: those after the one whose id is `after`, at most
    /// `limit`.
    ///
    /// # Errors
    /// `Unavailable`; `Refused`; `Unsupported`.
    async fn dead_letters(
        &self,
        group: &str,
        after: Option<&str>,
        limit: usize,
    ) -> Result<Vec<DeadLetter>, QueueError>;

    /// Puts dead letters back into the queue of their group, as if they were published now, with
    /// the same message id. How many there were; ids that are unknown are passed over.
    ///
    /// # Errors
    /// `Unavailable`: some may have been put back. `Refused`; `Unsupported`.
    async fn redrive(&self, group: &str, ids: &[String]) -> Result<usize, QueueError>;

    /// Deletes dead letters. How many there were.
    ///
    /// # Errors
    /// As `redrive`.
    async fn discard(&self, group: &str, ids: &[String]) -> Result<usize, QueueError>;

    /// Deletes all messages of all groups, dead letters and what is leased included. For tests and
    /// for operators who know what they do.
    ///
    /// # Errors
    /// `Unavailable`; `Refused`.
    async fn purge(&self) -> Result<(), QueueError>;

    /// Deletes the queue with its groups and all that is in it. Handles to it are of no use then.
    ///
    /// # Errors
    /// `Unavailable`; `Refused`.
    async fn delete(&self) -> Result<(), QueueError>;
}

/// A member of a group. All calls may be made at the same time.
///
/// Settling (`ack`, `nack`, `dead_letter`, `release`) compares the receipt's token in the broker. A
/// delivery whose lease has run out, and which somebody else may have by now, is not touched: its
/// receipt comes back in [`Settled::lost`], which is no error, since what others did is right.
///
/// A consumer that is dropped without `close` has died: what it holds goes out again when its leases
/// run out, with an attempt burnt.
#[async_trait]
pub trait Consumer: Send + Sync {
    /// Takes up to `max` messages for the time `lease`. Waits up to `wait` if there is none, and
    /// returns as soon as there is any; `wait` zero looks once.
    ///
    /// Registers for the wake-up before it looks, so that a message published in between is not
    /// slept through; and looks again every [`ConsumerOptions::poll_interval`], since wake-ups get
    /// lost.
    ///
    /// Messages of one key come in their order. One batch may hold several of a key, where the
    /// broker works like that: whoever fails one must not go on with the later ones, but `release`
    /// them after the `nack`.
    ///
    /// # Errors
    /// `Unavailable`: try again, after a pause. `Refused`; `Closed`; `Invalid` lease.
    ///
    /// # Cancel safety
    /// Nothing is lost, but not free: messages that were on their way are out until their lease
    /// ends, with an attempt burnt. Call `stop_receiving` instead, and let it return.
    async fn receive(
        &self,
        max: usize,
        lease: Duration,
        wait: Duration,
    ) -> Result<Vec<Delivery>, QueueError>;

    /// Makes every `receive` that waits, now or later, return at once, empty. For a polite stop.
    fn stop_receiving(&self);

    /// They are done and never come again.
    ///
    /// # Errors
    /// `Unavailable`: some may be settled. Settling again is harmless: those that were are then
    /// told as lost.
    ///
    /// # Cancel safety
    /// As for `Unavailable`. The same holds for all that settle.
    async fn ack(&self, receipts: &[Receipt]) -> Result<Settled, QueueError>;

    /// They failed, and shall be tried again after a delay. The attempt counts.
    ///
    /// # Errors
    /// As `ack`; `Unsupported` for a delay longer than the broker can.
    async fn nack(&self, nacks: &[Nack]) -> Result<Settled, QueueError>;

    /// Their leases end no earlier than `lease` from now.
    ///
    /// # Errors
    /// As `ack`.
    async fn extend(&self, receipts: &[Receipt], lease: Duration) -> Result<Settled, QueueError>;

    /// They are given up, each with the reason that people will read: they go to the dead letters.
    ///
    /// # Errors
    /// As `ack`.
    async fn dead_letter(&self, reasons: &[(Receipt, String)]) -> Result<Settled, QueueError>;

    /// They were taken but not begun: others may have them at once, and the attempt does not count.
    ///
    /// # Errors
    /// As `ack`.
    async fn release(&self, receipts: &[Receipt]) -> Result<Settled, QueueError>;

    /// Leaves the group. What is still held goes out again at once where the broker can, and when
    /// its lease ends where it cannot: release it before.
    ///
    /// # Errors
    /// `Unavailable`.
    async fn close(&self) -> Result<(), QueueError>;
}

/// One failed delivery.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Nack {
    /// Which.
    pub receipt: Receipt,
    /// Not before this time has passed.
    pub delay: Duration,
    /// For people; the last one is kept with the dead letter, where the broker can.
    pub error: String,
}

/// What became of receipts that were settled or extended.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
#[must_use = "what was lost was done, or is being done, by somebody else as well"]
pub struct Settled {
    /// Those that had lost their lease: nothing was done for them.
    pub lost: Vec<Receipt>,
}

/// How a consumer behaves.
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub struct ConsumerOptions {
    /// What the consumer is called in the broker, for people; the host and the process by default.
    pub name: String,
    /// How often an idle `receive` looks although nobody woke it; default 500 ms. It bounds how late
    /// a message is whose wake-up got lost, and how late an expired lease is seen.
    pub poll_interval: Duration,
    /// How many messages a broker that pushes may send ahead; default 256.
    pub prefetch: u16,
}

impl Default for ConsumerOptions {
    fn default() -> Self {
        Self {
            name: format!("pid-{}", std::process::id()),
            poll_interval: Duration::from_millis(500),
            prefetch: 256,
        }
    }
}

impl ConsumerOptions {
    /// Called so in the broker.
    #[must_use]
    pub fn name(mut self, name: impl Into<String>) -> Self {
        self.name = name.into();
        self
    }

    /// Looks this often without being woken.
    #[must_use]
    pub fn poll_interval(mut self, interval: Duration) -> Self {
        self.poll_interval = interval;
        self
    }

    /// Takes so many ahead.
    #[must_use]
    pub fn prefetch(mut self, messages: u16) -> Self {
        self.prefetch = messages;
        self
    }
}

/// How much there is for one group. `None` where the broker cannot tell.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Depth {
    /// Could be handed out now, or as soon as an earlier one of the same key is done.
    pub ready: Option<u64>,
    /// Wait for their time.
    pub delayed: Option<u64>,
    /// Are out.
    pub leased: Option<u64>,
    /// Were given up.
    pub dead: Option<u64>,
    /// How long ago the oldest of those that are ready was published; `None` also if there is none.
    pub oldest: Option<Duration>,
}

/// A message that was given up.
#[derive(Debug, Clone)]
pub struct DeadLetter {
    /// Names it among its group's dead letters; opaque.
    pub id: String,
    /// As it was published.
    pub message: Message,
    /// How many attempts were made, if the broker knows.
    pub attempts: Option<u32>,
    /// Why it was given up.
    pub reason: String,
    /// When, by the broker's clock, if it knows.
    pub died_at: Option<SystemTime>,
}

impl DeadLetter {
    /// What [`Queue::dead_letters`] shows of all, for brokers that can only list all. A letter that
    /// is gone meanwhile leaves no place to go on from but the beginning.
    #[cfg(any(feature = "kafka", feature = "sqs"))]
    pub(super) fn page(all: Vec<Self>, after: Option<&str>, limit: usize) -> Vec<Self> {
        let place = after.and_then(|after| all.iter().position(|letter| letter.id == after));
        let begin = place.map_or(0, |place| place + 1);
        all.into_iter().skip(begin).take(limit).collect()
    }
}

/// Refuses names that some broker could not carry. Backends call it on queues and groups.
///
/// # Errors
/// `Invalid`.
pub fn check_name(what: &str, name: &str) -> Result<(), QueueError> {
    let allowed = |byte: u8| {
        byte.is_ascii_lowercase() || byte.is_ascii_digit() || matches!(byte, b'-' | b'_')
    };
    if (1..=64).contains(&name.len()) && name.bytes().all(allowed) {
        return Ok(());
    }
    Err(QueueError::Invalid {
        what: format!("the {what} name {name:?}"),
        reason: "it takes 1 to 64 of a-z, 0-9, - and _".to_owned(),
    })
}

/// The same for a queue and all groups that are declared with it.
pub(super) fn check_names(queue: &str, groups: &[&str]) -> Result<(), QueueError> {
    check_name("queue", queue)?;
    groups
        .iter()
        .try_for_each(|group| check_name("group", group))
}

#[cfg(test)]
mod tests {
    use super::check_name;

    #[test]
    fn names_that_some_broker_could_not_carry_are_refused() {
        for fine in ["a", "orders-2_eu", &"x".repeat(64)] {
            check_name("queue", fine).unwrap();
        }
        for bad in ["", "A", "a.b", "a/b", "ä", &"x".repeat(65)] {
            let error = check_name("queue", bad).unwrap_err().to_string();
            assert!(error.contains("1 to 64"), "{error}");
        }
    }
}
