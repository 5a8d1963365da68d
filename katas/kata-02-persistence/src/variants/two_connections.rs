//! Flaw: a transfer takes a second connection while it holds the first.
//!
//! With as many transfers at once as there are connections, each has one and waits for another.

use std::time::Duration;

use async_trait::async_trait;
use axum::response::Response;
use kata_lab::{App, BoxError, Env};

use crate::{
    contract::{Answered, Transfer},
    variants::{
        attempts::Attempts,
        ledger,
        protocol::{Protocol, same_again},
        serving::{self, Service},
    },
};

/// How long it waits for the second.
const PATIENCE: Duration = Duration::from_secs(2);

/// Asks beside its own transaction.
#[derive(Debug)]
pub struct TwoConnections;

#[async_trait]
impl Protocol for TwoConnections {
    async fn transfer(&self, service: &Service, transfer: &Transfer) -> Answered<Response> {
        let mut attempts = Attempts::new(self.money());
        loop {
            let mut tx = attempts.begin(&service.db).await?;
            let known = {
                let second = tokio::time::timeout(PATIENCE, service.db.acquire()).await;
                let mut second = second.map_err(|_| sqlx::Error::PoolTimedOut)??;
                ledger::transfer(&mut second, &transfer.transfer_id).await?
            };
            let outcome = match known {
                Some(known) => same_again(known == *transfer, transfer),
                None => self.transfer_in(&mut tx, transfer).await,
            };
            if let Some(answer) = attempts.end(tx, outcome).await {
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
    serving::start(env, TwoConnections).await
}
