//! How long to wait before the next attempt.
//!
//! Exponential, so that a service that is down is left alone; with full jitter, so that those who
//! failed together do not come back together (M. Brooker, "Exponential Backoff and Jitter", AWS
//! Architecture Blog, 2015).

use std::time::Duration;

use rand::RngExt;

/// Before attempt n + 1 a random time between nothing and `base` · 2ⁿ⁻¹ is waited, at most `cap`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Backoff {
    /// The ceiling after the first failure.
    pub base: Duration,
    /// The highest ceiling.
    pub cap: Duration,
    /// Without jitter the wait is the ceiling itself: for tests, and for brokers whose delays are
    /// steps anyway.
    pub jitter: bool,
}

impl Default for Backoff {
    /// From 1 s to 5 minutes, with jitter.
    fn default() -> Self {
        Self::exponential(Duration::from_secs(1), Duration::from_secs(300))
    }
}

impl Backoff {
    /// With full jitter.
    pub fn exponential(base: Duration, cap: Duration) -> Self {
        Self {
            base,
            cap,
            jitter: true,
        }
    }

    /// The same without jitter.
    #[must_use]
    pub fn without_jitter(mut self) -> Self {
        self.jitter = false;
        self
    }

    /// The longest wait after the n-th failure, which counts from 1.
    pub fn ceiling(&self, n: u32) -> Duration {
        let factor = 2_u32.saturating_pow(n.saturating_sub(1));
        self.base.saturating_mul(factor).min(self.cap)
    }

    /// The wait after the n-th failure.
    pub fn after(&self, n: u32) -> Duration {
        match self.jitter {
            true => self.ceiling(n).mul_f64(rand::rng().random()),
            false => self.ceiling(n),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_ceiling_doubles_up_to_the_cap() {
        let backoff = Backoff::exponential(Duration::from_millis(10), Duration::from_millis(75));
        let ceilings = [1, 2, 3, 4, 5, u32::MAX].map(|n| backoff.ceiling(n).as_millis());
        assert_eq!(ceilings, [10, 20, 40, 75, 75, 75]);
    }

    #[test]
    fn the_wait_is_spread_between_nothing_and_the_ceiling() {
        let backoff = Backoff::exponential(Duration::from_secs(1), Duration::from_secs(8));
        let waits: Vec<_> = (0..400).map(|_| backoff.after(3)).collect();
        assert!(waits.iter().all(|wait| *wait <= Duration::from_secs(4)));
        // 400 draws miss a quarter of the range with a chance of 1 in 10⁵⁰.
        for quarter in 0..4 {
            let hit = |wait: &&Duration| wait.as_secs().min(3) == quarter;
            assert!(waits.iter().any(|wait| hit(&wait)), "none at {quarter} s");
        }
        assert_eq!(backoff.without_jitter().after(3), Duration::from_secs(4));
    }
}
