//! Where a claim begins to look.
//!
//! Always at the beginning would be right, and slow: what is done stays in the index until vacuum
//! may remove it, and while somebody holds a long snapshot it may not. Each claim would walk over
//! all that was done since (797 → 517 jobs/s in one published run, and falling).
//!
//! So a claim begins a little behind the highest position that was claimed, and a *sweep* begins at
//! the floor. What can appear behind the cursor?
//!
//! - A message whose publisher drew its position early and committed late. Within `LAG` the next
//!   claim sees it, after that the next sweep.
//! - A message whose lease ran out, or that was released: it keeps its position. The next sweep.
//!
//! The floor may rise to the lowest position that is there only when no transaction can still add a
//! lower one: when all that were running as we looked have ended, which is when the oldest running
//! transaction is younger than the look. Commit order is not the order of positions.

use std::collections::VecDeque;
use std::time::{Duration, Instant};

/// How far a claim begins behind the highest position that was claimed.
const LAG: Duration = Duration::from_millis(100);

/// Positions are remembered at this distance.
const STEP: Duration = Duration::from_millis(10);

/// Now and then a sweep begins at zero all the same: a transaction has no number in the instant
/// between drawing a position and writing its first row, and could be overlooked.
const WHOLE: Duration = Duration::from_secs(60);

/// Where claims and sweeps begin.
#[derive(Debug)]
pub(super) struct Cursor {
    floor: i64,
    /// What the floor becomes when every transaction below this number has ended.
    candidate: Option<(i64, i64)>,
    /// What was reached when, oldest first.
    reached: VecDeque<Reached>,
    /// The highest that is older than `LAG`.
    settled: i64,
    highest: i64,
    swept: Option<Instant>,
    whole: Instant,
}

/// The highest position of a step.
#[derive(Debug)]
struct Reached {
    began: Instant,
    last: Instant,
    position: i64,
}

impl Cursor {
    pub(super) fn new(now: Instant) -> Self {
        Self {
            floor: 0,
            candidate: None,
            reached: VecDeque::new(),
            settled: 0,
            highest: 0,
            swept: None,
            whole: now,
        }
    }

    /// A claim looks above this position.
    pub(super) fn claim_from(&mut self, now: Instant) -> i64 {
        while let Some(oldest) = self.reached.front() {
            if now.duration_since(oldest.last) < LAG {
                break;
            }
            self.settled = oldest.position;
            self.reached.pop_front();
        }
        self.settled.max(self.floor)
    }

    /// A claim got messages up to this position.
    pub(super) fn claimed(&mut self, highest: i64, now: Instant) {
        if highest <= self.highest {
            return;
        }
        self.highest = highest;
        match self.reached.back_mut() {
            Some(step) if now.duration_since(step.began) < STEP => {
                step.last = now;
                step.position = highest;
            }
            _ => self.reached.push_back(Reached {
                began: now,
                last: now,
                position: highest,
            }),
        }
    }

    /// Whether a sweep is due.
    pub(super) fn must_sweep(&self, now: Instant, interval: Duration) -> bool {
        self.swept
            .is_none_or(|swept| now.duration_since(swept) >= interval)
    }

    /// Something was put back where it was: the next claim is a sweep.
    pub(super) fn put_back(&mut self) {
        self.swept = None;
    }

    /// A sweep begins: it looks above this position.
    pub(super) fn sweep_from(&mut self, now: Instant) -> i64 {
        self.swept = Some(now);
        if now.duration_since(self.whole) >= WHOLE {
            self.whole = now;
            self.floor = 0;
            self.candidate = None;
        }
        self.floor
    }

    /// What a look at the lowest position found, and the oldest running and the next transaction of
    /// that look.
    pub(super) fn looked(&mut self, lowest: Option<i64>, oldest: i64, next: i64) {
        if let Some((floor, before)) = self.candidate {
            if oldest < before {
                return;
            }
            self.floor = self.floor.max(floor);
        }
        // What is there must stay above the floor, so that sweeps see it.
        let floor = lowest.map_or(self.highest, |lowest| lowest - 1);
        self.candidate = Some((floor, next));
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const MS: Duration = Duration::from_millis(1);

    #[test]
    fn a_claim_begins_behind_what_was_reached_a_while_ago() {
        let start = Instant::now();
        let mut cursor = Cursor::new(start);
        assert_eq!(cursor.claim_from(start), 0);
        cursor.claimed(100, start);
        cursor.claimed(200, start + MS * 50);
        assert_eq!(cursor.claim_from(start + MS * 99), 0);
        assert_eq!(cursor.claim_from(start + MS * 100), 100);
        assert_eq!(cursor.claim_from(start + MS * 149), 100);
        assert_eq!(cursor.claim_from(start + MS * 150), 200);
    }

    #[test]
    fn many_claims_are_remembered_in_steps_and_never_passed_early() {
        let start = Instant::now();
        let mut cursor = Cursor::new(start);
        for n in 0..10_000_u32 {
            let now = start + Duration::from_micros(100) * n;
            cursor.claimed(i64::from(n) + 1, now);
            let from = cursor.claim_from(now);
            let settled = i64::from(n) + 1 - 1000;
            assert!(from <= settled.max(0), "{from} at {n}");
            assert!(cursor.reached.len() < 20, "{}", cursor.reached.len());
        }
        assert!(cursor.claim_from(start + Duration::from_secs(1)) > 8_500);
    }

    #[test]
    fn the_floor_waits_for_every_transaction_that_ran() {
        let now = Instant::now();
        let mut cursor = Cursor::new(now);
        cursor.claimed(500, now);
        // Transaction 7 is running and may yet add position 3.
        cursor.looked(Some(400), 7, 10);
        cursor.looked(Some(450), 7, 20);
        assert_eq!(cursor.sweep_from(now), 0);
        // It has ended: what was there at the first look is the floor.
        cursor.looked(Some(460), 12, 30);
        assert_eq!(cursor.sweep_from(now), 399);
        cursor.looked(None, 30, 31);
        assert_eq!(cursor.sweep_from(now), 459);
        cursor.looked(None, 31, 31);
        assert_eq!(cursor.sweep_from(now), 500);
    }

    #[test]
    fn once_a_minute_a_sweep_sees_everything() {
        let now = Instant::now();
        let mut cursor = Cursor::new(now);
        cursor.looked(Some(100), 1, 1);
        cursor.looked(Some(100), 1, 1);
        assert_eq!(cursor.sweep_from(now), 99);
        assert_eq!(cursor.sweep_from(now + WHOLE), 0);
    }
}
