//! Flaw: the look-up trims the column, and no index is on the trimmed one.
//!
//! A function around a column is another expression: every row has to be read to compute it.

use async_trait::async_trait;
use kata_lab::{App, BoxError, Env};

use crate::{
    contract::{Answered, Payment},
    variants::{
        protocol::Protocol,
        serving::{self, Service},
    },
};

/// Is careful with blanks.
#[derive(Debug)]
pub struct IndexNotUsed;

#[async_trait]
impl Protocol for IndexNotUsed {
    async fn find_payment(&self, service: &Service, id: &str) -> Answered<Option<Payment>> {
        let sql = "select account_id, amount_cents from payments where btrim(payment_id) = $1";
        let row: Option<(String, i64)> = sqlx::query_as(sql)
            .bind(id)
            .fetch_optional(&service.db)
            .await?;
        Ok(row.map(|(account, amount_cents)| Payment {
            payment_id: id.to_owned(),
            account,
            amount_cents,
        }))
    }
}

/// Starts it.
///
/// # Errors
/// If a variable is missing, or the schema cannot be made.
pub async fn app(env: Env) -> Result<App, BoxError> {
    serving::start(env, IndexNotUsed).await
}
