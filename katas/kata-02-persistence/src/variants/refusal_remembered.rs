//! Flaw: a refusal is remembered under the transfer's id.
//!
//! When the money has come, the same transfer is still refused.

use async_trait::async_trait;
use axum::response::Response;
use http::StatusCode;
use kata_lab::{App, BoxError, Env};

use crate::{
    contract::{self, Answered, Failure, Transfer},
    variants::{
        protocol::{Protocol, SCHEMA},
        reference::Reference,
        serving::{self, Service},
    },
};

/// Keeps a list of what was refused.
#[derive(Debug)]
pub struct RefusalRemembered;

#[async_trait]
impl Protocol for RefusalRemembered {
    fn schema(&self) -> String {
        format!("{SCHEMA} create table if not exists refused (transfer_id text primary key);")
    }

    async fn transfer(&self, service: &Service, transfer: &Transfer) -> Answered<Response> {
        let known = sqlx::query("select from refused where transfer_id = $1")
            .bind(&transfer.transfer_id)
            .fetch_optional(&service.db)
            .await?;
        if known.is_some() {
            return Err(contract::not_enough_money().into());
        }
        let answer = Reference.transfer(service, transfer).await;
        if let Err(Failure::Refused(problem)) = &answer
            && problem.status() == StatusCode::CONFLICT
        {
            sqlx::query("insert into refused (transfer_id) values ($1) on conflict do nothing")
                .bind(&transfer.transfer_id)
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
    serving::start(env, RefusalRemembered).await
}
