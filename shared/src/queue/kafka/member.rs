//! A member of a group: what it owns, and the one way in which that is committed.
//!
//! Two threads meet here: the one that polls (see `poll`) brings messages and changes of ownership;
//! callers take and settle. Everything is in memory under one lock that is never held over I/O; what
//! has changed is then committed, for all callers at once (as databases do it: group commit).

use std::sync::{Arc, Mutex, MutexGuard, PoisonError, Weak};
use std::time::{Duration, Instant};

use rdkafka::consumer::{BaseConsumer, CommitMode, Consumer as _};
use rdkafka::error::RDKafkaErrorCode as Code;
use rdkafka::{Offset, TopicPartitionList};
use tokio::sync::{Notify, watch};

use super::blocking;
use super::error::{sorted, unavailable};
use super::holdings::{Changed, Holdings};
use super::marks::Marks;
use super::place::Place;
use super::poll::Context;
use super::record::{Taken, now_ms};
use super::window::Window;
use crate::queue::{Delivery, QueueError, Receipt};

/// How long a commit that the coordinator puts off is tried again.
const COMMIT_LIMIT: Duration = Duration::from_secs(15);

/// How long a partition that goes to somebody else waits for what is being worked on.
const HANDOVER_LIMIT: Duration = Duration::from_secs(1);

pub(super) struct Member {
    topic: String,
    pub(super) group: String,
    prefetch: usize,
    state: Mutex<State>,
    /// Something can be handed out, or has ended.
    pub(super) wake: Notify,
    /// One commit at a time. Whoever takes partitions away holds it too, so that no commit of ours
    /// is under way when somebody else's may begin.
    turn: Arc<tokio::sync::Mutex<()>>,
    phase: watch::Sender<Phase>,
}

/// `Joining → Member → Ended`, or `Joining → Ended`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Phase {
    Joining,
    Member,
    Ended,
}

struct State {
    holdings: Holdings,
    leaving: bool,
    deaf: bool,
    trouble: Option<String>,
    client: Weak<BaseConsumer<Context>>,
}

impl Member {
    pub(super) fn new(topic: &str, group: &str, prefetch: u16) -> Arc<Self> {
        let state = State {
            holdings: Holdings::new(),
            leaving: false,
            deaf: false,
            trouble: None,
            client: Weak::new(),
        };
        Arc::new(Self {
            topic: topic.to_owned(),
            group: group.to_owned(),
            prefetch: usize::from(prefetch.max(1)),
            state: Mutex::new(state),
            wake: Notify::new(),
            turn: Arc::default(),
            phase: watch::Sender::new(Phase::Joining),
        })
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    pub(super) fn topic(&self) -> &str {
        &self.topic
    }

    // ------------------------------------------------------------------ what the caller's side asks

    /// Takes up to `max` that are due, in memory: they still have to be committed.
    pub(super) fn take(&self, max: usize) -> Vec<(Place, Delivery)> {
        self.lock().holdings.take(max, now_ms())
    }

    /// Puts back what was taken and never reached anybody.
    pub(super) fn untake(&self, places: impl Iterator<Item = Place>) {
        self.lock().holdings.untake(places);
        self.wake.notify_waiters();
    }

    /// Settles in memory what `settle` says true to: its place, or `None` if its lease was lost.
    pub(super) fn settle(
        &self,
        receipt: &Receipt,
        settle: impl FnOnce(&mut Window<Taken>, i64, i64) -> bool,
    ) -> Option<Place> {
        self.lock().holdings.settle(receipt, settle)
    }

    /// The message and attempts behind a receipt that still holds.
    pub(super) fn held(&self, receipt: &Receipt) -> Option<(Taken, u32)> {
        self.lock().holdings.held(receipt)
    }

    /// Commits what has changed. Which of `places` belong to an ownership that ended before: what
    /// was done for them did not count.
    ///
    /// Cancel safe: a commit that was begun is made all the same.
    pub(super) async fn commit(
        self: &Arc<Self>,
        places: Vec<Place>,
    ) -> Result<Vec<Place>, QueueError> {
        if places.is_empty() {
            return Ok(places);
        }
        let deadline = tokio::time::Instant::now() + COMMIT_LIMIT;
        loop {
            // The turn is given back between attempts: whoever takes partitions away needs it.
            let turn = Arc::clone(&self.turn).lock_owned().await;
            let (member, asked) = (Arc::clone(self), places.clone());
            let attempt = blocking(move || {
                let _turn = turn;
                member.try_to_commit(&asked)
            });
            match attempt.await? {
                Ok(lost) => return Ok(lost),
                Err(error) if tokio::time::Instant::now() > deadline => return Err(error),
                // Nothing tells when the group has sorted itself out.
                Err(_) => tokio::time::sleep(Duration::from_millis(20)).await,
            }
        }
    }

    /// The inner error is one that passes.
    fn try_to_commit(
        &self,
        places: &[Place],
    ) -> Result<Result<Vec<Place>, QueueError>, QueueError> {
        let (client, changed, lost) = {
            let state = self.lock();
            (
                state.client.upgrade(),
                state.holdings.changed(),
                state.holdings.lost(places),
            )
        };
        if changed.is_empty() || lost.len() == places.len() {
            return Ok(Ok(lost));
        }
        let client = client.ok_or(QueueError::Closed { what: "consumer" })?;
        let list = self.list(&changed)?;
        let error = match client.commit(&list, CommitMode::Sync) {
            Ok(()) => {
                let mut state = self.lock();
                state.holdings.committed(&changed);
                state.trouble = None;
                return Ok(Ok(lost));
            }
            Err(error) => error,
        };
        // While the group sorts itself out nobody knows yet whose the partition will be. If it
        // stays ours the commit is made afterwards; if not, the ownership ends and it is lost.
        let passes = matches!(
            error.rdkafka_error_code(),
            Some(
                Code::RebalanceInProgress
                    | Code::IllegalGeneration
                    | Code::UnknownMemberId
                    | Code::CoordinatorLoadInProgress
                    | Code::NotCoordinator
                    | Code::CoordinatorNotAvailable
                    | Code::WaitingForCoordinator
                    | Code::AssignmentLost
                    // A connection broke. To commit the same twice does no harm.
                    | Code::BrokerTransportFailure
                    | Code::OperationTimedOut
                    | Code::RequestTimedOut
            )
        );
        match passes {
            true => Ok(Err(sorted(&error))),
            false => Err(sorted(&error)),
        }
    }

    fn list(&self, changed: &[Changed]) -> Result<TopicPartitionList, QueueError> {
        let mut list = TopicPartitionList::with_capacity(changed.len());
        for changed in changed {
            let mut element = list.add_partition(&self.topic, changed.partition);
            let set = element.set_offset(Offset::Offset(changed.marks.base));
            set.map_err(|error| sorted(&error))?;
            element.set_metadata(changed.marks.text());
        }
        Ok(list)
    }

    /// When to look again although nobody wakes us.
    pub(super) fn next_due(&self) -> Option<Duration> {
        let due_ms = self.lock().holdings.next_due_ms()?;
        Some(Duration::from_millis(due_ms.saturating_sub(now_ms())))
    }

    pub(super) fn stop_receiving(&self) {
        self.lock().deaf = true;
        self.wake.notify_waiters();
    }

    pub(super) fn is_deaf(&self) -> bool {
        self.lock().deaf
    }

    /// Closed, or out of the group for good, and why.
    pub(super) fn check(&self) -> Result<(), QueueError> {
        let state = self.lock();
        match (&state.trouble, state.leaving) {
            (Some(trouble), true) => Err(unavailable(trouble.clone())),
            (None, true) => Err(QueueError::Closed { what: "consumer" }),
            _ => Ok(()),
        }
    }

    /// What is wrong with the connection, if anything is.
    pub(super) fn trouble(&self) -> Option<String> {
        self.lock().trouble.clone()
    }

    /// Waits until the group has let us in.
    pub(super) async fn joined(&self, limit: Duration) -> Result<(), QueueError> {
        let mut phase = self.phase.subscribe();
        let joined = phase.wait_for(|phase| *phase != Phase::Joining);
        match tokio::time::timeout(limit, joined).await {
            Ok(_) => self.check(),
            Err(_) => {
                let trouble = self.trouble();
                let trouble = trouble.unwrap_or_else(|| format!("not in the group in {limit:?}"));
                Err(unavailable(trouble))
            }
        }
    }

    /// Asks the thread that polls to leave the group and end.
    pub(super) fn begin_to_leave(&self) {
        self.lock().leaving = true;
        self.wake.notify_waiters();
    }

    /// Leaves the group.
    pub(super) async fn leave(&self) {
        self.begin_to_leave();
        let mut phase = self.phase.subscribe();
        // An error would mean that the sender is gone, and that is in `self`.
        let _ = phase.wait_for(|phase| *phase == Phase::Ended).await;
    }

    /// Forgets what was read: it was purged.
    pub(super) fn purge(&self) {
        self.lock().holdings.purge();
    }

    // ---------------------------------------------------------- what the thread that polls reports

    pub(super) fn connected(&self, client: &Arc<BaseConsumer<Context>>) {
        self.lock().client = Arc::downgrade(client);
    }

    pub(super) fn is_leaving(&self) -> bool {
        self.lock().leaving
    }

    pub(super) fn read(&self, partition: i32, offset: i64, taken: Taken) {
        let mut state = self.lock();
        state.trouble = None;
        let ours = taken.only.as_ref().is_none_or(|only| *only == self.group);
        if state.holdings.read(partition, offset, taken, ours) {
            drop(state);
            self.wake.notify_waiters();
        }
    }

    /// Partitions to read no further for now, and others to go on with.
    pub(super) fn flow(&self) -> (Vec<i32>, Vec<i32>) {
        self.lock().holdings.flow(self.prefetch)
    }

    pub(super) fn assigned(&self, partitions: Vec<(i32, Option<Marks>)>) {
        let mut state = self.lock();
        state.holdings.add(partitions);
        state.trouble = None;
    }

    /// The group has decided about us.
    pub(super) fn settled_in(&self) {
        self.phase.send_if_modified(|phase| {
            let joining = *phase == Phase::Joining;
            if joining {
                *phase = Phase::Member;
            }
            joining
        });
    }

    /// Partitions go to somebody else: what is being worked on gets a moment, then the last state
    /// is committed with `commit`, and they are ours no more.
    pub(super) fn revoked(&self, partitions: &[i32], commit: impl FnOnce(&TopicPartitionList)) {
        let deadline = Instant::now() + HANDOVER_LIMIT;
        loop {
            let mut state = self.lock();
            let busy = state.holdings.let_go(partitions);
            if busy == 0 || state.leaving || Instant::now() > deadline {
                break;
            }
            drop(state);
            std::thread::sleep(Duration::from_millis(5));
        }
        let _turn = self.turn.blocking_lock();
        let mut changed = self.lock().holdings.changed();
        changed.retain(|changed| partitions.contains(&changed.partition));
        if !changed.is_empty()
            && let Ok(list) = self.list(&changed)
        {
            commit(&list);
        }
        self.lock().holdings.remove(partitions);
        self.wake.notify_waiters();
    }

    pub(super) fn report(&self, trouble: String) {
        self.lock().trouble = Some(trouble);
    }

    /// Gives up membership: better no consumer than one that has forgotten what it must not repeat.
    pub(super) fn fail(&self, trouble: String) {
        let mut state = self.lock();
        state.trouble = Some(trouble);
        state.leaving = true;
    }

    pub(super) fn ended(&self) {
        let mut state = self.lock();
        state.leaving = true;
        state.holdings.clear();
        drop(state);
        self.phase.send_replace(Phase::Ended);
        self.wake.notify_waiters();
    }
}
