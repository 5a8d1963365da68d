//! What a broker can do. Declared by its backend, and held against it by the conformance suite.

use std::time::Duration;

/// What is kept of the order of one key's messages, in one group, over all its consumers.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum KeyOrder {
    /// Nothing.
    None,
    /// A consumer gets them in order, one consumer at a time; but a message that was refused may be
    /// overtaken by later ones of its key.
    UntilRetry,
    /// A later message is not handed to another consumer while an earlier one is leased, or waits
    /// for another attempt, or for its delay. It follows when the earlier one is acknowledged, or
    /// has gone to the dead letters.
    Strict,
}

/// What ends the right to settle a delivery.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum LeaseKind {
    /// Time: `receive` says how much, and `extend` gives more.
    Time {
        /// Shorter ones are rounded up to it.
        shortest: Duration,
        /// Longer ones are refused, if there is a limit.
        longest: Option<Duration>,
    },
    /// The end of the consumer's connection (session). `receive` takes the time and makes nothing
    /// of it; `extend` says that nothing was lost while the connection stands.
    Connection,
}

/// What a broker can do.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Capabilities {
    /// The broker's name, as people know it: `PostgreSQL`.
    pub broker: &'static str,
    /// What answers at the other end if it is not the broker itself, an emulation for example.
    pub emulation: Option<String>,
    /// What `Ok` of a `publish` means: where the message is then, and what it survives.
    pub durability: String,
    /// The order of one key's messages.
    pub key_order: KeyOrder,
    /// What ends a delivery's lease.
    pub lease: LeaseKind,
    /// Whether settling late is refused by the broker, and `Settled::lost` tells.
    pub fencing: bool,
    /// The longest delay of a message and of a nack; `None` if it can delay nothing.
    pub longest_delay: Option<Duration>,
    /// How exact a delay is: it may be later by this much.
    pub delay_step: Duration,
    /// Whether several groups can each see every message.
    pub groups: bool,
    /// Whether a group sees what was published before it was declared.
    pub groups_see_the_past: bool,
    /// Whether the broker counts attempts so that the count survives the consumer.
    pub durable_attempts: bool,
    /// Whether `release` takes the attempt back.
    pub release_burns_no_attempt: bool,
    /// Whether higher priorities go first.
    pub priority: bool,
    /// For how long a second message of the same id is refused; `None` if it never is.
    pub deduplication: Option<Duration>,
    /// The largest message: payload, key and headers.
    pub largest_message_bytes: usize,
    /// Whether dead letters can be listed, redriven and discarded one by one.
    pub dead_letters: bool,
}
