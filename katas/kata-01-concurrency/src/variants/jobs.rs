//! The jobs that wait, and the count of what became of them.

use std::{
    collections::VecDeque,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
};

use tokio::sync::Notify;

use crate::contract::JobStats;

/// A line of jobs with a bound. Cheap to clone.
///
/// A deque and its counts under one mutex, and not a channel with counters beside it: so the
/// numbers add up whenever somebody looks.
#[derive(Debug, Clone)]
pub struct Line(Arc<Inner>);

#[derive(Debug)]
struct Inner {
    limit: usize,
    state: Mutex<State>,
    arrived: Notify,
}

#[derive(Debug, Default)]
struct State {
    waiting: VecDeque<String>,
    stats: JobStats,
}

impl Line {
    /// At most so many wait.
    pub fn bounded(limit: usize) -> Self {
        Self(Arc::new(Inner {
            limit,
            state: Mutex::default(),
            arrived: Notify::new(),
        }))
    }

    /// Queues a job if there is room; `false` if there is none.
    pub fn try_push(&self, job: String) -> bool {
        let mut state = self.state();
        let room = state.waiting.len() < self.0.limit;
        if room {
            state.waiting.push_back(job);
            self.0.arrived.notify_one();
        }
        room
    }

    /// A job was refused.
    pub fn refuse(&self) {
        self.state().stats.refused += 1;
    }

    /// Waits for the next job, which is running from now on.
    pub async fn next(&self) -> String {
        loop {
            if let Some(job) = self.try_next() {
                return job;
            }
            // A notice without a listener is kept, so a job that came in between is not slept
            // through.
            self.0.arrived.notified().await;
        }
    }

    fn try_next(&self) -> Option<String> {
        let mut state = self.state();
        let job = state.waiting.pop_front()?;
        state.stats.running += 1;
        // One notice may stand for two jobs; whoever took one lets the next look.
        if !state.waiting.is_empty() {
            self.0.arrived.notify_one();
        }
        Some(job)
    }

    /// A job that was running has ended.
    pub fn done(&self) {
        let mut state = self.state();
        state.stats.running -= 1;
        state.stats.done += 1;
    }

    /// What became of all jobs, at one moment.
    pub fn stats(&self) -> JobStats {
        let state = self.state();
        JobStats {
            queued: state.waiting.len() as u64,
            ..state.stats
        }
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.0.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn the_numbers_add_up_and_the_bound_holds() {
        let line = Line::bounded(2);
        let took: Vec<_> = ["a", "b", "c"]
            .map(|job| line.try_push(job.to_owned()))
            .into();
        assert_eq!(took, [true, true, false]);
        line.refuse();
        assert_eq!(line.next().await, "a");
        line.done();
        assert_eq!(line.next().await, "b");
        let expected = JobStats {
            queued: 0,
            running: 1,
            done: 1,
            refused: 1,
        };
        assert_eq!(line.stats(), expected);
    }

    #[tokio::test]
    async fn everybody_who_waits_gets_a_job() {
        let line = Line::bounded(4);
        let waiting: Vec<_> = (0..4)
            .map(|_| {
                let line = line.clone();
                tokio::spawn(async move { line.next().await })
            })
            .collect();
        tokio::task::yield_now().await;
        for job in ["a", "b", "c", "d"] {
            assert!(line.try_push(job.to_owned()));
        }
        for one in waiting {
            one.await.unwrap();
        }
    }
}
