//! Flaw: the shift rule is checked under read committed, without a lock.
//!
//! Each statement sees what is committed, and both doctors see the other one on call.

use kata_lab::{App, BoxError, Env};
use shared::db::{Isolation, TxOptions};

use crate::variants::{
    protocol::{Protocol, patient},
    serving,
};

/// Reads without a lock what it does not write.
#[derive(Debug)]
pub struct ShiftsReadCommitted;

impl Protocol for ShiftsReadCommitted {
    fn shifts(&self) -> TxOptions {
        patient(Isolation::ReadCommitted)
    }
}

/// Starts it.
///
/// # Errors
/// If a variable is missing, or the schema cannot be made.
pub async fn app(env: Env) -> Result<App, BoxError> {
    serving::start(env, ShiftsReadCommitted).await
}
