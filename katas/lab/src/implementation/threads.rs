//! What a program's threads do with the machine's cores, as the kernel counts it.
//!
//! How long something takes says as much about the machine as about the program. Whether two threads
//! compute at the same time does not: on a busy machine they wait for a core at the same time, and
//! the kernel counts that as well.

use std::{
    collections::HashMap,
    time::{Duration, Instant},
};

/// A thread may sleep so often and still be said to have computed all the time: a collector of
/// garbage stops it now and then, and a lock may be taken for a moment.
const PAUSES: u64 = 2;

/// The kernel counts in ticks of up to 4 ms, so some of the time is missing at either end.
const ALL_THE_TIME: f64 = 0.85;

/// What the threads of a program had done at one moment.
#[derive(Debug, Default)]
pub struct Threads(HashMap<i32, Counts>);

/// What one thread had done.
#[derive(Debug, Clone, Copy)]
struct Counts {
    at: Instant,
    ran: Duration,
    /// Waited for a core.
    waited: Duration,
    /// How often it stopped of its own accord: to sleep, for a lock, for a message.
    paused: u64,
    /// Runs, or would if it had a core.
    wants_a_core: bool,
}

/// What the threads of a program did between two moments.
#[derive(Debug, Clone, Copy, Default)]
pub struct Work {
    /// On so many cores, on average.
    pub ran: f64,
    /// So many waited for a core, on average.
    pub waited: f64,
    /// So many threads computed all the time, or waited for nothing but a core.
    pub without_pause: usize,
}

impl Threads {
    /// For each thread, in how much of these looks it ran or would have if it had had a core; the
    /// busiest comes first.
    pub fn wanting_a_core(looks: &[Self]) -> Vec<f64> {
        let mut times = HashMap::new();
        for (id, counts) in looks.iter().flat_map(|look| &look.0) {
            *times.entry(id).or_insert(0) += u32::from(counts.wants_a_core);
        }
        let mut shares: Vec<_> = times
            .into_values()
            .map(|times| f64::from(times) / looks.len() as f64)
            .collect();
        shares.sort_by(|one, other| other.total_cmp(one));
        shares
    }

    /// What those that were there then and are there now have done between.
    pub fn work_since(&self, then: &Self) -> Work {
        let mut work = Work::default();
        for (id, now) in &self.0 {
            let Some(then) = then.0.get(id) else { continue };
            let window = now.at.saturating_duration_since(then.at).as_secs_f64();
            if window == 0.0 {
                continue;
            }
            let ran = now.ran.saturating_sub(then.ran).as_secs_f64() / window;
            let waited = now.waited.saturating_sub(then.waited).as_secs_f64() / window;
            let paused = now.paused.saturating_sub(then.paused);
            work.ran += ran;
            work.waited += waited;
            work.without_pause += usize::from(ran + waited >= ALL_THE_TIME && paused <= PAUSES);
        }
        work
    }
}

#[cfg(target_os = "linux")]
mod counted {
    use std::{
        net::SocketAddr,
        time::{Duration, Instant},
    };

    use procfs::{
        net::TcpState,
        process::{FDTarget, Process, Task, all_processes},
    };

    use super::{Counts, Threads};

    impl Threads {
        /// Of this process, except the one that asks.
        pub(in super::super) fn of_this_process() -> Option<Self> {
            let asking = rustix::thread::gettid().as_raw_nonzero().get();
            let mut threads = Self::of(&Process::myself().ok()?);
            threads.0.remove(&asking);
            threads.if_counted()
        }

        /// Of all processes of a group.
        pub(in super::super) fn of_group(group: i32) -> Option<Self> {
            let mut threads = Self::default();
            for process in all_processes().ok()?.flatten() {
                if process.pid != myself() && group_of(&process) == Some(group) {
                    threads.0.extend(Self::of(&process).0);
                }
            }
            threads.if_counted()
        }

        /// Of whoever listens there, and of its group.
        pub(in super::super) fn of_listener(address: SocketAddr) -> Option<Self> {
            let sockets = match address {
                SocketAddr::V4(_) => procfs::net::tcp(),
                SocketAddr::V6(_) => procfs::net::tcp6(),
            };
            let listens = sockets.ok()?.into_iter().find(|socket| {
                let at = socket.local_address;
                let is_there = at.ip() == address.ip() || at.ip().is_unspecified();
                socket.state == TcpState::Listen && at.port() == address.port() && is_there
            })?;
            let has_it = |process: &Process| {
                let mut open = process.fd().into_iter().flatten().flatten();
                open.any(|open| matches!(open.target, FDTarget::Socket(it) if it == listens.inode))
            };
            let listener = all_processes().ok()?.flatten().find(has_it)?;
            Self::of_group(group_of(&listener)?)
        }

        /// Without those that end meanwhile.
        fn of(process: &Process) -> Self {
            let tasks = process.tasks().into_iter().flatten().flatten();
            Self(
                tasks
                    .filter_map(|task| Some((task.tid, counts(&task)?)))
                    .collect(),
            )
        }

        /// Where the kernel does not count, there is not a single thread.
        fn if_counted(self) -> Option<Self> {
            (!self.0.is_empty()).then_some(self)
        }
    }

    fn myself() -> i32 {
        rustix::process::getpid().as_raw_nonzero().get()
    }

    fn group_of(process: &Process) -> Option<i32> {
        process.stat().ok().map(|stat| stat.pgrp)
    }

    fn counts(task: &Task) -> Option<Counts> {
        let state = task.stat().ok()?.state;
        let paused = task.status().ok()?.voluntary_ctxt_switches?;
        let times = task.schedstat().ok()?;
        Some(Counts {
            at: Instant::now(),
            ran: Duration::from_nanos(times.sum_exec_runtime),
            waited: Duration::from_nanos(times.run_delay),
            paused,
            wants_a_core: state == 'R',
        })
    }
}

#[cfg(not(target_os = "linux"))]
impl Threads {
    pub(super) fn of_this_process() -> Option<Self> {
        None
    }

    pub(super) fn of_group(_: i32) -> Option<Self> {
        None
    }

    pub(super) fn of_listener(_: std::net::SocketAddr) -> Option<Self> {
        None
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn counts(at: Instant, ran: u64, waited: u64, paused: u64) -> Counts {
        Counts {
            at,
            ran: Duration::from_millis(ran),
            waited: Duration::from_millis(waited),
            paused,
            wants_a_core: true,
        }
    }

    #[test]
    fn who_waits_for_a_core_has_no_pause_and_who_waits_for_a_turn_has() {
        let then = Instant::now();
        let now = then + Duration::from_millis(100);
        let before = Threads((1..=4).map(|id| (id, counts(then, 0, 0, 0))).collect());
        let after = Threads(HashMap::from([
            (1, counts(now, 98, 0, 0)),
            (2, counts(now, 40, 55, 1)),
            // Hands a lock on and on.
            (3, counts(now, 50, 45, 20)),
            // Sleeps.
            (4, counts(now, 30, 0, 1)),
            // Was not there then.
            (5, counts(now, 100, 0, 0)),
        ]));
        let work = after.work_since(&before);
        assert_eq!(work.without_pause, 2);
        assert!((work.ran - 2.18).abs() < 0.01, "{work:?}");
        assert!((work.waited - 1.0).abs() < 0.01, "{work:?}");
    }

    #[test]
    fn the_busiest_thread_comes_first() {
        let now = Instant::now();
        let runs = |of: &[i32]| {
            let counts = |id| Counts {
                wants_a_core: of.contains(&id),
                ..counts(now, 0, 0, 0)
            };
            Threads((1..=3).map(|id| (id, counts(id))).collect())
        };
        let looks = [runs(&[2]), runs(&[2, 3]), runs(&[2]), runs(&[2])];
        assert_eq!(Threads::wanting_a_core(&looks), [1.0, 0.25, 0.0]);
    }
}
