//! The payload, and who has been done when.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, AtomicUsize, Ordering};
use std::time::{Duration, Instant};

use serde::{Deserialize, Serialize};
use tokio::sync::Notify;

/// What the body is filled with, so that each job carries some 150 bytes of JSON.
const BODY: &str = "an order of four lines, paid by card, to be shipped to the usual address \
                    before noon, with the invoice";

/// What every job of every contestant carries.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct Payload {
    /// Counts from 0 within a run.
    pub sequence: u64,
    /// Something to carry.
    pub body: String,
}

impl Payload {
    pub(crate) fn new(sequence: usize) -> Self {
        Self {
            sequence: sequence as u64,
            body: BODY.to_owned(),
        }
    }
}

/// Counts what the handlers have done. Clones count together.
#[derive(Debug, Clone)]
pub struct Meter {
    inner: Arc<Inner>,
}

#[derive(Debug)]
struct Inner {
    epoch: Instant,
    /// For each job, nanoseconds from the epoch to the end of its first handler; 0: not yet.
    done_at: Vec<AtomicU64>,
    done: AtomicUsize,
    again: AtomicUsize,
    all_done: Notify,
}

impl Meter {
    pub(crate) fn new(jobs: usize) -> Self {
        Self {
            inner: Arc::new(Inner {
                epoch: Instant::now(),
                done_at: (0..jobs).map(|_| AtomicU64::new(0)).collect(),
                done: AtomicUsize::new(0),
                again: AtomicUsize::new(0),
                all_done: Notify::new(),
            }),
        }
    }

    /// To be called by a handler, as the last thing that it does.
    pub fn done(&self, sequence: u64) {
        let inner = &self.inner;
        let slot = usize::try_from(sequence).ok();
        let Some(slot) = slot.and_then(|slot| inner.done_at.get(slot)) else {
            // A job that nobody sent. It must show, and it shows as one too many.
            inner.again.fetch_add(1, Ordering::Relaxed);
            return;
        };
        let now = self.now().max(1);
        // Relaxed: each slot stands for itself, and the reader looks after `all_done`.
        if slot
            .compare_exchange(0, now, Ordering::Relaxed, Ordering::Relaxed)
            .is_err()
        {
            inner.again.fetch_add(1, Ordering::Relaxed);
        } else if inner.done.fetch_add(1, Ordering::AcqRel) + 1 == inner.done_at.len() {
            inner.all_done.notify_one();
        }
    }

    /// Returns once every job has been done. Cancel safe.
    pub(crate) async fn all_done(&self) {
        while self.count() < self.inner.done_at.len() {
            self.inner.all_done.notified().await;
        }
    }

    pub(crate) fn count(&self) -> usize {
        self.inner.done.load(Ordering::Acquire)
    }

    /// How often a handler ran for a job that was done already.
    pub(crate) fn again(&self) -> usize {
        self.inner.again.load(Ordering::Relaxed)
    }

    /// Nanoseconds since the epoch of this meter.
    pub(crate) fn now(&self) -> u64 {
        u64::try_from(self.inner.epoch.elapsed().as_nanos()).unwrap_or(u64::MAX)
    }

    pub(crate) fn epoch(&self) -> Instant {
        self.inner.epoch
    }

    /// How late each job from `first` on was done, counted from the moment at which it was due to
    /// be sent; one that is not done counts up to `end`, as nothing better can be said of it.
    pub(crate) fn lateness(
        &self,
        first: usize,
        due: impl Fn(usize) -> Duration,
        end: u64,
    ) -> Vec<u64> {
        let slots = self.inner.done_at.iter().enumerate().skip(first);
        slots
            .map(|(sequence, slot)| {
                let due = u64::try_from(due(sequence).as_nanos()).unwrap_or(u64::MAX);
                let done = match slot.load(Ordering::Relaxed) {
                    0 => end,
                    done => done,
                };
                done.saturating_sub(due)
            })
            .collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn each_job_counts_once() {
        let meter = Meter::new(2);
        meter.done(0);
        meter.done(0);
        assert_eq!((meter.count(), meter.again()), (1, 1));
        meter.done(1);
        meter.all_done().await;
        assert_eq!((meter.count(), meter.again()), (2, 1));
    }

    #[test]
    fn a_job_that_nobody_sent_shows() {
        let meter = Meter::new(1);
        meter.done(7);
        assert_eq!((meter.count(), meter.again()), (0, 1));
    }

    #[test]
    fn a_job_that_is_not_done_counts_as_late_as_it_is() {
        let meter = Meter::new(3);
        meter.done(1);
        let second = |sequence: usize| Duration::from_secs(sequence as u64);
        let late = meter.lateness(0, second, 5_000_000_000);
        assert_eq!(
            (late[0], late[1], late[2]),
            (5_000_000_000, 0, 3_000_000_000)
        );
    }
}
