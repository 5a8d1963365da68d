//! Holding a program at a point of its way: what the enumerations of crash points and of
//! interleavings stand on.

use std::{fmt, future::Future, pin::pin};

use crate::{
    instance::Instance,
    lab::Lab,
    proxy::{Point, RoundTrip, Trap, Unsprung},
    verdict::Judged,
};

/// How many scenes of one enumeration are played once more because their points were other ones. A
/// program that connects for each request would otherwise be played for ever.
const SPARE: usize = 8;

/// Where a program is held on its way.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct HoldPoint {
    /// The round trip, counted from 1 over all connections of its instance.
    pub round_trip: u64,
    /// Where in it.
    pub point: Point,
}

impl fmt::Display for HoldPoint {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.point {
            Point::Early => write!(f, "before round trip {}", self.round_trip),
            Point::Unsynced => write!(f, "within round trip {}, not committed", self.round_trip),
            Point::Late => write!(f, "after round trip {}", self.round_trip),
        }
    }
}

/// Whether a program came to its point.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Reached {
    /// It was held there.
    Held,
    /// The round trip came and has no such point, or its connection ended: the next may have one.
    NoSuchPoint,
    /// The story ended before: there are no more points of this kind.
    Beyond,
}

/// Which scenes are to be played again.
///
/// Points are numbers of round trips, and every scene is meant to have the same. A pool that opens a
/// connection within a scene, because the last one has not come back to it yet, moves all numbers of
/// that scene, and one that breaks takes its point along: what was meant would be tried in no scene.
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

/// A trap set for a program that asked nothing of the database then.
pub(crate) struct Snare<'a> {
    stage: &'a Lab,
    program: &'a Instance,
    at: HoldPoint,
    /// How many sessions the program had begun before.
    starts: u64,
    pub(crate) trap: Trap,
}

impl Snare<'_> {
    /// Plays a story until it has brought the program to the point, or has ended. Where the round
    /// trip has no such point, it is played to its end.
    pub(crate) async fn reached(&self, story: impl Future<Output = Judged>) -> Judged<Reached> {
        let mut story = pin!(story);
        let sprung = tokio::select! {
            biased;
            sprung = self.trap.sprung() => sprung,
            ended = &mut story => return ended.map(|()| Reached::Beyond),
        };
        let is_lost = sprung == Err(Unsprung::Lost);
        if is_lost || self.program.front().starts() > self.starts {
            self.stage.points_have_moved();
        }
        let Ok(held) = sprung else {
            // Nothing of such a round trip was held back.
            return story.await.map(|()| Reached::NoSuchPoint);
        };
        let statement = held.statement;
        let statement = statement.unwrap_or_else(|| "the start of a session".to_owned());
        self.stage.note(format!("holds {}: {statement}", self.at));
        Ok(Reached::Held)
    }
}

impl Lab {
    /// Sets a trap for what the program does next. What it still has to ask after an earlier
    /// request is waited for, and not counted.
    pub(crate) async fn snare<'a>(&'a self, program: &'a Instance, at: HoldPoint) -> Snare<'a> {
        let front = program.front();
        front.quiet().await;
        Snare {
            stage: self,
            program,
            at,
            starts: front.starts(),
            trap: front.arm(RoundTrip(at.round_trip), at.point),
        }
    }

    /// Plays a story until it has brought the program to a point, and holds it there until the trap
    /// is dropped. The story stays where it is, to be gone on with or not. `None` if it ended first.
    ///
    /// Round trips are counted from the first one of the story.
    ///
    /// # Errors
    /// What the story returned.
    pub async fn hold(
        &self,
        program: &Instance,
        at: HoldPoint,
        story: impl Future<Output = Judged>,
    ) -> Judged<Option<Trap>> {
        let snare = self.snare(program, at).await;
        Ok(match snare.reached(story).await? {
            Reached::Held => Some(snare.trap),
            Reached::NoSuchPoint | Reached::Beyond => None,
        })
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
