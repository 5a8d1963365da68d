//! What a check says: a verdict, and the finding that explains a failure.

use std::fmt;

use serde::{Deserialize, Serialize};

use crate::history::Event;

/// The outcome of one check of one implementation.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Verdict {
    /// The promise held. The note says what was seen on the way (`27 crash points`).
    Passed(Option<String>),
    /// The promise was broken, and this is the evidence.
    Failed(Box<Finding>),
    /// The code says so itself: a `todo!()` in Rust, a 501 over HTTP.
    NotStarted(String),
    /// The check could not do its own work, so it says nothing about the implementation.
    Inconclusive(String),
    /// The check was not tried: it needs something that this way of running does not offer.
    NotRun(String),
}

/// A verdict without its details; the words are those of `--json`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum VerdictKind {
    /// See [`Verdict::Passed`].
    Passed,
    /// See [`Verdict::Failed`].
    Failed,
    /// See [`Verdict::NotStarted`].
    NotStarted,
    /// See [`Verdict::Inconclusive`].
    Inconclusive,
    /// See [`Verdict::NotRun`].
    NotRun,
}

impl Verdict {
    /// Which of the five it is.
    pub fn kind(&self) -> VerdictKind {
        match self {
            Verdict::Passed(_) => VerdictKind::Passed,
            Verdict::Failed(_) => VerdictKind::Failed,
            Verdict::NotStarted(_) => VerdictKind::NotStarted,
            Verdict::Inconclusive(_) => VerdictKind::Inconclusive,
            Verdict::NotRun(_) => VerdictKind::NotRun,
        }
    }
}

impl VerdictKind {
    /// The mark in front of a check in a list.
    pub fn mark(self) -> char {
        match self {
            VerdictKind::Passed => '✓',
            VerdictKind::Failed => '✗',
            VerdictKind::NotStarted => '○',
            VerdictKind::Inconclusive => '?',
            VerdictKind::NotRun => '–',
        }
    }
}

impl fmt::Display for VerdictKind {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            VerdictKind::Passed => "passed",
            VerdictKind::Failed => "failed",
            VerdictKind::NotStarted => "not started",
            VerdictKind::Inconclusive => "inconclusive",
            VerdictKind::NotRun => "not run",
        })
    }
}

/// Why a check failed: what was done, what the contract promises, what happened instead.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Finding {
    /// What the lab did.
    pub did: String,
    /// What the contract promises in that case.
    pub expected: String,
    /// What came instead.
    pub saw: String,
    /// The variables that mattered, as `NAME=value`.
    pub settings: Vec<String>,
    /// Who did what, when.
    pub history: Vec<Event>,
    /// The last lines that the program wrote, if it is a program.
    pub output: Vec<String>,
}

/// Why a check ended early. It travels as the error of `?`.
#[derive(Debug, Clone)]
pub enum Stop {
    /// A promise was broken.
    Failed {
        /// What the lab did.
        did: String,
        /// What was promised.
        expected: String,
        /// What was seen.
        saw: String,
    },
    /// The implementation says that it is not there yet.
    NotStarted(String),
    /// The check could not do its own work.
    Inconclusive(String),
    /// This way of running does not offer what the check needs.
    NotRun(String),
}

/// What a check, and everything a check calls, returns.
pub type Judged<T = ()> = Result<T, Box<Stop>>;

impl Stop {
    /// Whether a promise was broken.
    pub fn is_failed(&self) -> bool {
        matches!(self, Self::Failed { .. })
    }

    /// Ends a check because it could not do its own work.
    pub fn inconclusive<T>(reason: impl fmt::Display) -> Judged<T> {
        Err(Box::new(Stop::Inconclusive(reason.to_string())))
    }

    /// Ends a check because it needs what this way of running does not offer.
    pub fn not_run<T>(reason: impl Into<String>) -> Judged<T> {
        Err(Box::new(Stop::NotRun(reason.into())))
    }
}

/// A promise under test: what was done and what must hold afterwards.
///
/// A check makes one for each thing that it promises, so that every failure carries its own
/// sentence.
#[derive(Debug, Clone)]
pub struct Promise {
    did: String,
    expected: String,
}

impl Promise {
    /// What the lab does, and what the contract promises in that case.
    pub fn new(did: impl Into<String>, expected: impl Into<String>) -> Self {
        Self {
            did: did.into(),
            expected: expected.into(),
        }
    }

    /// Goes on if the promise holds, else ends the check with what was seen.
    ///
    /// # Errors
    /// [`Stop::Failed`] if it does not hold.
    pub fn holds(&self, holds: bool, saw: impl Into<String>) -> Judged {
        if holds { Ok(()) } else { self.broken(saw) }
    }

    /// Ends the check: this was seen instead.
    ///
    /// # Errors
    /// Always [`Stop::Failed`].
    pub fn broken<T>(&self, saw: impl Into<String>) -> Judged<T> {
        Err(Box::new(Stop::Failed {
            did: self.did.clone(),
            expected: self.expected.clone(),
            saw: saw.into(),
        }))
    }
}
