//! Flaw: a payment for which there was no money stays refused.

use async_trait::async_trait;
use axum::response::Response;
use http::StatusCode;
use kata_lab::{App, BoxError, Env};

use crate::{
    contract::{self, Answered, Failure, Payment},
    variants::{
        protocol::{Protocol, SCHEMA},
        reference::Reference,
        serving::{self, Service},
    },
};

/// Keeps a list of what was refused.
#[derive(Debug)]
pub struct RefusedPaymentRemembered;

#[async_trait]
impl Protocol for RefusedPaymentRemembered {
    fn schema(&self) -> String {
        format!("{SCHEMA} create table if not exists refused (payment_id text primary key);")
    }

    async fn pay(&self, service: &Service, payment: &Payment) -> Answered<Response> {
        let known = sqlx::query("select from refused where payment_id = $1")
            .bind(&payment.payment_id)
            .fetch_optional(&service.db)
            .await?;
        if known.is_some() {
            return Err(contract::not_enough_money().into());
        }
        let answer = Reference.pay(service, payment).await;
        if let Err(Failure::Refused(problem)) = &answer
            && problem.status() == StatusCode::CONFLICT
        {
            sqlx::query("insert into refused (payment_id) values ($1) on conflict do nothing")
                .bind(&payment.payment_id)
                .execute(&service.db)
                .await?;
        }
        answer
    }
}

/// Starts it.
///
/// # Errors
/// If a variable is missing, or the schema cannot be made.
pub async fn app(env: Env) -> Result<App, BoxError> {
    serving::start(env, RefusedPaymentRemembered).await
}
