//! Flaw: when a commit fails, the payment is sent once more, the debit included.
//!
//! A broken connection does not say whether the commit was done. The retry finds its own row, takes
//! it for the half of a payment, and does the other half again.

use async_trait::async_trait;
use axum::response::Response;
use http::StatusCode;
use kata_lab::{App, BoxError, Env};

use crate::{
    contract::{self, Answered, Failure, Payment},
    variants::{
        ledger,
        protocol::{Protocol, same_again},
        serving::{self, Service},
    },
};

/// Tries everything twice.
#[derive(Debug)]
pub struct RetryResends;

#[async_trait]
impl Protocol for RetryResends {
    async fn pay(&self, service: &Service, payment: &Payment) -> Answered<Response> {
        let mut is_retry = false;
        loop {
            match pay_once(service, payment, is_retry).await {
                Err(Failure::Database(error)) if !is_retry => {
                    tracing::warn!(%error, "the payment failed, once more");
                    is_retry = true;
                }
                answer => return answer,
            }
        }
    }
}

async fn pay_once(service: &Service, payment: &Payment, is_retry: bool) -> Answered<Response> {
    let mut tx = shared::db::begin(&service.db, &RetryResends.money()).await?;
    let is_new = ledger::record(&mut tx, payment).await?;
    if !is_new && !is_retry {
        let known = ledger::payment(&mut tx, &payment.payment_id).await?;
        return same_again(known.as_ref() == Some(payment), payment);
    }
    RetryResends.debit(&mut tx, payment).await?;
    tx.commit().await?;
    Ok(contract::shown(StatusCode::CREATED, payment))
}

/// Starts it.
///
/// # Errors
/// If a variable is missing, or the schema cannot be made.
pub async fn app(env: Env) -> Result<App, BoxError> {
    serving::start(env, RetryResends).await
}
