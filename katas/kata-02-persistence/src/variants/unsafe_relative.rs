//! Flaw: the unsafe transfer writes relative to what is there.
//!
//! `balance = balance - x` cannot lose another one's update, with or without a transaction.

use async_trait::async_trait;
use axum::response::Response;
use http::StatusCode;
use kata_lab::{App, BoxError, Env};

use crate::{
    contract::{self, Answered, Transfer},
    variants::{
        ledger,
        protocol::Protocol,
        serving::{self, Service},
    },
};

/// Lets the database compute.
#[derive(Debug)]
pub struct UnsafeRelative;

#[async_trait]
impl Protocol for UnsafeRelative {
    async fn unsafe_transfer(&self, service: &Service, transfer: &Transfer) -> Answered<Response> {
        let mut db = service.db.acquire().await?;
        let from = ledger::balance(&mut db, &transfer.from).await?;
        let to = ledger::balance(&mut db, &transfer.to).await?;
        if from.is_none() || to.is_none() {
            return Err(contract::not_found("account").into());
        }
        ledger::add(&mut db, &transfer.from, -transfer.amount_cents).await?;
        ledger::add(&mut db, &transfer.to, transfer.amount_cents).await?;
        Ok(contract::shown(StatusCode::CREATED, transfer))
    }
}

/// Starts it.
///
/// # Errors
/// If a variable is missing, or the schema cannot be made.
pub async fn app(env: Env) -> Result<App, BoxError> {
    serving::start(env, UnsafeRelative).await
}
