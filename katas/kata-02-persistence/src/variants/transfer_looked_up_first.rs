//! Flaw: the transfer's id is looked up, and written if it was not there.
//!
//! Nothing makes the id unique, and what is not committed yet is not found.

use async_trait::async_trait;
use kata_lab::{App, BoxError, Env};
use sqlx::PgConnection;

use crate::{
    contract::{Answered, Transfer},
    variants::{ledger, protocol::Protocol, serving},
};

/// Checks, then inserts.
#[derive(Debug)]
pub struct TransferLookedUpFirst;

#[async_trait]
impl Protocol for TransferLookedUpFirst {
    fn schema(&self) -> String {
        "create unique index if not exists payments_payment_id on payments (payment_id);
         create table if not exists transfers (
             transfer_id  text not null,
             from_account text not null,
             to_account   text not null,
             amount_cents bigint not null
         );
         create index if not exists transfers_transfer_id on transfers (transfer_id);"
            .to_owned()
    }

    async fn remember(&self, tx: &mut PgConnection, transfer: &Transfer) -> Answered<bool> {
        match ledger::transfer(tx, &transfer.transfer_id).await? {
            Some(_) => Ok(false),
            None => Ok(ledger::remember(tx, transfer).await?),
        }
    }
}

/// Starts it.
///
/// # Errors
/// If a variable is missing, or the schema cannot be made.
pub async fn app(env: Env) -> Result<App, BoxError> {
    serving::start(env, TransferLookedUpFirst).await
}
