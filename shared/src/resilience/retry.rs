//! Trying again: with full jitter, within the budget, and only while somebody waits for the answer.
//!
//! # The obvious design, and how it fails
//!
//! Wait 100, 200, 400 ms. All that failed at the same moment come back at the same moment, and
//! fail together again: hence a random time between nothing and the ceiling (full jitter; Brooker,
//! "Exponential Backoff And Jitter", 2015). `backon` adds its jitter on top of the delay, which
//! leaves the first half of each interval empty, so the delays are ours and the loop is its.
//!
//! Repeat everything that failed. A refusal stays one, and only what is idempotent may be repeated
//! at all: after a timeout the effect may have happened. Whoever calls says which errors may pass.

use std::future::Future;
use std::time::Duration;

use backon::{BackoffBuilder, Retryable};
use rand::RngExt;

use super::{Deadline, RetryBudget};

/// What an error says about another attempt.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Again {
    /// It would fail in the same way, or do harm.
    Never,
    /// It may succeed.
    Maybe,
    /// It may succeed after this time (`Retry-After`), and not before.
    After(Duration),
}

/// How often, and how far apart.
#[derive(Debug, Clone, Copy)]
pub struct RetrySettings {
    /// In all, default 3; 0 counts as 1.
    pub attempts: u32,
    /// The ceiling of the first wait, default 100 ms; it doubles each time.
    pub base: Duration,
    /// The highest ceiling, default 5 s. What `Again::After` asks for may be longer.
    pub limit: Duration,
}

impl Default for RetrySettings {
    fn default() -> Self {
        Self {
            attempts: 3,
            base: Duration::from_millis(100),
            limit: Duration::from_secs(5),
        }
    }
}

/// The waits between attempts, each drawn between nothing and its ceiling.
#[derive(Debug, Clone)]
pub struct FullJitter {
    left: u32,
    ceiling: Duration,
    limit: Duration,
}

impl BackoffBuilder for RetrySettings {
    type Backoff = FullJitter;

    fn build(self) -> FullJitter {
        FullJitter {
            left: self.attempts.saturating_sub(1),
            ceiling: self.base.min(self.limit),
            limit: self.limit,
        }
    }
}

impl Iterator for FullJitter {
    type Item = Duration;

    fn next(&mut self) -> Option<Duration> {
        self.left = self.left.checked_sub(1)?;
        let wait = self.ceiling.mul_f64(rand::rng().random());
        self.ceiling = self.ceiling.saturating_mul(2).min(self.limit);
        Some(wait)
    }
}

/// Calls `call` until it succeeds, or fails in a way that `judge` calls final, or the attempts, the
/// budget or the time are used up.
///
/// The deadline is that of the work this is called in: an attempt that would begin after it is not
/// waited for.
///
/// # Errors
/// That of the last attempt.
///
/// # Cancel safety
/// As that of `call`: the attempt in hand is dropped.
pub async fn retry<T, E, F, Fut>(
    settings: RetrySettings,
    budget: &RetryBudget,
    judge: impl Fn(&E) -> Again,
    call: F,
) -> Result<T, E>
where
    F: FnMut() -> Fut,
    Fut: Future<Output = Result<T, E>>,
{
    budget.deposit();
    let judge = &judge;
    call.retry(settings)
        .when(|error| judge(error) != Again::Never)
        .adjust(|error, wait| {
            let wait = match judge(error) {
                Again::After(asked) => wait?.max(asked),
                Again::Never | Again::Maybe => wait?,
            };
            let is_in_time = Deadline::current().is_none_or(|deadline| deadline.remaining() > wait);
            // Asked last: what it takes is spent.
            (is_in_time && budget.withdraw()).then_some(wait)
        })
        .await
}
