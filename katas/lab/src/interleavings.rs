//! Interleaving enumeration: two requests at once, again and again, each time with the first one
//! held one step later while the second runs as far as it can.
//!
//! A race that is left to chance is lost too seldom to prove anything: two hundred random transfers
//! have gone past a deadlock that one held transfer shows each time. Holding the first request at
//! every point makes each of them certain, and only the scene's invariant judges: a design in which
//! the second waits for the first is as right as one in which it is answered and the first repeats
//! its work.

use std::{future::Future, time::Duration};

use crate::{
    client::{NoAnswer, Pending, Reply, Request},
    hold::{Again, HoldPoint, Reached},
    instance::Instance,
    lab::Lab,
    proxy::Point,
    verdict::{Judged, Stop},
};

/// A program that makes more round trips than this for one request is in a loop of its own.
const MOST_ROUND_TRIPS: u64 = 100;

/// How long the first request is held if the second is neither answered nor seen to wait: it may
/// ask again and again without waiting in the server (`nowait`). A program may end an idle
/// transaction after two seconds, so it is never held that long.
const HOLD: Duration = Duration::from_secs(1);

/// Between two looks at whether the second request is through.
const PAUSE: Duration = Duration::from_millis(5);

/// Where the first request is held. A late point would add nothing: the server has done the same
/// as at the next early one.
const POINTS: [Point; 2] = [Point::Early, Point::Unsynced];

/// What came of two requests.
#[derive(Debug, Clone)]
pub struct Played {
    /// The answer to the first, which was held.
    pub first: Result<Reply, NoAnswer>,
    /// The answer to the second.
    pub second: Result<Reply, NoAnswer>,
    /// Whether the first was held.
    pub reached: Reached,
}

/// One scene's two instances, and where the first one's request will be held.
#[derive(Clone)]
pub struct Interleaving {
    /// The instance whose request is held.
    pub first: Instance,
    /// Another one on the same database, so that a lock in memory is no lock.
    pub second: Instance,
    /// Where.
    pub at: HoldPoint,
    stage: Lab,
}

impl Interleaving {
    /// Sends the first request, and the second while it is held; lets go when the second is
    /// answered, or waits in the server for a session of the first instance, or after a second.
    ///
    /// Where the first is never held they are still both sent, one after the other.
    ///
    /// # Errors
    /// [`Stop::NotStarted`] on a 501; [`Stop::Inconclusive`] if the server does not say who waits.
    pub async fn play(&self, first: Request, second: Request) -> Judged<Played> {
        let snare = self.stage.snare(&self.first, self.at).await;
        let mut first = first.spawn();
        let to_its_end = async { first.attempted().await.map(drop) };
        let reached = snare.reached(to_its_end).await?;
        let mut second = second.spawn();
        if reached == Reached::Held {
            self.until_second_is_through(&second).await?;
            self.stage.note("lets it go");
        }
        snare.trap.let_go();
        Ok(Played {
            first: first.attempted().await?,
            second: second.attempted().await?,
            reached,
        })
    }

    /// Waits until the second request is answered or seen to wait, or the time of a hold is up.
    async fn until_second_is_through(&self, second: &Pending) -> Judged {
        let deadline = tokio::time::Instant::now() + HOLD;
        while tokio::time::Instant::now() < deadline
            && !second.is_answered()
            && !is_blocked(&self.stage, &self.second, &self.first).await?
        {
            tokio::time::sleep(PAUSE).await;
        }
        Ok(())
    }
}

/// Whether the server says that a session of `waiting` waits for a lock that one of `holding` has
/// or will get first.
///
/// # Errors
/// [`Stop::Inconclusive`] if the server does not say.
pub async fn is_blocked(lab: &Lab, waiting: &Instance, holding: &Instance) -> Judged<bool> {
    let asked = sqlx::query_scalar(
        "select exists (select from unnest($1::int[]) as waiting (pid)
         where pg_blocking_pids(waiting.pid) && $2::int[])",
    )
    .bind(waiting.front().backend_pids())
    .bind(holding.front().backend_pids())
    .fetch_one(lab.admin())
    .await;
    asked.or_else(|error| Stop::inconclusive(format!("the server does not say who waits: {error}")))
}

/// Which points are left to try, and what the others were.
#[derive(Debug)]
struct Agenda {
    next: [u64; 2],
    /// The first round trip that was not there, once one is known.
    end: [u64; 2],
    held: [usize; 2],
    again: Again<HoldPoint>,
}

impl Agenda {
    fn new() -> Self {
        Self {
            next: [1; 2],
            end: [MOST_ROUND_TRIPS; 2],
            held: [0; 2],
            again: Again::new(),
        }
    }

    fn take(&mut self) -> Option<HoldPoint> {
        if let Some(again) = self.again.take() {
            return Some(again);
        }
        let which = (0..POINTS.len())
            .filter(|which| self.next[*which] < self.end[*which])
            .min_by_key(|which| self.next[*which])?;
        let round_trip = self.next[which];
        self.next[which] += 1;
        Some(HoldPoint {
            round_trip,
            point: POINTS[which],
        })
    }

    fn note(&mut self, at: HoldPoint, reached: Reached) {
        let which = usize::from(at.point == Point::Unsynced);
        match reached {
            Reached::Held => self.held[which] += 1,
            Reached::NoSuchPoint => {}
            Reached::Beyond => self.end[which] = self.end[which].min(at.round_trip),
        }
    }
}

/// Plays a scene with the first request held at every point: at each round trip before anything of
/// it has reached the server, and when all but its Sync has. Returns how many points there were, as
/// a note; the number differs from run to run and is never compared.
///
/// `warm` is called once for each of the two instances, so that connecting does not count as a
/// point. The scene is given both instances and a point; it makes its rows, calls
/// [`Interleaving::play`], judges its invariant and gives back what `play` reached. All scenes share
/// a database, so each needs new ids or puts back what it used; what it asks beside `play` is best
/// asked of the second instance, whose round trips are not counted.
///
/// # Errors
/// What the first failing scene returned; [`Stop::NotRun`] where there can be one instance only;
/// [`Stop::Inconclusive`] if nothing could be held at all.
pub async fn at_every_hold_point<Warm, Warmed, Scene, Acted>(
    lab: &Lab,
    warm: Warm,
    scene: Scene,
) -> Judged<String>
where
    Warm: Fn(Lab, Instance) -> Warmed,
    Warmed: Future<Output = Judged>,
    Scene: Fn(Lab, Interleaving) -> Acted,
    Acted: Future<Output = Judged<Reached>>,
{
    let first = lab.start_as("instance A").await?;
    let second = lab.start_as("instance B").await?;
    warm(lab.clone(), first.clone()).await?;
    warm(lab.clone(), second.clone()).await?;
    let mut agenda = Agenda::new();
    while let Some(at) = agenda.take() {
        let began = lab.history().mark();
        let interleaving = Interleaving {
            first: first.clone(),
            second: second.clone(),
            at,
            stage: lab.clone(),
        };
        let reached = scene(lab.clone(), interleaving).await?;
        if !(lab.had_moved_points() && agenda.again.put(at)) {
            agenda.note(at, reached);
        }
        lab.history().forget_before(began);
    }
    if agenda.end.contains(&MOST_ROUND_TRIPS) {
        return Stop::inconclusive(format!(
            "one request made more than {MOST_ROUND_TRIPS} round trips, so not every point was tried"
        ));
    }
    let [early, unsynced] = agenda.held;
    if early == 0 {
        return Stop::inconclusive("the request made no round trip that could be held");
    }
    Ok(format!(
        "{} hold points: {early} before a round trip, {unsynced} within one",
        early + unsynced
    ))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_kind_of_point_ends_by_itself() {
        let mut agenda = Agenda::new();
        let mut tried = Vec::new();
        while let Some(at) = agenda.take() {
            tried.push((at.round_trip, at.point));
            let last = match at.point {
                Point::Unsynced => 2,
                _ => 3,
            };
            agenda.note(
                at,
                match at.round_trip > last {
                    true => Reached::Beyond,
                    false => Reached::Held,
                },
            );
        }
        assert_eq!(agenda.held, [3, 2]);
        assert_eq!(agenda.end, [4, 3]);
        // In turn, so that a mistake at the first statements shows soon.
        assert_eq!(tried[..2], [(1, Point::Early), (1, Point::Unsynced)]);
    }

    #[test]
    fn a_round_trip_without_the_point_does_not_end_the_enumeration() {
        let mut agenda = Agenda::new();
        let at = HoldPoint {
            round_trip: 1,
            point: Point::Unsynced,
        };
        agenda.note(at, Reached::NoSuchPoint);
        assert_eq!(agenda.end[1], MOST_ROUND_TRIPS);
        assert_eq!(agenda.held[1], 0);
    }
}
