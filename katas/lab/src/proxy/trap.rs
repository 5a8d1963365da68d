//! A trap: it waits at one point of one round trip and holds the connection that reaches it.
//!
//! Its states:
//! - armed → held: the point was reached (it has *sprung*);
//! - armed → no such point: the round trip came and has no such point;
//! - armed → lost: its connection ended within the round trip, before the point;
//! - armed or held → let go.
//!
//! Nothing leads back, and what a trap has caught stays known after it was let go.

use std::sync::{Arc, Weak};

use tokio::sync::watch;

use super::front::Shared;

/// The k-th round trip since a trap was armed, counted from 1 over all connections of a front.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct RoundTrip(pub u64);

/// Where in a round trip a connection is held.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Point {
    /// Nothing of it has reached the server, but what the program has prepared and flushed before.
    Early,
    /// All but its Sync has reached the server, and the server has worked on it: the statement has
    /// run, holds its locks and is not committed. Only the extended protocol has such a point.
    Unsynced,
    /// The server has done it, and nothing of the answer has reached the program.
    ///
    /// Where the program must hear something before it can go on (an authentication request, the
    /// server's readiness to copy, the answer to its own Flush), that part does reach it.
    Late,
}

/// What a trap holds.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Held {
    /// The number of the connection in its front, from 1.
    pub connection: u64,
    /// The server process of the session, once the server has named it.
    pub backend_pid: Option<i32>,
    /// The statement in one line, as far as it is known at this point.
    pub statement: Option<String>,
}

/// Why a trap will never hold anything.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum Unsprung {
    /// The round trip came and has no such point: a simple query or the start of a session has no
    /// statement that has run and is not yet committed.
    #[error("this round trip has no such point")]
    NoSuchPoint,
    /// The connection or the front ended before the point was reached.
    #[error("the connection ended before the point was reached")]
    Lost,
    /// It was let go before the point was reached.
    #[error("the trap was let go before the point was reached")]
    LetGo,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Phase {
    Armed,
    Held,
    Over(Unsprung),
}

#[derive(Debug)]
struct State {
    phase: Phase,
    caught: Option<Held>,
}

/// What a trap and the connection that it may hold share.
#[derive(Debug)]
pub(super) struct Core {
    /// The front's own number of the round trip, which never starts again.
    pub(super) target: u64,
    pub(super) point: Point,
    state: watch::Sender<State>,
}

impl Core {
    pub(super) fn new(target: u64, point: Point) -> Arc<Self> {
        let state = State {
            phase: Phase::Armed,
            caught: None,
        };
        Arc::new(Self {
            target,
            point,
            state: watch::Sender::new(state),
        })
    }

    /// The point is reached: from now on its connection waits for [`Core::released`].
    pub(super) fn spring(&self, held: Held) {
        self.state.send_if_modified(|state| {
            let springs = state.phase == Phase::Armed;
            if springs {
                state.phase = Phase::Held;
                state.caught = Some(held);
            }
            springs
        });
    }

    /// The point will not be reached; a trap that holds something or is over stays as it is.
    pub(super) fn miss(&self, why: Unsprung) {
        self.state.send_if_modified(|state| {
            let misses = state.phase == Phase::Armed;
            if misses {
                state.phase = Phase::Over(why);
            }
            misses
        });
    }

    fn let_go(&self) {
        self.state.send_if_modified(|state| {
            let lets_go = !matches!(state.phase, Phase::Over(_));
            if lets_go {
                state.phase = Phase::Over(Unsprung::LetGo);
            }
            lets_go
        });
    }

    /// Whether a connection has to stop here.
    pub(super) fn is_live(&self) -> bool {
        !matches!(self.state.borrow().phase, Phase::Over(_))
    }

    /// Whether it has sprung, whatever became of it since.
    pub(super) fn has_caught(&self) -> bool {
        self.state.borrow().caught.is_some()
    }

    /// Waits until no connection has to stop here any more.
    pub(super) async fn released(&self) {
        // The sender lives in `self`, so the channel cannot close under this wait.
        let _ = self
            .state
            .subscribe()
            .wait_for(|state| matches!(state.phase, Phase::Over(_)))
            .await;
    }
}

/// A trap at one point of one round trip. Dropping it lets go of what it holds and disarms it.
#[derive(Debug)]
#[must_use = "a trap that is dropped is disarmed"]
pub struct Trap {
    core: Arc<Core>,
    front: Weak<Shared>,
}

impl Trap {
    pub(super) fn new(core: Arc<Core>, front: Weak<Shared>) -> Self {
        Self { core, front }
    }

    /// Waits until the trap holds its connection, and tells what it holds.
    ///
    /// It waits for ever if the program never comes to this round trip, so it is to be raced with
    /// the program's answer: the answer first means that the enumeration is at its end. The trap
    /// may also have sprung at an earlier time, and have been let go since.
    ///
    /// A trap at [`Point::Unsynced`] springs when the server has answered everything but the
    /// Sync. A statement that waits for a lock has not run: it is held back already, but the trap
    /// has not sprung.
    ///
    /// # Errors
    /// [`Unsprung`] says why it never will.
    ///
    /// # Cancel safety
    /// It changes nothing, and may be dropped and called again.
    pub async fn sprung(&self) -> Result<Held, Unsprung> {
        let mut state = self.core.state.subscribe();
        let state = state.wait_for(|state| state.phase != Phase::Armed).await;
        // The sender lives in the core that `self` holds.
        let state = state.expect("a trap outlives the waits for it");
        match (&state.caught, state.phase) {
            (Some(held), _) => Ok(held.clone()),
            (None, Phase::Over(why)) => Err(why),
            (None, Phase::Armed | Phase::Held) => Err(Unsprung::Lost),
        }
    }

    /// Whether the trap has sprung, whatever became of it since.
    pub fn has_sprung(&self) -> bool {
        self.core.has_caught()
    }

    /// The held connection goes on; a trap that has not sprung never will.
    pub fn let_go(&self) {
        self.core.let_go();
        if let Some(front) = self.front.upgrade() {
            front.disarm(&self.core);
        }
    }
}

impl Drop for Trap {
    fn drop(&mut self) {
        self.let_go();
    }
}
