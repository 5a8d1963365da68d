//! Flaw: a payment is shown to whoever knows its id.

use async_trait::async_trait;
use kata_lab::{App, BoxError, Env};

use crate::variants::{
    protocol::Protocol,
    serving::{self, Service},
};

/// Has no secrets.
#[derive(Debug)]
pub struct PaymentShownToAll;

#[async_trait]
impl Protocol for PaymentShownToAll {
    async fn show(
        &self,
        service: &Service,
        _account: &str,
        payment_id: &str,
    ) -> Result<Option<(i64, String, String)>, sqlx::Error> {
        sqlx::query_as(
            "select amount_cents, currency, charge_id from payments where payment_id = $1",
        )
        .bind(payment_id)
        .fetch_optional(&service.db)
        .await
    }
}

/// Starts it.
pub async fn app(env: Env) -> Result<App, BoxError> {
    serving::start(env, PaymentShownToAll).await
}
