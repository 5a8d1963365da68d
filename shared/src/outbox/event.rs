//! What is staged: a message, and the queue that it is meant for.

use super::OutboxError;
use crate::queue::{Message, check_name};

/// A message to be published when the transaction in hand has been committed.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Event {
    /// The name of the queue. A relay that serves this queue publishes it; until there is one it
    /// waits.
    pub queue: String,
    /// What is published. Its headers are carried as they are: trace context and request id reach
    /// the consumer as if the broker had been called from here. Its delay counts from now on.
    pub message: Message,
}

impl Event {
    /// A message for a queue.
    pub fn new(queue: impl Into<String>, message: Message) -> Self {
        Self {
            queue: queue.into(),
            message,
        }
    }

    /// Refuses what no broker would take, so that the request that made it fails, and not a relay
    /// that knows nothing of it.
    pub(super) fn check(&self) -> Result<(), OutboxError> {
        let invalid = |error: crate::queue::QueueError| OutboxError::Invalid(error.to_string());
        check_name("queue", &self.queue).map_err(invalid)?;
        self.message.check().map_err(invalid)
    }
}
