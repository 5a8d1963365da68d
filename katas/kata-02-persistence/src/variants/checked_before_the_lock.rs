//! Flaw: the balance is judged before it is locked.
//!
//! The write is relative and loses nothing, but what it is relative to was never judged.

use async_trait::async_trait;
use kata_lab::{App, BoxError, Env};
use sqlx::PgConnection;

use crate::{
    contract::{Answered, Transfer},
    variants::{
        ledger::{self, Balances},
        protocol::Protocol,
        serving,
    },
};

/// Looks, and lets the update lock.
#[derive(Debug)]
pub struct CheckedBeforeTheLock;

#[async_trait]
impl Protocol for CheckedBeforeTheLock {
    async fn lock(&self, tx: &mut PgConnection, transfer: &Transfer) -> Answered<Balances> {
        Ok(ledger::look(tx, transfer).await?)
    }
}

/// Starts it.
///
/// # Errors
/// If a variable is missing, or the schema cannot be made.
pub async fn app(env: Env) -> Result<App, BoxError> {
    serving::start(env, CheckedBeforeTheLock).await
}
