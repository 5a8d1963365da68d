//! How many calls may be repeats: a share of all calls, not a number for each.
//!
//! # The obvious design, and how it fails
//!
//! "Three attempts." When a dependency is down all calls fail, so it gets three times its load at
//! the moment at which it can bear least; with three layers that each try three times, 27 times.
//! A limit for one call does not see the others. A budget does: each call adds a fraction of a
//! token, each repeat takes a whole one, so at a ratio of 0.1 an outage costs the dependency a tenth
//! more and not twice more (Site Reliability Engineering, chapter 22, "per-client retry budget";
//! Finagle's `RetryBudget`).
//!
//! `tower::retry::budget::TpsBudget` is not used: it rounds the ratio to 1/n, so that 0.6 allows as
//! many repeats as calls; it checks and takes in two steps, so that callers at once overdraw it; and
//! it panics on settings that it does not like.

use std::sync::{Mutex, PoisonError};
use std::time::Duration;

use tokio::time::Instant;

use super::Refused;

/// How much of a budget there is.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct BudgetSettings {
    /// Repeats for each call, default 0.1.
    pub ratio: f64,
    /// Repeats each second beyond that, default 1, so that a service with few calls may repeat at
    /// all.
    pub min_per_second: f64,
    /// The most that is saved up, default 20: a long quiet time must not pay for a storm.
    pub capacity: f64,
}

impl Default for BudgetSettings {
    fn default() -> Self {
        Self {
            ratio: 0.1,
            min_per_second: 1.0,
            capacity: 20.0,
        }
    }
}

/// A bucket of repeats, shared by all calls to one dependency. It begins full.
#[derive(Debug)]
pub struct RetryBudget {
    settings: BudgetSettings,
    bucket: Mutex<Bucket>,
}

#[derive(Debug)]
struct Bucket {
    tokens: f64,
    filled_at: Instant,
}

impl RetryBudget {
    /// # Errors
    /// `Unusable`: a setting is negative or no number, or the bucket holds less than one token.
    pub fn new(settings: BudgetSettings) -> Result<Self, Refused> {
        let BudgetSettings {
            ratio,
            min_per_second,
            capacity,
        } = settings;
        let is_sane = |number: f64| number.is_finite() && number >= 0.0;
        if ![ratio, min_per_second, capacity].into_iter().all(is_sane) || capacity < 1.0 {
            return Err(Refused::Unusable(
                "a retry budget takes numbers from 0, and a capacity of at least 1",
            ));
        }
        let bucket = Bucket {
            tokens: capacity,
            filled_at: Instant::now(),
        };
        Ok(Self {
            settings,
            bucket: Mutex::new(bucket),
        })
    }

    /// A call is made for the first time.
    pub fn deposit(&self) {
        self.change(self.settings.ratio);
    }

    /// Whether one more repeat is to be had; if so it is taken.
    #[must_use]
    pub fn withdraw(&self) -> bool {
        self.change(-1.0)
    }

    /// One step under one lock: two callers never take the same token.
    fn change(&self, by: f64) -> bool {
        // Nothing under the lock can panic and leave it half done.
        let mut bucket = self.bucket.lock().unwrap_or_else(PoisonError::into_inner);
        let now = Instant::now();
        let elapsed: Duration = now.saturating_duration_since(bucket.filled_at);
        let earned = elapsed.as_secs_f64() * self.settings.min_per_second;
        bucket.filled_at = now;
        bucket.tokens = (bucket.tokens + earned).min(self.settings.capacity);
        // Ten deposits of 0.1 are a hair less than 1.
        if bucket.tokens + by < -1e-9 {
            return false;
        }
        bucket.tokens = (bucket.tokens + by).clamp(0.0, self.settings.capacity);
        true
    }
}
