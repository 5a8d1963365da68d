//! Holding a program at a point of its way: what the enumerations of crash points and of
//! interleavings stand on.

use std::future::Future;

use crate::{
    instance::Instance,
    lab::Lab,
    proxy::{Point, RoundTrip, Trap},
    verdict::Judged,
};

/// How many scenes of one enumeration are played once more because their points were other ones. A
/// program that connects for each request would otherwise be played for ever.
const SPARE: usize = 8;

/// Which scenes are to be played again.
///
/// Points are numbers of round trips, and every scene is meant to have the same. A pool that opens a
/// connection within a scene, because the last one has not come back to it yet, moves all numbers of
/// that scene: the point that was meant would be tried in none.
#[derive(Debug)]
pub(crate) struct Again<P> {
    points: Vec<P>,
    spare: usize,
}

impl<P> Again<P> {
    pub(crate) fn new() -> Self {
        Self {
            points: Vec::new(),
            spare: SPARE,
        }
    }

    /// Whether the scene of a point is played once more.
    pub(crate) fn put(&mut self, point: P) -> bool {
        let is_left = self.spare > 0;
        if is_left {
            self.spare -= 1;
            self.points.push(point);
        }
        is_left
    }

    pub(crate) fn take(&mut self) -> Option<P> {
        self.points.pop()
    }

    pub(crate) fn cancel(&mut self) {
        self.points.clear();
        self.spare = 0;
    }
}

impl Lab {
    /// Plays a story until it has brought the program to a point of a round trip, and holds it there
    /// until the trap is dropped. The story stays where it is, to be gone on with or not. `None` if
    /// it ended first.
    ///
    /// Round trips are counted from the first one of the story: what the program still has to ask
    /// after an earlier request is waited for.
    ///
    /// # Errors
    /// What the story returned.
    pub async fn hold(
        &self,
        program: &Instance,
        (round_trip, point): (u64, Point),
        story: impl Future<Output = Judged>,
    ) -> Judged<Option<Trap>> {
        let front = program.front();
        front.quiet().await;
        let before = front.connections();
        let trap = front.arm(RoundTrip(round_trip), point);
        let held = tokio::select! {
            biased;
            held = trap.sprung() => held.ok(),
            ended = story => { ended?; None }
        };
        let Some(held) = held else {
            return Ok(None);
        };
        if front.connections() > before {
            self.points_have_moved();
        }
        let statement = held
            .statement
            .unwrap_or_else(|| "the start of a session".to_owned());
        self.note(format!("holds round trip {round_trip}: {statement}"));
        Ok(Some(trap))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_point_is_tried_again_and_not_for_ever() {
        let mut again = Again::new();
        let mut tried = 0;
        assert!(again.put(7));
        while let Some(point) = again.take() {
            tried += 1;
            assert_eq!(again.put(point), tried < SPARE);
        }
        assert_eq!(tried, SPARE);
    }
}
