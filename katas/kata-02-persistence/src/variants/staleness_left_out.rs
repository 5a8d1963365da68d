//! Flaw: an eventual read does not say how far behind it is.

use async_trait::async_trait;
use axum::response::Response;
use http::StatusCode;
use kata_lab::{App, BoxError, Env};

use crate::{
    contract::{self, Account, Answered},
    variants::{
        ledger,
        protocol::Protocol,
        serving::{self, Service},
    },
};

/// Answers as if it were strong.
#[derive(Debug)]
pub struct StalenessLeftOut;

#[async_trait]
impl Protocol for StalenessLeftOut {
    async fn eventual(&self, service: &Service, id: &str) -> Answered<Response> {
        let mut db = service
            .replica
            .as_ref()
            .unwrap_or(&service.db)
            .acquire()
            .await?;
        let Some(balance_cents) = ledger::balance(&mut db, id).await? else {
            return Err(contract::not_found("account").into());
        };
        let account = Account {
            account_id: id.to_owned(),
            balance_cents,
        };
        Ok(contract::shown(StatusCode::OK, &account))
    }
}

/// Starts it.
///
/// # Errors
/// If a variable is missing, or the schema cannot be made.
pub async fn app(env: Env) -> Result<App, BoxError> {
    serving::start(env, StalenessLeftOut).await
}
