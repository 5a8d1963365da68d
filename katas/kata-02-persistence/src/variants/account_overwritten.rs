//! Flaw: to open an account that is there sets its balance.
//!
//! It is one statement and never fails, which looks like robustness.

use async_trait::async_trait;
use axum::response::Response;
use http::StatusCode;
use kata_lab::{App, BoxError, Env};

use crate::{
    contract::{self, Account, Answered},
    variants::{
        protocol::Protocol,
        serving::{self, Service},
    },
};

/// Inserts, or updates what is there.
#[derive(Debug)]
pub struct AccountOverwritten;

#[async_trait]
impl Protocol for AccountOverwritten {
    async fn open(&self, service: &Service, account: &Account) -> Answered<Response> {
        let sql = "insert into accounts (account_id, balance_cents) values ($1, $2)
             on conflict (account_id) do update set balance_cents = excluded.balance_cents";
        sqlx::query(sql)
            .bind(&account.account_id)
            .bind(account.balance_cents)
            .execute(&service.db)
            .await?;
        Ok(contract::shown(StatusCode::CREATED, account))
    }
}

/// Starts it.
///
/// # Errors
/// If a variable is missing, or the schema cannot be made.
pub async fn app(env: Env) -> Result<App, BoxError> {
    serving::start(env, AccountOverwritten).await
}
