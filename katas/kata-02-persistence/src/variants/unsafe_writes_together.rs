//! Flaw: the two writes of the unsafe transfer share a transaction.
//!
//! A crash finds both or none; what was read before is as old as ever.

use async_trait::async_trait;
use axum::response::Response;
use http::StatusCode;
use kata_lab::{App, BoxError, Env};

use crate::{
    contract::{self, Answered, Transfer},
    variants::{
        attempts::Attempts,
        ledger,
        protocol::Protocol,
        serving::{self, Service},
    },
};

/// Writes both balances or none.
#[derive(Debug)]
pub struct UnsafeWritesTogether;

#[async_trait]
impl Protocol for UnsafeWritesTogether {
    async fn unsafe_transfer(&self, service: &Service, transfer: &Transfer) -> Answered<Response> {
        let mut db = service.db.acquire().await?;
        let from = ledger::balance(&mut db, &transfer.from).await?;
        let to = ledger::balance(&mut db, &transfer.to).await?;
        drop(db);
        let (Some(from), Some(to)) = (from, to) else {
            return Err(contract::not_found("account").into());
        };
        let mut attempts = Attempts::new(self.money());
        loop {
            let mut tx = attempts.begin(&service.db).await?;
            ledger::set(&mut tx, &transfer.from, from - transfer.amount_cents).await?;
            ledger::set(&mut tx, &transfer.to, to + transfer.amount_cents).await?;
            let done = Ok(contract::shown(StatusCode::CREATED, transfer));
            if let Some(answer) = attempts.end(tx, done).await {
                return answer;
            }
        }
    }
}

/// Starts it.
///
/// # Errors
/// If a variable is missing, or the schema cannot be made.
pub async fn app(env: Env) -> Result<App, BoxError> {
    serving::start(env, UnsafeWritesTogether).await
}
