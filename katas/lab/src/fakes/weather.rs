//! What happens to the calls that no trap catches.

use std::time::Duration;

use http::StatusCode;
use rand::{RngExt, SeedableRng, rngs::StdRng};

/// A standing order, in force until the next one.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub enum Weather {
    /// Every call is acted on and answered at once.
    #[default]
    Fine,
    /// Nothing is done; the caller is told so with this status.
    Refuse(StatusCode),
    /// Nothing is done; the connection is reset and the caller is told nothing.
    Break,
    /// What was asked is done; then the connection is reset and nobody hears of it.
    ActThenBreak,
    /// Every call waits, is then acted on *even if its caller has gone by then*, and answered.
    Delay {
        /// The shortest wait.
        at_least: Duration,
        /// The longest wait.
        at_most: Duration,
        /// Decides the waits, in the order in which the calls arrive.
        seed: u64,
    },
}

/// What the weather does to one call.
pub(super) enum Course {
    Answer,
    Refuse(StatusCode),
    Break,
    ActThenBreak,
    Wait(Duration),
}

/// The weather in force, with the dice that its delays are thrown with.
pub(super) struct Sky {
    weather: Weather,
    dice: StdRng,
}

impl Sky {
    pub(super) fn new(weather: Weather) -> Self {
        let seed = match weather {
            Weather::Delay { seed, .. } => seed,
            // Never thrown.
            _ => 0,
        };
        let dice = StdRng::seed_from_u64(seed);
        Self { weather, dice }
    }

    pub(super) fn next(&mut self) -> Course {
        match self.weather {
            Weather::Fine => Course::Answer,
            Weather::Refuse(status) => Course::Refuse(status),
            Weather::Break => Course::Break,
            Weather::ActThenBreak => Course::ActThenBreak,
            Weather::Delay {
                at_least, at_most, ..
            } => {
                // `max`: an upside-down range would panic in the dice.
                let range = at_least..=at_most.max(at_least);
                Course::Wait(self.dice.random_range(range))
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn waits(at_least: u64, at_most: u64, seed: u64) -> Vec<Duration> {
        let mut sky = Sky::new(Weather::Delay {
            at_least: Duration::from_millis(at_least),
            at_most: Duration::from_millis(at_most),
            seed,
        });
        let wait = |_| match sky.next() {
            Course::Wait(time) => time,
            _ => panic!("a delay that is none"),
        };
        (0..50).map(wait).collect()
    }

    #[test]
    fn the_same_seed_gives_the_same_delays_and_another_gives_others() {
        assert_eq!(waits(5, 90, 7), waits(5, 90, 7));
        assert_ne!(waits(5, 90, 7), waits(5, 90, 8));
    }

    #[test]
    fn delays_stay_in_their_range_even_if_it_is_upside_down() {
        let (low, high) = (Duration::from_millis(5), Duration::from_millis(90));
        assert!(
            waits(5, 90, 7)
                .iter()
                .all(|wait| (low..=high).contains(wait))
        );
        assert!(waits(90, 5, 7).iter().all(|wait| *wait == high));
    }
}
