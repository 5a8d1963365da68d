//! What can go wrong with a queue, as decisions for the caller.

/// Why a call to a queue did not do what it should.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum QueueError {
    /// The address names no broker that we know, or cannot be understood.
    #[error(
        "{address} is no address of a queue: {reason}\n\
         Use postgres://, redis://, amqp://, kafka:// or sqs+http:// (sqs+https://)."
    )]
    Address {
        /// The address, without a password.
        address: String,
        /// What is wrong with it.
        reason: String,
    },

    /// The broker's client was not compiled in.
    #[error(
        "{scheme}:// needs the feature `{feature}` of the crate `shared`, which this program was \
         built without: build it with `--features shared/{feature}`"
    )]
    NotCompiledIn {
        /// The scheme that was asked for.
        scheme: String,
        /// The feature that brings it.
        feature: &'static str,
    },

    /// This broker cannot do it; its [`Capabilities`](super::Capabilities) say so.
    #[error("{broker} cannot {what}")]
    Unsupported {
        /// The broker's name.
        broker: &'static str,
        /// The deed, as an infinitive.
        what: String,
    },

    /// A message, name or option that no attempt will make acceptable. A mistake of the caller.
    #[error("{what} is refused: {reason}")]
    Invalid {
        /// What was handed in.
        what: String,
        /// What is wrong with it and what would be right.
        reason: String,
    },

    /// A message that is larger than the broker takes. No attempt will help.
    #[error(
        "a message of {bytes} bytes is more than the {limit} that {broker} takes: store the content \
         elsewhere and send where"
    )]
    TooLarge {
        /// The broker's name.
        broker: &'static str,
        /// The size of payload, key and headers.
        bytes: usize,
        /// The largest size.
        limit: usize,
    },

    /// The broker is not there, or did not answer in time. What was asked may have happened or not;
    /// another attempt may succeed.
    #[error("{broker} does not answer: {reason}")]
    Unavailable {
        /// The broker's name.
        broker: &'static str,
        /// What the client saw.
        reason: String,
    },

    /// The broker answered, with an error that its user cannot decide about.
    #[error("{broker} refuses: {reason}")]
    Refused {
        /// The broker's name.
        broker: &'static str,
        /// What it said.
        reason: String,
    },

    /// The consumer or broker was closed before.
    #[error("the {what} was closed")]
    Closed {
        /// `consumer` or `broker`.
        what: &'static str,
    },
}

impl QueueError {
    /// A message for nobody. Not `Invalid`: it becomes right as soon as somebody consumes, and a
    /// publisher that was started first should go on trying.
    pub(super) fn no_group(broker: &'static str, queue: &str) -> Self {
        Self::Refused {
            broker,
            reason: format!(
                "the queue {queue} has no group, so nobody would ever get the message: declare \
                 one when you open the queue, or start a consumer first"
            ),
        }
    }

    /// Whether the same call may succeed later.
    pub fn is_transient(&self) -> bool {
        matches!(self, Self::Unavailable { .. })
    }
}
