//! So many calls to one dependency at once, and a short queue before them.
//!
//! # The obvious design, and how it fails
//!
//! None: each request calls the dependency, and when that gets slow all requests of the service sit
//! in those calls, with their memory, their connections and their share of every other limit. One
//! slow dependency takes down what does not need it.
//!
//! A semaphore alone moves the crowd before its door: the queue grows without end, and whoever gets
//! a turn has long been given up. So the queue is short, and so is the wait in it; the rest hears
//! "busy" at once, while it can still do something else.

use std::future::Future;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use tokio::sync::{OwnedSemaphorePermit, Semaphore};

use super::{Deadline, Refused};

/// How many, and how long the others wait.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct BulkheadSettings {
    /// Calls at once, at least 1; default 16. Fewer than the pool behind it has connections.
    pub calls: usize,
    /// How many more may wait for a turn; default 16.
    pub waiting: usize,
    /// How long they wait; default 100 ms.
    pub longest_wait: Duration,
}

impl Default for BulkheadSettings {
    fn default() -> Self {
        Self {
            calls: 16,
            waiting: 16,
            longest_wait: Duration::from_millis(100),
        }
    }
}

/// The bulkhead before one dependency. Cheap to clone; clones share it.
#[derive(Debug, Clone)]
pub struct Bulkhead {
    dependency: &'static str,
    settings: BulkheadSettings,
    turns: Arc<Semaphore>,
    waiting: Arc<AtomicUsize>,
}

impl Bulkhead {
    /// # Errors
    /// `Unusable`: no call at all, or more than a semaphore can count.
    pub fn new(dependency: &'static str, settings: BulkheadSettings) -> Result<Self, Refused> {
        if !(1..=Semaphore::MAX_PERMITS).contains(&settings.calls) {
            return Err(Refused::Unusable("a bulkhead lets at least one call pass"));
        }
        Ok(Self {
            dependency,
            settings,
            turns: Arc::new(Semaphore::new(settings.calls)),
            waiting: Arc::default(),
        })
    }

    /// Waits for a turn, in the order of arrival, and for no longer than the settings and the
    /// deadline allow. The turn ends when the permit is dropped.
    ///
    /// # Errors
    /// `BulkheadFull`, `DeadlineOver`.
    ///
    /// # Cancel safety
    /// Safe: whoever stops waiting leaves the queue.
    pub async fn acquire(&self) -> Result<OwnedSemaphorePermit, Refused> {
        if let Ok(turn) = Arc::clone(&self.turns).try_acquire_owned() {
            return Ok(turn);
        }
        let full = Refused::BulkheadFull {
            dependency: self.dependency,
        };
        let _place = Place::take(&self.waiting, self.settings.waiting).ok_or(full.clone())?;
        let left = Deadline::current().map_or(Duration::MAX, Deadline::remaining);
        let longest = self.settings.longest_wait.min(left);
        match tokio::time::timeout(longest, Arc::clone(&self.turns).acquire_owned()).await {
            // It is never closed; if it were, nobody would get a turn.
            Ok(turn) => turn.map_err(|_| full),
            Err(_) if left <= self.settings.longest_wait => Err(Refused::DeadlineOver),
            Err(_) => Err(full),
        }
    }

    /// Runs `work` when it is its turn.
    ///
    /// # Errors
    /// As `acquire`; `work` was not polled then.
    ///
    /// # Cancel safety
    /// That of `work`; the turn ends.
    pub async fn run<F: Future>(&self, work: F) -> Result<F::Output, Refused> {
        let _turn = self.acquire().await?;
        Ok(work.await)
    }
}

/// A place in the queue, given back when it is dropped: also by a future that is cancelled.
struct Place<'a>(&'a AtomicUsize);

impl<'a> Place<'a> {
    fn take(waiting: &'a AtomicUsize, at_most: usize) -> Option<Self> {
        let step = |count: usize| (count < at_most).then_some(count + 1);
        // Relaxed: the number protects nothing but itself.
        let taken = waiting.fetch_update(Ordering::Relaxed, Ordering::Relaxed, step);
        taken.ok().map(|_| Self(waiting))
    }
}

impl Drop for Place<'_> {
    fn drop(&mut self) {
        self.0.fetch_sub(1, Ordering::Relaxed);
    }
}
