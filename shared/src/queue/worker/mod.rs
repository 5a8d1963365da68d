//! The worker: takes messages, runs a handler for each, settles them.
//!
//! ```text
//!            prefetch            concurrency             batches
//! broker ──→ receive ──→ lanes ──→ handlers ──→ verdicts ──→ settle ──→ broker
//!               ↑          by key      ↑                        
//!               └─ as room is free     └─ heartbeat: extends leases, drops handlers that lost theirs
//! ```
//!
//! - The next batch is received while the last one is worked on, and verdicts are settled in
//!   batches: a message costs a share of a round trip, not three.
//! - Messages of one key run one after the other, prefetch or not: see [`Lanes`].
//! - A lease is extended as long as its handler runs. If it is lost all the same, the handler is
//!   dropped at its next await and its verdict is not sent; would it be, the broker would refuse it.
//! - A handler that panics has failed. One that kills the process has too: the broker counted the
//!   attempt before it handed the message out, and the worker gives up what comes back with more
//!   attempts than it may have.
//! - A polite stop finishes what runs, gives back what was only taken, and burns no attempt.
//!
//! # If the process dies
//!
//! All that it held comes again when the leases end, also what had been done and not yet settled,
//! and with an attempt counted, also for what had only been taken. So keep `prefetch` small where
//! messages are slow, and let handlers be idempotent.

mod failure;
mod fetch;
mod lanes;
mod observer;
mod run;
mod settle;

use std::future::Future;
use std::sync::Arc;
use std::time::Duration;

pub use failure::Failure;
pub use lanes::Lanes;
pub use observer::{JobInfo, Observer, Outcome, Silent};

use super::{Backoff, Consumer, Delivery};

/// What is done for each message. Every `Fn(Delivery) -> impl Future<Output = Result<(), Failure>>`
/// is one.
///
/// The future may be dropped at any await, when the lease is lost or a stop takes too long.
pub trait Handler: Send + Sync + 'static {
    /// Does it. `Ok` acknowledges.
    fn handle(&self, delivery: Delivery) -> impl Future<Output = Result<(), Failure>> + Send;
}

impl<F, Fut> Handler for F
where
    F: Fn(Delivery) -> Fut + Send + Sync + 'static,
    Fut: Future<Output = Result<(), Failure>> + Send,
{
    fn handle(&self, delivery: Delivery) -> impl Future<Output = Result<(), Failure>> + Send {
        self(delivery)
    }
}

/// A worker that is set up and not yet running.
///
/// ```no_run
/// # async fn example(consumer: std::sync::Arc<dyn shared::queue::Consumer>) {
/// use shared::queue::worker::{Failure, Worker};
///
/// let stop = async { tokio::signal::ctrl_c().await.unwrap_or_default() };
/// let report = Worker::new(consumer)
///     .concurrency(16)
///     .max_attempts(5)
///     .run(
///         async |delivery: shared::queue::Delivery| {
///             let order: u64 = delivery.message.read_json().map_err(Failure::dead)?;
///             println!("order {order}");
///             Ok(())
///         },
///         stop,
///     )
///     .await;
/// println!("{report:?}");
/// # }
/// ```
#[must_use = "nothing happens before `run`"]
pub struct Worker {
    consumer: Arc<dyn Consumer>,
    observer: Arc<dyn Observer>,
    concurrency: usize,
    prefetch: Option<usize>,
    lease: Duration,
    backoff: Backoff,
    max_attempts: u32,
    settle_batch: usize,
    settle_linger: Duration,
    drain: Duration,
}

/// What a worker did, in numbers.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Report {
    /// Handlers that returned `Ok`.
    pub done: u64,
    /// That failed, and are tried again.
    pub retried: u64,
    /// That were given up, some without having run again.
    pub dead: u64,
    /// Whose lease was lost while they ran or waited.
    pub lost: u64,
    /// Given back at the end, without having run or cut off.
    pub released: u64,
}

impl Worker {
    /// With 16 at a time, leases of 30 s, 10 attempts, a backoff from 1 s to 5 min, 30 s to drain.
    pub fn new(consumer: Arc<dyn Consumer>) -> Self {
        Self {
            consumer,
            observer: Arc::new(Silent),
            concurrency: 16,
            prefetch: None,
            lease: Duration::from_secs(30),
            backoff: Backoff::default(),
            max_attempts: 10,
            settle_batch: 500,
            settle_linger: Duration::ZERO,
            drain: Duration::from_secs(30),
        }
    }

    /// How many handlers run at once, at least 1.
    pub fn concurrency(mut self, handlers: usize) -> Self {
        self.concurrency = handlers.max(1);
        self
    }

    /// How many messages are taken and wait for a free handler; `concurrency` unless said otherwise.
    /// More is faster for handlers of microseconds; for slow ones it keeps work from other workers.
    pub fn prefetch(mut self, messages: usize) -> Self {
        self.prefetch = Some(messages.max(1));
        self
    }

    /// For how long a message is taken. It is extended at a third of it, so this is not how long a
    /// handler may run, but how long the others wait when this process dies.
    pub fn lease(mut self, lease: Duration) -> Self {
        self.lease = lease.max(Duration::from_millis(1));
        self
    }

    /// How long to wait before the next attempt.
    pub fn backoff(mut self, backoff: Backoff) -> Self {
        self.backoff = backoff;
        self
    }

    /// After how many attempts a message is given up, at least 1.
    pub fn max_attempts(mut self, attempts: u32) -> Self {
        self.max_attempts = attempts.max(1);
        self
    }

    /// How many verdicts are settled at once at most, and how long the first of them waits for more;
    /// 500 and not at all unless said otherwise. A few milliseconds make batches larger, and each
    /// message as much later.
    pub fn settle(mut self, batch: usize, linger: Duration) -> Self {
        self.settle_batch = batch.max(1);
        self.settle_linger = linger;
        self
    }

    /// How long handlers may go on after the stop, before they are dropped and their messages given
    /// back.
    pub fn drain(mut self, limit: Duration) -> Self {
        self.drain = limit;
        self
    }

    /// Tells this observer.
    pub fn observer(mut self, observer: Arc<dyn Observer>) -> Self {
        self.observer = observer;
        self
    }

    /// Works until `shutdown` completes, then stops politely and closes the consumer.
    ///
    /// A broker that does not answer is asked again, with growing pauses: this ends only by
    /// `shutdown`. The observer and the log tell.
    ///
    /// # Cancel safety
    /// Dropping it is a death: handlers are dropped, nothing is given back.
    pub async fn run(self, handler: impl Handler, shutdown: impl Future<Output = ()>) -> Report {
        run::run(self, Arc::new(handler), shutdown).await
    }
}
