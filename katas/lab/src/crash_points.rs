//! Crash-point enumeration: the same scene again and again, each time with the crash one step
//! later, until the crash no longer happens before the answer.

use std::{
    fmt,
    future::Future,
    sync::{Mutex, MutexGuard, PoisonError},
};

use crate::{
    hold::{Again, HoldPoint},
    instance::Instance,
    lab::Lab,
    proxy::Point,
    verdict::{Judged, Stop},
};

/// How many scenes are played side by side: each waits for a lease most of its time.
const LANES: usize = 4;

/// A program that makes more round trips than this for one request is in a loop of its own.
const MOST_ROUND_TRIPS: u64 = 200;

/// Where the instance crashes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum CrashPoint {
    /// At a round trip to the database: before it reached the server, or after the server has done
    /// it.
    Database(HoldPoint),
    /// At its call to a fake.
    Fake(FakePoint),
}

/// Where a call to a fake is when its caller crashes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum FakePoint {
    /// It was received and will never be acted on.
    NotActed,
    /// It was acted on and not answered.
    Acted,
    /// It was not answered, and is acted on after the crash.
    ActedLater,
}

impl FakePoint {
    /// All three.
    pub const ALL: [FakePoint; 3] = [FakePoint::NotActed, FakePoint::Acted, FakePoint::ActedLater];
}

impl fmt::Display for CrashPoint {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            CrashPoint::Database(at) => at.fmt(f),
            CrashPoint::Fake(FakePoint::NotActed) => {
                f.write_str("at a call that is never acted on")
            }
            CrashPoint::Fake(FakePoint::Acted) => f.write_str("at a call that was acted on"),
            CrashPoint::Fake(FakePoint::ActedLater) => {
                f.write_str("at a call that is acted on after the crash")
            }
        }
    }
}

/// How many points there were. The numbers differ from run to run, since pools open connections
/// when they like: they are shown and never compared.
#[derive(Debug, Default, Clone, Copy)]
struct Survey {
    early: usize,
    late: usize,
    fakes: usize,
}

impl Survey {
    fn count(&mut self, point: CrashPoint) {
        match point {
            CrashPoint::Fake(_) => self.fakes += 1,
            CrashPoint::Database(at) if at.point == Point::Early => self.early += 1,
            CrashPoint::Database(_) => self.late += 1,
        }
    }
}

/// Which points are left to try.
#[derive(Debug)]
struct Agenda {
    next: [u64; 2],
    /// The first round trip that was not there, once one is known.
    end: [u64; 2],
    fakes: Vec<FakePoint>,
    again: Again<CrashPoint>,
}

const POINTS: [Point; 2] = [Point::Early, Point::Late];

impl Agenda {
    /// Without fakes there is no call to crash at.
    fn new(has_fakes: bool) -> Self {
        Self {
            next: [1; 2],
            end: [MOST_ROUND_TRIPS; 2],
            fakes: match has_fakes {
                true => FakePoint::ALL.to_vec(),
                false => Vec::new(),
            },
            again: Again::new(),
        }
    }

    fn take(&mut self) -> Option<CrashPoint> {
        if let Some(fake) = self.fakes.pop() {
            return Some(CrashPoint::Fake(fake));
        }
        if let Some(again) = self.again.take() {
            return Some(again);
        }
        // Early and late in turn, so that a mistake at the first statements shows soon.
        let which = (0..POINTS.len())
            .filter(|which| self.next[*which] < self.end[*which])
            .min_by_key(|which| self.next[*which])?;
        let round_trip = self.next[which];
        self.next[which] += 1;
        Some(CrashPoint::Database(HoldPoint {
            round_trip,
            point: POINTS[which],
        }))
    }

    fn ends_at(&mut self, at: HoldPoint) {
        let which = usize::from(at.point == Point::Late);
        self.end[which] = self.end[which].min(at.round_trip);
    }

    fn cancel(&mut self) {
        self.end = [0; 2];
        self.fakes.clear();
        self.again.cancel();
    }
}

/// Plays a scene at every crash point: at each round trip early and late, and at the call to a
/// fake if the kata gives any. Returns how many points there were, as a note.
///
/// The scene gets a running instance, crashes it, starts it again, and gives back what must still
/// hold after one more restart; `None` if the crash did not come before the answer. `still` is
/// asked after that restart, which is the one of the next scene where there is one. Several scenes
/// are played side by side, each in a lab of its own, and one after the other in the same lab, so
/// each needs new ids.
///
/// # Errors
/// What the first failing scene returned; [`Stop::Inconclusive`] if a crash that must happen never
/// did.
pub async fn at_every_crash_point<T, Scene, Played, Still, Kept>(
    lab: &Lab,
    scene: Scene,
    still: Still,
) -> Judged<String>
where
    Scene: Fn(Lab, Instance, CrashPoint) -> Played,
    Played: Future<Output = Judged<Option<T>>>,
    Still: Fn(Lab, Instance, T) -> Kept,
    Kept: Future<Output = Judged>,
{
    let has_fakes = lab.place().fakes().next().is_some();
    let agenda = Mutex::new(Agenda::new(has_fakes));
    let survey = Mutex::new(Survey::default());
    let play = async |stage: &Lab| -> Judged {
        let program = stage.start().await?;
        let mut before = None;
        loop {
            let next = locked(&agenda).take();
            let Some(point) = next else {
                break;
            };
            let began = stage.history().mark();
            stage.note(format!("the crash will come {point}"));
            let played = scene(stage.clone(), program.clone(), point).await?;
            let again = stage.had_moved_points() && locked(&agenda).again.put(point);
            match (played, point) {
                (Some(keepsake), _) => {
                    if !again {
                        locked(&survey).count(point);
                    }
                    if let Some(before) = before.replace(keepsake) {
                        still(stage.clone(), program.clone(), before).await?;
                    }
                    stage.history().forget_before(began);
                }
                (None, CrashPoint::Fake(_)) => {
                    return Stop::inconclusive(format!("the crash {point} never happened"));
                }
                (None, CrashPoint::Database(_)) if again => {}
                (None, CrashPoint::Database(at)) => locked(&agenda).ends_at(at),
            }
        }
        if let Some(before) = before {
            program.crash().await?;
            program.restart().await?;
            still(stage.clone(), program, before).await?;
        }
        Ok(())
    };
    let lane = async |number: usize| -> Judged {
        let stage = lab.scene(number).await?;
        let played = play(&stage).await;
        if played.is_err() {
            lab.adopt(&stage);
        }
        stage.close().await;
        played
    };
    // Every lane ends its own scene properly, so that nothing is left in the database; after a
    // failure nobody begins another one.
    let lanes = (1..=LANES).map(async |number| {
        let outcome = lane(number).await;
        if outcome.is_err() {
            locked(&agenda).cancel();
        }
        outcome
    });
    futures::future::join_all(lanes)
        .await
        .into_iter()
        .collect::<Judged<Vec<()>>>()?;
    if locked(&agenda).end.contains(&MOST_ROUND_TRIPS) {
        return Stop::inconclusive(format!(
            "one request made more than {MOST_ROUND_TRIPS} round trips, so not every point was tried"
        ));
    }
    let Survey { early, late, fakes } = *locked(&survey);
    let at_calls = match has_fakes {
        true => format!(", {fakes} at a call"),
        false => String::new(),
    };
    Ok(format!(
        "{} crash points: {early} before and {late} after a round trip{at_calls}",
        early + late + fakes
    ))
}

// Held for a few instructions and never across an await.
fn locked<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}
