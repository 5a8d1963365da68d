//! Flaw: the account that pays is locked first, whichever it is.
//!
//! The opposite transfer locks the same two in the other order: each waits for the other, and
//! PostgreSQL ends one of them with an error, which goes to the client.

use async_trait::async_trait;
use kata_lab::{App, BoxError, Env};
use shared::db::TxOptions;
use sqlx::PgConnection;

use crate::{
    contract::{Answered, Transfer},
    variants::{ledger::Balances, protocol::Protocol, serving},
};

/// Locks `from`, then `to`.
#[derive(Debug)]
pub struct LocksInArrivalOrder;

#[async_trait]
impl Protocol for LocksInArrivalOrder {
    fn money(&self) -> TxOptions {
        TxOptions {
            attempts: 1,
            ..TxOptions::default()
        }
    }

    async fn lock(&self, tx: &mut PgConnection, transfer: &Transfer) -> Answered<Balances> {
        Ok(Balances {
            from: lock_one(tx, &transfer.from).await?,
            to: lock_one(tx, &transfer.to).await?,
        })
    }
}

async fn lock_one(tx: &mut PgConnection, id: &str) -> Result<Option<i64>, sqlx::Error> {
    sqlx::query_scalar("select balance_cents from accounts where account_id = $1 for update")
        .bind(id)
        .fetch_optional(tx)
        .await
}

/// Starts it.
///
/// # Errors
/// If a variable is missing, or the schema cannot be made.
pub async fn app(env: Env) -> Result<App, BoxError> {
    serving::start(env, LocksInArrivalOrder).await
}
