//! A circuit breaker: a dependency that fails is left alone for a while, and then asked carefully.
//!
//! # The obvious design, and how it fails
//!
//! Count failures in a row, and stop at five. A dependency that fails every second call never fails
//! five times in a row; so a share of the latest calls counts. When the wait is over, let the calls
//! pass again: all of them arrive at once at something that is just getting up; so a few probes go
//! first. And calls that were begun before the breaker opened come back later and are counted for a
//! state that they know nothing of: a late success closes it, a late failure opens it again. So each
//! permit carries the generation in which it was given, and is heard in no other.
//!
//! # Why not a crate
//!
//! `failsafe` 1.3 lets every call pass while it is half open, counts late results, and does not see
//! a call that is dropped; its clock cannot be paused by Tokio. `tower-circuitbreaker` 0.2 has been
//! given up for `tower-resilience`, whose breaker is a tower service with a builder of generics
//! around each client; calls through a pool or an SDK are no such service.

use std::collections::VecDeque;
use std::future::Future;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use tokio::time::Instant;

use super::{CallError, Refused};

/// When it opens, and how it closes.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct BreakerSettings {
    /// How many of the latest calls are looked at; default 20.
    pub window: usize,
    /// Fewer calls than this open nothing; default 10, at most `window`.
    pub least: usize,
    /// The share of failures that opens it, above 0 and up to 1; default 0.5.
    pub failure_ratio: f64,
    /// How long a call may take before it counts as failed, whatever came of it, and if it was
    /// dropped; default 10 s. Keep it below the timeout around the call: that one drops it.
    pub slow: Duration,
    /// How long it stays open; default 5 s.
    pub open_for: Duration,
    /// How many calls have to succeed, and at most so many at once, before it closes; default 3.
    pub probes: usize,
}

impl Default for BreakerSettings {
    fn default() -> Self {
        Self {
            window: 20,
            least: 10,
            failure_ratio: 0.5,
            slow: Duration::from_secs(10),
            open_for: Duration::from_secs(5),
            probes: 3,
        }
    }
}

/// What a breaker does with the next call.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum BreakerState {
    /// It passes, and is counted.
    Closed,
    /// It is refused.
    Open,
    /// It passes if it is one of the probes.
    HalfOpen,
}

/// What changes a state.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Event {
    /// Too many of the latest calls have failed.
    TooManyFailures,
    /// The wait is over, and somebody calls.
    WaitOver,
    /// A probe has failed.
    ProbeFailed,
    /// As many probes as were wanted have succeeded.
    ProbesSucceeded,
}

/// ```text
/// Closed   → Open      too many of the latest calls have failed
/// Open     → HalfOpen  the wait is over
/// HalfOpen → Open      a probe has failed
/// HalfOpen → Closed    all probes have succeeded
/// ```
///
/// And no other.
fn next(state: BreakerState, event: Event) -> Option<BreakerState> {
    match (state, event) {
        (BreakerState::Closed, Event::TooManyFailures) => Some(BreakerState::Open),
        (BreakerState::Open, Event::WaitOver) => Some(BreakerState::HalfOpen),
        (BreakerState::HalfOpen, Event::ProbeFailed) => Some(BreakerState::Open),
        (BreakerState::HalfOpen, Event::ProbesSucceeded) => Some(BreakerState::Closed),
        _ => None,
    }
}

/// The breaker before one dependency. Cheap to clone; clones share it.
#[derive(Debug, Clone)]
pub struct Breaker {
    dependency: &'static str,
    settings: BreakerSettings,
    inner: Arc<Mutex<Inner>>,
}

#[derive(Debug)]
struct Inner {
    state: BreakerState,
    since: Instant,
    /// Of the state; a permit of an earlier one is not heard.
    generation: u64,
    /// While closed: the latest outcomes, true for a failure.
    latest: VecDeque<bool>,
    probes_under_way: usize,
    probes_succeeded: usize,
}

impl Breaker {
    /// # Errors
    /// `Unusable`: settings with which it would never open or never close.
    pub fn new(dependency: &'static str, settings: BreakerSettings) -> Result<Self, Refused> {
        if !(1..=settings.window).contains(&settings.least) {
            return Err(Refused::Unusable(
                "a breaker's `least` is from 1 to `window`",
            ));
        }
        if !(settings.failure_ratio > 0.0 && settings.failure_ratio <= 1.0) {
            return Err(Refused::Unusable(
                "a breaker's `failure_ratio` is above 0 and at most 1",
            ));
        }
        if settings.probes == 0 {
            return Err(Refused::Unusable(
                "a breaker without probes would never close",
            ));
        }
        let inner = Inner {
            state: BreakerState::Closed,
            since: Instant::now(),
            generation: 0,
            latest: VecDeque::with_capacity(settings.window),
            probes_under_way: 0,
            probes_succeeded: 0,
        };
        Ok(Self {
            dependency,
            settings,
            inner: Arc::new(Mutex::new(inner)),
        })
    }

    /// What the next call would meet. An open one that has waited long enough is half open once
    /// somebody calls, not before.
    pub fn state(&self) -> BreakerState {
        self.lock().state
    }

    /// A permit for one call. Say what came of it; dropped without a word it counts as nothing, or
    /// as a failure if it took longer than `slow`: whoever waited has given up.
    ///
    /// # Errors
    /// `BreakerOpen`.
    pub fn acquire(&self) -> Result<Permit, Refused> {
        let mut inner = self.lock();
        let waited = inner.since.elapsed();
        if inner.state == BreakerState::Open && waited >= self.settings.open_for {
            self.change(&mut inner, Event::WaitOver);
        }
        let passes = match inner.state {
            BreakerState::Closed => true,
            BreakerState::Open => false,
            BreakerState::HalfOpen => {
                inner.probes_under_way + inner.probes_succeeded < self.settings.probes
            }
        };
        if !passes {
            return Err(Refused::BreakerOpen {
                dependency: self.dependency,
                retry_in: match inner.state {
                    BreakerState::Open => self.settings.open_for.saturating_sub(waited),
                    BreakerState::Closed | BreakerState::HalfOpen => Duration::ZERO,
                },
            });
        }
        if inner.state == BreakerState::HalfOpen {
            inner.probes_under_way += 1;
        }
        Ok(Permit {
            breaker: self.clone(),
            generation: inner.generation,
            began: Instant::now(),
            failed: None,
        })
    }

    /// Makes a call if it may be made. `is_failure` says which errors speak against the dependency:
    /// a refusal of wrong input does not.
    ///
    /// # Errors
    /// `Refused` if it was not made, `Failed` with its error otherwise.
    ///
    /// # Cancel safety
    /// That of `call`. A dropped call is judged by how long it took: see `acquire`.
    pub async fn run<T, E>(
        &self,
        is_failure: impl FnOnce(&E) -> bool,
        call: impl Future<Output = Result<T, E>>,
    ) -> Result<T, CallError<E>> {
        let permit = self.acquire()?;
        let result = call.await;
        match &result {
            Err(error) if is_failure(error) => permit.failed(),
            _ => permit.succeeded(),
        }
        result.map_err(CallError::Failed)
    }

    fn lock(&self) -> MutexGuard<'_, Inner> {
        // Nothing under the lock can panic and leave it half done.
        self.inner.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// The one place where the state changes.
    fn change(&self, inner: &mut Inner, event: Event) {
        let Some(state) = next(inner.state, event) else {
            return;
        };
        tracing::warn!(dependency = self.dependency, from = ?inner.state, to = ?state, "breaker");
        inner.state = state;
        inner.since = Instant::now();
        inner.generation += 1;
        inner.latest.clear();
        inner.probes_under_way = 0;
        inner.probes_succeeded = 0;
    }

    fn record(&self, generation: u64, failed: Option<bool>) {
        let mut inner = self.lock();
        if inner.generation != generation {
            return;
        }
        match inner.state {
            BreakerState::Closed => {
                let Some(failed) = failed else { return };
                if inner.latest.len() == self.settings.window {
                    inner.latest.pop_front();
                }
                inner.latest.push_back(failed);
                let (calls, failures) = (
                    inner.latest.len(),
                    inner.latest.iter().filter(|failed| **failed).count(),
                );
                let is_too_many = failures as f64 >= self.settings.failure_ratio * calls as f64;
                if calls >= self.settings.least && is_too_many {
                    self.change(&mut inner, Event::TooManyFailures);
                }
            }
            BreakerState::HalfOpen => {
                inner.probes_under_way = inner.probes_under_way.saturating_sub(1);
                match failed {
                    Some(true) => self.change(&mut inner, Event::ProbeFailed),
                    Some(false) => {
                        inner.probes_succeeded += 1;
                        if inner.probes_succeeded >= self.settings.probes {
                            self.change(&mut inner, Event::ProbesSucceeded);
                        }
                    }
                    // The place is free for another probe.
                    None => {}
                }
            }
            // No permit is given in this state.
            BreakerState::Open => {}
        }
    }
}

/// The right to make one call.
#[derive(Debug)]
#[must_use = "a permit that is dropped at once says nothing about the dependency"]
pub struct Permit {
    breaker: Breaker,
    generation: u64,
    began: Instant,
    failed: Option<bool>,
}

impl Permit {
    /// The dependency has done its part.
    pub fn succeeded(mut self) {
        self.failed = Some(false);
    }

    /// It has not.
    pub fn failed(mut self) {
        self.failed = Some(true);
    }
}

impl Drop for Permit {
    fn drop(&mut self) {
        let was_slow = self.began.elapsed() >= self.breaker.settings.slow;
        let failed = if was_slow { Some(true) } else { self.failed };
        self.breaker.record(self.generation, failed);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn there_are_four_transitions_and_no_other() {
        use BreakerState::{Closed, HalfOpen, Open};
        use Event::{ProbeFailed, ProbesSucceeded, TooManyFailures, WaitOver};
        let legal = [
            (Closed, TooManyFailures, Open),
            (Open, WaitOver, HalfOpen),
            (HalfOpen, ProbeFailed, Open),
            (HalfOpen, ProbesSucceeded, Closed),
        ];
        for state in [Closed, Open, HalfOpen] {
            for event in [TooManyFailures, WaitOver, ProbeFailed, ProbesSucceeded] {
                let expected = legal
                    .iter()
                    .find(|(from, by, _)| (*from, *by) == (state, event))
                    .map(|(.., to)| *to);
                assert_eq!(next(state, event), expected, "{state:?} {event:?}");
            }
        }
    }
}
