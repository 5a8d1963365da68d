//! Flaw: asks whether the key is running before it compares bodies; 409 sends the client into a wait for 422.

use kata_lab::{App, BoxError, Env};

use crate::variants::{
    keys::{Claim, Job, Row},
    protocol::Protocol,
    serving,
};

/// Asks in the wrong order.
#[derive(Debug)]
pub struct ConflictBeforeMismatch;

impl Protocol for ConflictBeforeMismatch {
    fn judge(&self, job: &Job, row: Row) -> Claim {
        match row.answer {
            None => Claim::Running,
            Some(_) if row.fingerprint != job.fingerprint => Claim::OtherBody,
            Some(answer) => Claim::Answered(answer),
        }
    }
}

/// Starts it.
pub async fn app(env: Env) -> Result<App, BoxError> {
    serving::start(env, ConflictBeforeMismatch).await
}
