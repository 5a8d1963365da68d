//! Flaw: a payment that was made is refused when it is sent again.
//!
//! Its client never learns that it was paid.

use async_trait::async_trait;
use kata_lab::{App, BoxError, Env};
use sqlx::PgConnection;

use crate::{
    contract::{self, Answered, Payment},
    variants::{ledger, protocol::Protocol, serving},
};

/// Takes every known id for a mistake.
#[derive(Debug)]
pub struct DuplicateRefused;

#[async_trait]
impl Protocol for DuplicateRefused {
    async fn record(&self, tx: &mut PgConnection, payment: &Payment) -> Answered<bool> {
        match ledger::record(tx, payment).await? {
            true => Ok(true),
            false => Err(contract::reused_id().into()),
        }
    }
}

/// Starts it.
///
/// # Errors
/// If a variable is missing, or the schema cannot be made.
pub async fn app(env: Env) -> Result<App, BoxError> {
    serving::start(env, DuplicateRefused).await
}
