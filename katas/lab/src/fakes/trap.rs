//! Traps catch calls; a caught call does nothing until it is told.

use std::{
    collections::VecDeque,
    sync::{Arc, Weak},
};

use http::StatusCode;
use serde_json::Value;
use tokio::sync::Notify;

use super::{
    Answer, Request,
    call::{Call, Decision},
    fake::Shared,
};

pub(super) type Predicate = Box<dyn Fn(&Request) -> bool + Send + Sync>;

/// A trap as the fake keeps it. Calls wait here, not in a channel: when the trap is dropped, they
/// must be let go under the same lock that could add another.
pub(super) struct Snare {
    pub(super) id: u64,
    pub(super) matches: Predicate,
    pub(super) left: usize,
    pub(super) queue: VecDeque<Caught>,
    pub(super) arrived: Arc<Notify>,
}

/// Catches calls of a fake, in the order of their arrival, until it is dropped.
///
/// Dropping it lets the calls go that it caught and that nobody took out with
/// [`Trap::caught`]: they are answered as if there had been no trap.
#[must_use = "a trap catches only as long as it is kept"]
pub struct Trap {
    pub(super) id: u64,
    pub(super) arrived: Arc<Notify>,
    // Weak: a trap that a check forgot must not keep the fake's memory.
    pub(super) shared: Weak<Shared>,
}

impl Trap {
    /// Waits for the next caught call.
    ///
    /// Waits for ever if none comes, so give it a deadline. Cancel safe: a call that was not
    /// returned is still there for the next caller.
    pub async fn caught(&self) -> Caught {
        loop {
            let mut arrival = std::pin::pin!(self.arrived.notified());
            // Listening before looking, else a call that comes in between is slept through.
            arrival.as_mut().enable();
            if let Some(caught) = self.try_caught() {
                return caught;
            }
            arrival.await;
        }
    }

    /// The next caught call, if there is one already.
    pub fn try_caught(&self) -> Option<Caught> {
        self.shared.upgrade()?.take_caught(self.id)
    }

    /// How many calls are caught and not yet taken out.
    pub fn waiting(&self) -> usize {
        self.shared
            .upgrade()
            .map_or(0, |shared| shared.count_caught(self.id))
    }
}

impl Drop for Trap {
    fn drop(&mut self) {
        if let Some(shared) = self.shared.upgrade() {
            shared.remove_trap(self.id);
        }
    }
}

/// A call that a trap holds. Its caller waits, and so does the service.
///
/// Dropping it answers it, as the service would have done without a trap, *also if the caller
/// has hung up*: a real service does not notice that either. To leave it undone for good,
/// use [`Caught::break_connection`].
#[must_use = "dropping a caught call answers it"]
pub struct Caught {
    call: Arc<Call>,
}

impl Caught {
    pub(super) fn new(call: Arc<Call>) -> Self {
        Self { call }
    }

    /// What was asked.
    pub fn request(&self) -> &Request {
        &self.call.request
    }

    /// Its number among all calls of this fake, from 1.
    pub fn number(&self) -> u64 {
        self.call.request.number()
    }

    /// Its `Idempotency-Key`.
    pub fn key(&self) -> Option<String> {
        self.call.request.key()
    }

    /// Its body, or `null` if that is no JSON.
    pub fn body(&self) -> &Value {
        self.call.request.body()
    }

    /// Lets the service do what was asked, once, and keeps the answer back. Works after the caller
    /// has hung up, too: the crash came first, the charge later.
    pub fn act(&self) -> Answer {
        self.call.act()
    }

    /// Acts, if that has not happened, and sends the answer.
    pub fn answer(self) -> Answer {
        let answer = self.call.act();
        self.call.decide(Decision::Answer);
        answer
    }

    /// Sends this status with a small JSON error (429 and 503 with `Retry-After`) and does nothing.
    ///
    /// After [`Caught::act`] this is a service that lies about what it did, which a contract may
    /// rule out: the payment provider's does.
    pub fn refuse(self, status: StatusCode) {
        self.call.decide(Decision::Refuse(status));
    }

    /// Resets the connection; nothing is sent. Nothing is done either, unless [`Caught::act`] came
    /// before.
    pub fn break_connection(self) {
        self.call.decide(Decision::Break);
    }

    /// Whether the caller still waits.
    pub fn is_open(&self) -> bool {
        self.call.is_open()
    }

    /// Waits until the caller has hung up.
    pub async fn closed(&self) {
        self.call.closed().await;
    }
}

impl Drop for Caught {
    fn drop(&mut self) {
        self.call.decide(Decision::Answer);
    }
}
