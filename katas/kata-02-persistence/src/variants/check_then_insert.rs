//! Flaw: the payment is looked up, and inserted if it was not there.
//!
//! Without a unique constraint two who look at the same time both find nothing. The index is there,
//! and only finds.

use async_trait::async_trait;
use kata_lab::{App, BoxError, Env};
use sqlx::PgConnection;

use crate::{
    contract::{Answered, Payment},
    variants::{
        ledger,
        protocol::{Protocol, SCHEMA},
        serving,
    },
};

/// Checks, then inserts.
#[derive(Debug)]
pub struct CheckThenInsert;

#[async_trait]
impl Protocol for CheckThenInsert {
    fn schema(&self) -> String {
        SCHEMA.replace("create unique index", "create index")
    }

    async fn record(&self, tx: &mut PgConnection, payment: &Payment) -> Answered<bool> {
        if ledger::payment(tx, &payment.payment_id).await?.is_some() {
            return Ok(false);
        }
        let sql = "insert into payments (payment_id, account_id, amount_cents)
             values ($1, $2, $3)";
        sqlx::query(sql)
            .bind(&payment.payment_id)
            .bind(&payment.account)
            .bind(payment.amount_cents)
            .execute(tx)
            .await?;
        Ok(true)
    }
}

/// Starts it.
///
/// # Errors
/// If a variable is missing, or the schema cannot be made.
pub async fn app(env: Env) -> Result<App, BoxError> {
    serving::start(env, CheckThenInsert).await
}
