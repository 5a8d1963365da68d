//! What a worker tells whoever measures it.

use std::time::{Duration, SystemTime};

use tracing::Span;
use uuid::Uuid;

use super::super::{Delivery, header};

/// What is known of a message that ran.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct JobInfo {
    /// The message's id.
    pub id: Uuid,
    /// 1 at the first attempt.
    pub attempt: u32,
    /// When it was published.
    pub first_enqueued_at: SystemTime,
}

/// How a message ended, in this attempt.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Outcome {
    /// The handler returned `Ok`.
    Done,
    /// It failed, and is tried again.
    Retried,
    /// It was given up.
    Dead,
    /// Its lease was lost while it ran: the handler was dropped, and somebody else does it.
    Lost,
    /// It was cut off at the end of a polite stop, and given back.
    Released,
}

/// Hooks, called from the worker's own task: they must not block. Each does nothing by default,
/// but for the span.
pub trait Observer: Send + Sync + 'static {
    /// The span that the handler runs in. By default one named `job`, with the message's id, the
    /// attempt, the request id and the publisher's `traceparent`, so that log lines of both sides
    /// can be joined.
    ///
    /// A trace exporter makes it a *link* to the publisher's span and not its child: a message is
    /// not part of the request that published it, which was answered long ago (OpenTelemetry,
    /// semantic conventions for messaging).
    fn span(&self, delivery: &Delivery) -> Span {
        let header = |name: &str| delivery.message.headers.get(name).map(String::as_str);
        tracing::info_span!(
            "job",
            message_id = %delivery.message.id,
            attempt = delivery.attempt,
            request_id = header(header::REQUEST_ID),
            traceparent = header(header::TRACEPARENT),
        )
    }

    /// A batch was received: how many.
    fn received(&self, messages: usize) {
        let _ = messages;
    }

    /// A message ended after it ran for so long.
    fn finished(&self, job: &JobInfo, outcome: Outcome, ran: Duration) {
        let _ = (job, outcome, ran);
    }

    /// So many were settled too late: what was done for them is, or will be, done again.
    fn lost(&self, messages: usize) {
        let _ = messages;
    }

    /// The broker failed a call.
    fn broker_failed(&self, error: &super::super::QueueError) {
        let _ = error;
    }
}

/// Does what every method does by default.
#[derive(Debug, Clone, Copy, Default)]
pub struct Silent;

impl Observer for Silent {}
