//! Flaw: the payment is written first, and the debit follows in a transaction of its own.
//!
//! A crash in between leaves a payment that nobody has paid, and whoever asks again is told that it
//! is.

use async_trait::async_trait;
use axum::response::Response;
use http::StatusCode;
use kata_lab::{App, BoxError, Env};

use crate::{
    contract::{self, Answered, Payment},
    variants::{
        ledger,
        protocol::{Protocol, same_again},
        serving::{self, Service},
    },
};

/// Records, then debits.
#[derive(Debug)]
pub struct DebitApart;

#[async_trait]
impl Protocol for DebitApart {
    async fn pay(&self, service: &Service, payment: &Payment) -> Answered<Response> {
        let mut db = service.db.acquire().await?;
        if !self.record(&mut db, payment).await? {
            let known = ledger::payment(&mut db, &payment.payment_id).await?;
            return same_again(known.as_ref() == Some(payment), payment);
        }
        if let Err(refused) = self.debit(&mut db, payment).await {
            sqlx::query("delete from payments where payment_id = $1")
                .bind(&payment.payment_id)
                .execute(&mut *db)
                .await?;
            return Err(refused);
        }
        Ok(contract::shown(StatusCode::CREATED, payment))
    }
}

/// Starts it.
///
/// # Errors
/// If a variable is missing, or the schema cannot be made.
pub async fn app(env: Env) -> Result<App, BoxError> {
    serving::start(env, DebitApart).await
}
