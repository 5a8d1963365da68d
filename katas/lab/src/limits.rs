//! How many checks run at once, and which of them have the machine for themselves.

use std::thread::available_parallelism;

use tokio::sync::{RwLock, RwLockReadGuard, RwLockWriteGuard, Semaphore, SemaphorePermit, watch};

use crate::{
    implementation::Implementation,
    kata::{Check, Kata},
};

/// No kata runs more in-process labs at once, on however many cores: each has sessions of the server.
const MOST_LABS: usize = 32;

/// How many labs with programs run at once: starting an interpreter is computing, not waiting.
const PROGRAM_LABS: usize = 8;

/// What all checks of a run share.
///
/// Checks that run beside others go first. Each time that one has to be alone, all others must have
/// ended and none may begin, so those come together once nobody else is left.
#[derive(Debug)]
pub(crate) struct Limits {
    labs: Semaphore,
    program_labs: Semaphore,
    /// How many checks run beside others, or wait to.
    beside_others: watch::Sender<usize>,
    // Checks that are alone take it for writing, all others for reading.
    machine: RwLock<()>,
}

impl Limits {
    /// For a kata on this machine.
    pub(crate) fn of(kata: &Kata) -> Self {
        let cores = available_parallelism().map_or(1, usize::from);
        let labs = kata.labs_per_core.saturating_mul(cores);
        Self::new(labs.clamp(1, MOST_LABS), PROGRAM_LABS)
    }

    /// For a place that there is one of.
    pub(crate) fn one_at_a_time() -> Self {
        Self::new(1, 1)
    }

    fn new(labs: usize, program_labs: usize) -> Self {
        Self {
            labs: Semaphore::new(labs),
            program_labs: Semaphore::new(program_labs),
            beside_others: watch::Sender::new(0),
            machine: RwLock::default(),
        }
    }

    /// From now on, whoever has to be alone waits for this check.
    pub(crate) fn line_up(&self, check: &Check) -> Waiting<'_> {
        let company = (!check.alone).then(|| Company::joins(&self.beside_others));
        Waiting {
            limits: self,
            company,
        }
    }
}

/// A check that wants to run.
pub(crate) struct Waiting<'a> {
    limits: &'a Limits,
    /// None for a check that has to be alone.
    company: Option<Company<'a>>,
}

impl<'a> Waiting<'a> {
    /// Returns when the check may run.
    pub(crate) async fn comes(self, implementation: &Implementation) -> Turn<'a> {
        let labs = match implementation {
            Implementation::InProcess { .. } => &self.limits.labs,
            _ => &self.limits.program_labs,
        };
        self.comes_among(Some(labs)).await
    }

    /// The same for a check that has a replica. There are few of them, and each would stand idle
    /// while its check waits in line; so it is not counted among the labs.
    pub(crate) async fn comes_with_replica(self) -> Turn<'a> {
        self.comes_among(None).await
    }

    async fn comes_among(self, labs: Option<&'a Semaphore>) -> Turn<'a> {
        let Self { limits, company } = self;
        if company.is_none() {
            let mut others = limits.beside_others.subscribe();
            // The sender lives as long as `limits`.
            let _ = others.wait_for(|others| *others == 0).await;
        }
        let slot = match labs {
            // Nobody closes it.
            Some(labs) => labs.acquire().await.ok(),
            None => None,
        };
        let machine = match company {
            Some(_) => Share::Some(limits.machine.read().await),
            None => Share::All(limits.machine.write().await),
        };
        Turn {
            _machine: machine,
            _slot: slot,
            _company: company,
        }
    }
}

/// Held while a check runs.
pub(crate) struct Turn<'a> {
    _machine: Share<'a>,
    _slot: Option<SemaphorePermit<'a>>,
    _company: Option<Company<'a>>,
}

/// How much of the machine a check has.
enum Share<'a> {
    Some(#[expect(dead_code, reason = "held")] RwLockReadGuard<'a, ()>),
    All(#[expect(dead_code, reason = "held")] RwLockWriteGuard<'a, ()>),
}

/// One of those that run beside others, counted as long as it lives.
struct Company<'a>(&'a watch::Sender<usize>);

impl<'a> Company<'a> {
    fn joins(others: &'a watch::Sender<usize>) -> Self {
        others.send_modify(|others| *others += 1);
        Self(others)
    }
}

impl Drop for Company<'_> {
    fn drop(&mut self) {
        self.0.send_modify(|others| *others -= 1);
    }
}

#[cfg(test)]
mod tests {
    use futures::FutureExt;

    use super::*;
    use crate::{Lab, kata::Check};

    fn check() -> Check {
        Check::new("any", "", async |_: Lab| Ok(()))
    }

    fn somewhere() -> Implementation {
        Implementation::Url {
            address: ([127, 0, 0, 1], 1).into(),
        }
    }

    #[tokio::test]
    async fn who_has_to_be_alone_waits_for_all_others_and_then_has_the_machine() {
        let limits = Limits::new(4, 4);
        let program = somewhere();
        let alone = limits.line_up(&check().alone());
        let first = limits.line_up(&check());
        let second = limits.line_up(&check());
        let mut alone = Box::pin(alone.comes(&program));
        assert!((&mut alone).now_or_never().is_none(), "two wait to run");

        let first = first.comes(&program).await;
        let second = second.comes(&program).await;
        drop(first);
        assert!((&mut alone).now_or_never().is_none(), "one runs");

        drop(second);
        let alone = alone.await;
        let late = limits.line_up(&check());
        let mut late = Box::pin(late.comes(&program));
        assert!((&mut late).now_or_never().is_none(), "one is alone");

        drop(alone);
        late.await;
    }

    #[tokio::test]
    async fn who_has_a_replica_does_not_wait_in_line() {
        let limits = Limits::new(1, 1);
        let program = somewhere();
        let _first = limits.line_up(&check()).comes(&program).await;
        let mut second = Box::pin(limits.line_up(&check()).comes(&program));
        assert!((&mut second).now_or_never().is_none(), "one lab at once");

        let with_replica = limits.line_up(&check()).comes_with_replica().await;
        let mut alone = Box::pin(limits.line_up(&check().alone()).comes_with_replica());
        assert!((&mut alone).now_or_never().is_none(), "two run");
        drop(with_replica);
        assert!((&mut alone).now_or_never().is_none(), "one runs");
    }

    #[tokio::test]
    async fn two_that_have_to_be_alone_run_one_after_the_other() {
        let limits = Limits::new(4, 4);
        let program = somewhere();
        let first = limits.line_up(&check().alone()).comes(&program).await;
        let mut second = Box::pin(limits.line_up(&check().alone()).comes(&program));
        assert!((&mut second).now_or_never().is_none());
        drop(first);
        second.await;
    }
}
