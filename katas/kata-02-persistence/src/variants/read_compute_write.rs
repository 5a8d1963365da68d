//! Flaw: balances are read without a lock, and written as they were computed.
//!
//! A transaction around it keeps a crash out, and nobody else.

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

/// Computes from what it has read.
#[derive(Debug)]
pub struct ReadComputeWrite;

#[async_trait]
impl Protocol for ReadComputeWrite {
    async fn lock(&self, tx: &mut PgConnection, transfer: &Transfer) -> Answered<Balances> {
        Ok(ledger::look(tx, transfer).await?)
    }

    async fn move_money(
        &self,
        tx: &mut PgConnection,
        transfer: &Transfer,
        balances: &Balances,
    ) -> Answered<()> {
        let debited = balances.from.unwrap_or_default() - transfer.amount_cents;
        let credited = balances.to.unwrap_or_default() + transfer.amount_cents;
        // In the order of the ids, so that the writes at least never wait for each other in a ring.
        let mut writes = [(&transfer.from, debited), (&transfer.to, credited)];
        writes.sort();
        for (account, balance) in writes {
            ledger::set(tx, account, balance).await?;
        }
        Ok(())
    }
}

/// Starts it.
///
/// # Errors
/// If a variable is missing, or the schema cannot be made.
pub async fn app(env: Env) -> Result<App, BoxError> {
    serving::start(env, ReadComputeWrite).await
}
