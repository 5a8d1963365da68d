//! Running checks: many labs side by side, a verdict for each.

use std::{
    sync::Arc,
    time::{Duration, Instant},
};

use futures::{Stream, StreamExt, stream};

use crate::{
    grounds::Grounds,
    history::History,
    implementation::{Implementation, StartError},
    kata::{Check, Given, Kata},
    lab::{Lab, Plan},
    limits::Limits,
    place::Place,
    replica::Lease,
    verdict::{Finding, Judged, Stop, Verdict},
};

/// The last resort against a check that hangs; it never makes a `Failed`.
const CHECK_DEADLINE: Duration = Duration::from_secs(400);

/// One run of the tool over one kata: its services, its seed, its limits.
pub struct Session {
    kata: Arc<Kata>,
    grounds: Arc<Grounds>,
    seed: u64,
    start_timeout: Duration,
    // Shared by all sessions that differ in their seed only.
    limits: Arc<Limits>,
    standing: Option<Arc<Place>>,
}

/// The verdict of one check on one implementation.
#[derive(Debug, Clone)]
pub struct Outcome {
    /// The step that the check belongs to, from 1.
    pub step: usize,
    /// The check.
    pub check: Check,
    /// What came of it.
    pub verdict: Verdict,
    /// How long it took.
    pub took: Duration,
}

impl Session {
    /// A session on these grounds.
    pub fn new(kata: Arc<Kata>, grounds: Arc<Grounds>, seed: u64, start_timeout: Duration) -> Self {
        Self {
            limits: Arc::new(Limits::of(&kata)),
            kata,
            grounds,
            seed,
            start_timeout,
            standing: None,
        }
    }

    /// The same, for a program that somebody else runs in this place: one check at a time.
    pub(crate) fn in_place(self, place: Arc<Place>) -> Self {
        Self {
            limits: Arc::new(Limits::one_at_a_time()),
            standing: Some(place),
            ..self
        }
    }

    /// The same with limits of its own: for who waits and hardly computes, so that nobody stands in
    /// line behind it.
    pub(crate) fn apart(&self) -> Self {
        Self {
            limits: Arc::new(Limits::of(&self.kata)),
            ..self.with_seed(self.seed)
        }
    }

    /// The same with another seed. Both keep to the same limits together, so that repeats may
    /// overlap.
    pub fn with_seed(&self, seed: u64) -> Self {
        Self {
            kata: self.kata.clone(),
            grounds: self.grounds.clone(),
            seed,
            start_timeout: self.start_timeout,
            limits: self.limits.clone(),
            standing: self.standing.clone(),
        }
    }

    /// The kata.
    pub fn kata(&self) -> &Kata {
        &self.kata
    }

    /// The seed of this run.
    pub fn seed(&self) -> u64 {
        self.seed
    }

    /// The services of this run.
    pub fn grounds(&self) -> &Arc<Grounds> {
        &self.grounds
    }

    /// Sets up a lab for an implementation.
    ///
    /// # Errors
    /// [`Stop::Inconclusive`] if the services do not play along.
    pub async fn lab(&self, implementation: &Implementation, purpose: &str) -> Judged<Lab> {
        self.lab_for(self.plan(implementation, purpose), None).await
    }

    /// The same with a replica of the database, which may have to be started and to be waited for.
    ///
    /// # Errors
    /// As [`Session::lab`]; [`Stop::NotRun`] if there can be no replica here.
    pub async fn lab_with_replica(
        &self,
        implementation: &Implementation,
        purpose: &str,
    ) -> Judged<Lab> {
        let lease = self.lease().await?;
        self.lab_for(self.plan(implementation, purpose), lease)
            .await
    }

    /// A replica, unless the place that stands has one.
    async fn lease(&self) -> Judged<Option<Arc<Lease>>> {
        match &self.standing {
            None => self.grounds.pair().await.map(Some),
            Some(place) if place.lease.is_some() => Ok(None),
            Some(_) => {
                Stop::not_run("it needs a replica, and the open environment could not start one")
            }
        }
    }

    async fn lab_for(&self, plan: Plan, lease: Option<Arc<Lease>>) -> Judged<Lab> {
        match (&self.standing, lease) {
            (Some(place), None) => Ok(Lab::on(place.clone(), plan, History::new())),
            (_, lease) => Lab::open(&self.grounds, plan, lease).await,
        }
    }

    fn plan(&self, implementation: &Implementation, purpose: &str) -> Plan {
        Plan {
            implementation: implementation.clone(),
            given: Given::clone(&self.kata.given),
            check: purpose.to_owned(),
            seed: self.seed,
            start_timeout: self.start_timeout,
        }
    }

    /// Starts the implementation once, so that what cannot start is said once, and not by every
    /// check.
    ///
    /// # Errors
    /// Why it did not come up.
    pub async fn preflight(&self, implementation: &Implementation) -> Result<(), Preflight> {
        let lab = self
            .lab(implementation, "preflight")
            .await
            .map_err(|stop| Preflight {
                why: match *stop {
                    Stop::Inconclusive(why) | Stop::NotRun(why) => StartError::Ended(why),
                    Stop::NotStarted(what) => StartError::NotStarted(what),
                    Stop::Failed { saw, .. } => StartError::Ended(saw),
                },
                output: Vec::new(),
            })?;
        let started = lab.try_start_for_preflight().await;
        lab.close().await;
        started.map_err(|(why, output)| Preflight { why, output })
    }

    /// Judges an implementation by the checks given; the outcomes come in the order of the checks.
    pub fn judge<'a>(
        &'a self,
        implementation: &'a Implementation,
        checks: Vec<(usize, Check)>,
    ) -> impl Stream<Item = Outcome> + 'a {
        let slots = checks.len().max(1);
        stream::iter(checks)
            .map(move |(step, check)| self.check(implementation, step, check))
            .buffered(slots)
    }

    /// Judges an implementation by one check.
    pub async fn check(
        &self,
        implementation: &Implementation,
        step: usize,
        check: Check,
    ) -> Outcome {
        let turn = self.limits.line_up(&check);
        // Before its turn: whoever waits for a replica keeps nobody from running who needs none.
        let lease = match check.replica {
            true => self.lease().await,
            false => Ok(None),
        };
        let _turn = match &lease {
            Ok(Some(_)) => turn.comes_with_replica().await,
            _ => turn.comes(implementation).await,
        };
        let began = Instant::now();
        let plan = self.plan(implementation, check.name);
        let verdict = self.verdict(plan, &check, lease).await;
        Outcome {
            step,
            check,
            verdict,
            took: began.elapsed(),
        }
    }

    async fn verdict(
        &self,
        plan: Plan,
        check: &Check,
        lease: Judged<Option<Arc<Lease>>>,
    ) -> Verdict {
        let lab = async { self.lab_for(plan, lease?).await };
        let lab = match lab.await {
            Ok(lab) => lab,
            Err(stop) => return without_lab(*stop),
        };
        // On a task of its own, so that a mistake of the check's own (a panic) is contained.
        let running = tokio::spawn(check.run(lab.clone()));
        let abort = AbortOnDrop(running.abort_handle());
        let verdict = match tokio::time::timeout(CHECK_DEADLINE, running).await {
            Ok(Ok(Ok(note))) => Verdict::Passed(note),
            Ok(Ok(Err(stop))) => with_lab(*stop, &lab),
            Ok(Err(error)) => Verdict::Inconclusive(format!("the check itself failed: {error}")),
            Err(_) => {
                drop(abort);
                let limit = CHECK_DEADLINE.as_secs();
                Verdict::Inconclusive(format!("the check was not done after {limit} s"))
            }
        };
        lab.close().await;
        verdict
    }
}

/// Ends a task with whoever waits for it: a check must not go on in somebody's place after the
/// person has gone.
struct AbortOnDrop(tokio::task::AbortHandle);

impl Drop for AbortOnDrop {
    fn drop(&mut self) {
        self.0.abort();
    }
}

/// An implementation that does not come up.
#[derive(Debug)]
pub struct Preflight {
    /// Why.
    pub why: StartError,
    /// The last lines that it wrote.
    pub output: Vec<String>,
}

fn without_lab(stop: Stop) -> Verdict {
    match stop {
        Stop::NotStarted(what) => Verdict::NotStarted(what),
        Stop::NotRun(why) => Verdict::NotRun(why),
        Stop::Inconclusive(why) | Stop::Failed { saw: why, .. } => Verdict::Inconclusive(why),
    }
}

fn with_lab(stop: Stop, lab: &Lab) -> Verdict {
    match stop {
        Stop::Failed { did, expected, saw } => {
            let (history, output) = lab.evidence();
            Verdict::Failed(Box::new(Finding {
                did,
                expected,
                saw,
                settings: lab.settings(),
                history: history.events(),
                output,
            }))
        }
        other => without_lab(other),
    }
}
