//! One call: what was done about it, and what its caller was told. The two are independent, which
//! is the whole point of a fake: a charge can happen without its answer arriving.

use std::sync::{
    Arc,
    atomic::{AtomicBool, Ordering},
};

use http::{Method, StatusCode};
use serde_json::Value;
use tokio::sync::watch;

use super::{Answer, Request, Service};
use crate::History;

/// What became of a call, from its caller's side.
///
/// ```text
/// Running → Held
/// Running, Held → Answered, Refused, Broken, HungUp
/// ```
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Fate {
    /// It has arrived and nothing is decided, e.g. because the weather delays it.
    Running,
    /// A trap has caught it.
    Held,
    /// The service's answer was handed to the connection, with this status. Whether it was heard
    /// is something that no server knows.
    Answered(StatusCode),
    /// It was refused with this status.
    Refused(StatusCode),
    /// Its connection was reset without an answer.
    Broken,
    /// The caller went away before it was told anything.
    HungUp,
}

impl Fate {
    /// Whether the step from here to `next` is one of those listed above.
    pub fn may_become(self, next: Fate) -> bool {
        use Fate::{Answered, Broken, Held, HungUp, Refused, Running};
        matches!(
            (self, next),
            (Running, Held) | (Running | Held, Answered(_) | Refused(_) | Broken | HungUp)
        )
    }
}

/// What is known of one call.
#[derive(Debug, Clone, PartialEq)]
pub struct CallRecord {
    /// Its number among all calls of this fake, from 1, in the order of arrival.
    pub number: u64,
    /// Its method.
    pub method: Method,
    /// Its path, without a query.
    pub path: String,
    /// Its `Idempotency-Key`.
    pub key: Option<String>,
    /// Its body, or `null` if that is no JSON.
    pub body: Value,
    /// What the service did and would answer, if it has acted, whether or not the caller heard.
    pub acted: Option<Answer>,
    /// What became of it, from its caller's side.
    pub fate: Fate,
}

/// What to tell a caller.
#[derive(Clone, Copy)]
pub(super) enum Decision {
    Answer,
    Refuse(StatusCode),
    Break,
}

/// What the connection has to do.
#[derive(Clone)]
pub(super) enum Reply {
    Send(Answer),
    Reset,
}

struct State {
    fate: Fate,
    acted: Option<Answer>,
    /// Set by the first decision; later ones change nothing. A caller that hung up may still be
    /// decided about: the service acts, and the answer is lost.
    reply: Option<Reply>,
}

/// A call, shared by its connection, the record, and whoever has caught it.
pub(super) struct Call {
    pub(super) request: Request,
    subject: String,
    introduced: AtomicBool,
    service: Arc<dyn Service>,
    // The history at arrival: what happens to a call later belongs to the check that made it.
    history: History,
    pulse: Arc<watch::Sender<()>>,
    state: watch::Sender<State>,
}

impl Call {
    pub(super) fn new(
        request: Request,
        service: Arc<dyn Service>,
        history: History,
        pulse: Arc<watch::Sender<()>>,
    ) -> Self {
        let subject = subject(service.as_ref(), &request);
        Self {
            request,
            subject,
            introduced: AtomicBool::new(false),
            service,
            history,
            pulse,
            state: watch::Sender::new(State {
                fate: Fate::Running,
                acted: None,
                reply: None,
            }),
        }
    }

    pub(super) fn record(&self) -> CallRecord {
        let state = self.state.borrow();
        CallRecord {
            number: self.request.number(),
            method: self.request.method().clone(),
            path: self.request.path().to_owned(),
            key: self.request.key(),
            body: self.request.body().clone(),
            acted: state.acted.clone(),
            fate: state.fate,
        }
    }

    /// Marks it as caught by a trap.
    pub(super) fn hold(&self) {
        self.change(|state| {
            if self.step(state, Fate::Held) {
                self.note(": held");
            }
        });
    }

    /// Lets the service act, once; returns what it answers.
    pub(super) fn act(&self) -> Answer {
        let mut answer = None;
        self.change(|state| answer = Some(self.act_in(state)));
        answer.expect("the change above ran")
    }

    /// Tells the caller, unless it has been told; acts before if that is what is told.
    pub(super) fn decide(&self, decision: Decision) {
        self.change(|state| {
            if state.reply.is_some() {
                return;
            }
            let was_held = state.fate == Fate::Held;
            let had_acted = state.acted.is_some();
            let (reply, fate, note) = match decision {
                Decision::Answer => {
                    let answer = self.act_in(state);
                    let status = answer.status();
                    // Without a trap the line about the act says it all.
                    let note = was_held.then(|| ": answered".to_owned());
                    (Reply::Send(answer), Fate::Answered(status), note)
                }
                Decision::Refuse(status) => {
                    let note = format!(": refused {}{}", status.as_u16(), although(had_acted));
                    let refusal = Answer::refusal(status);
                    (Reply::Send(refusal), Fate::Refused(status), Some(note))
                }
                Decision::Break => {
                    let note = format!(": connection broken{}", although(had_acted));
                    (Reply::Reset, Fate::Broken, Some(note))
                }
            };
            state.reply = Some(reply);
            if self.step(state, fate) {
                note.iter().for_each(|note| self.note(note));
            } else if state.acted.is_some() {
                self.note(": answer lost, the caller had hung up");
            }
        });
    }

    /// The caller has gone. If it was told, or is being told, that changes nothing.
    pub(super) fn hang_up(&self) {
        self.change(|state| {
            if self.step(state, Fate::HungUp) {
                self.note(": the caller hung up");
            }
        });
    }

    pub(super) fn is_open(&self) -> bool {
        matches!(self.state.borrow().fate, Fate::Running | Fate::Held)
    }

    /// Waits until the caller has hung up or was told.
    pub(super) async fn closed(&self) {
        self.wait_for(|state| !matches!(state.fate, Fate::Running | Fate::Held))
            .await;
    }

    /// Waits until something is decided.
    pub(super) async fn reply(&self) -> Reply {
        self.wait_for(|state| state.reply.is_some()).await;
        let reply = self.state.borrow().reply.clone();
        reply.expect("a reply, once set, stays")
    }

    async fn wait_for(&self, done: impl FnMut(&State) -> bool) {
        self.state
            .subscribe()
            .wait_for(done)
            .await
            .expect("the sender is part of self");
    }

    /// All changes go through here; the state's lock is held, so that of two who act, or decide,
    /// at once one is first, and the history says so in the same order.
    fn change(&self, change: impl FnOnce(&mut State)) {
        self.state.send_modify(change);
        self.pulse.send_replace(());
    }

    fn act_in(&self, state: &mut State) -> Answer {
        state
            .acted
            .get_or_insert_with(|| {
                let answer = self.service.act(&self.request);
                self.note(&format!(" → {}", answer.line()));
                answer
            })
            .clone()
    }

    /// Goes on to `next` if that is a legal step; says whether it was.
    fn step(&self, state: &mut State, next: Fate) -> bool {
        let legal = state.fate.may_become(next);
        if legal {
            state.fate = next;
        }
        legal
    }

    /// The first line about a call says what was asked, the others only its number.
    fn note(&self, what: &str) {
        let line = match self.introduced.swap(true, Ordering::Relaxed) {
            false => format!("{}{what}", self.subject),
            true => format!("call {}{what}", self.request.number()),
        };
        self.history.note(self.service.actor(), line);
    }
}

/// `call 3, charge 12.50 EUR for pay-7, key k-1`.
fn subject(service: &dyn Service, request: &Request) -> String {
    const SHOWN: usize = 16;
    let what = service.describe(request);
    let number = request.number();
    match request.key() {
        _ if !service.knows_keys() => format!("call {number}, {what}"),
        Some(key) if key.chars().count() > SHOWN => {
            let start: String = key.chars().take(SHOWN / 2).collect();
            format!("call {number}, {what}, key {start}…")
        }
        Some(key) => format!("call {number}, {what}, key {key}"),
        None => format!("call {number}, {what}, no key"),
    }
}

fn although(had_acted: bool) -> &'static str {
    if had_acted { " after the effect" } else { "" }
}
