//! Flaw: the shift rule is checked under repeatable read.
//!
//! In PostgreSQL that is a snapshot: two who write the same row collide, two who write different
//! rows do not, whatever they have read.

use kata_lab::{App, BoxError, Env};
use shared::db::{Isolation, TxOptions};

use crate::variants::{
    protocol::{Protocol, patient},
    serving,
};

/// Trusts its snapshot.
#[derive(Debug)]
pub struct ShiftsRepeatableRead;

impl Protocol for ShiftsRepeatableRead {
    fn shifts(&self) -> TxOptions {
        patient(Isolation::RepeatableRead)
    }
}

/// Starts it.
///
/// # Errors
/// If a variable is missing, or the schema cannot be made.
pub async fn app(env: Env) -> Result<App, BoxError> {
    serving::start(env, ShiftsRepeatableRead).await
}
