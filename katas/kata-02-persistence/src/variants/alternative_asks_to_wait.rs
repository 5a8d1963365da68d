//! Alternative: a duplicate of a request that is running is told to come back.
//!
//! An advisory lock on the id, held by the transaction, says who is running.

use async_trait::async_trait;
use kata_lab::{App, BoxError, Env};
use sqlx::PgConnection;

use crate::{
    contract::{self, Answered, Payment, Transfer},
    variants::{ledger, protocol::Protocol, serving},
};

/// Never waits for a duplicate.
#[derive(Debug)]
pub struct AlternativeAsksToWait;

#[async_trait]
impl Protocol for AlternativeAsksToWait {
    async fn remember(&self, tx: &mut PgConnection, transfer: &Transfer) -> Answered<bool> {
        alone(tx, "transfer", &transfer.transfer_id).await?;
        Ok(ledger::remember(tx, transfer).await?)
    }

    async fn record(&self, tx: &mut PgConnection, payment: &Payment) -> Answered<bool> {
        alone(tx, "payment", &payment.payment_id).await?;
        Ok(ledger::record(tx, payment).await?)
    }
}

/// Takes the id until the transaction ends, or says that somebody has it.
async fn alone(tx: &mut PgConnection, kind: &str, id: &str) -> Answered<()> {
    let is_ours = sqlx::query_scalar(
        "select pg_try_advisory_xact_lock(hashtext($1 || current_schema()), hashtext($2))",
    )
    .bind(kind)
    .bind(id)
    .fetch_one(tx)
    .await?;
    match is_ours {
        true => Ok(()),
        false => Err(contract::still_running().into()),
    }
}

/// Starts it.
///
/// # Errors
/// If a variable is missing, or the schema cannot be made.
pub async fn app(env: Env) -> Result<App, BoxError> {
    serving::start(env, AlternativeAsksToWait).await
}
