//! Flaw: the transfer's id is not remembered.
//!
//! Whoever asks again, because no answer came, moves the money again.

use async_trait::async_trait;
use kata_lab::{App, BoxError, Env};
use sqlx::PgConnection;

use crate::{
    contract::{Answered, Transfer},
    variants::{protocol::Protocol, serving},
};

/// Takes every request for a new one.
#[derive(Debug)]
pub struct TransferWithoutMemory;

#[async_trait]
impl Protocol for TransferWithoutMemory {
    async fn remember(&self, _tx: &mut PgConnection, _transfer: &Transfer) -> Answered<bool> {
        Ok(true)
    }
}

/// Starts it.
///
/// # Errors
/// If a variable is missing, or the schema cannot be made.
pub async fn app(env: Env) -> Result<App, BoxError> {
    serving::start(env, TransferWithoutMemory).await
}
