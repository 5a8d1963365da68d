//! Flaw: debit and credit are a transaction each.
//!
//! Both are safe, and the money is in neither account between them.

use async_trait::async_trait;
use axum::response::Response;
use http::StatusCode;
use kata_lab::{App, BoxError, Env};
use sqlx::PgConnection;

use crate::{
    contract::{Answered, Transfer},
    variants::{
        attempts::Attempts,
        ledger::{self, Balances},
        protocol::Protocol,
        serving::{self, Service},
    },
};

/// Debits, and credits afterwards.
#[derive(Debug)]
pub struct TwoTransactions;

#[async_trait]
impl Protocol for TwoTransactions {
    async fn transfer(&self, service: &Service, transfer: &Transfer) -> Answered<Response> {
        let mut attempts = Attempts::new(self.money());
        let answer = loop {
            let mut tx = attempts.begin(&service.db).await?;
            let outcome = self.transfer_in(&mut tx, transfer).await;
            if let Some(answer) = attempts.end(tx, outcome).await {
                break answer?;
            }
        };
        // What is known already was credited when it was made.
        if answer.status() == StatusCode::CREATED {
            let mut tx = shared::db::begin(&service.db, &self.money()).await?;
            ledger::add(&mut tx, &transfer.to, transfer.amount_cents).await?;
            tx.commit().await?;
        }
        Ok(answer)
    }

    async fn move_money(
        &self,
        tx: &mut PgConnection,
        transfer: &Transfer,
        _balances: &Balances,
    ) -> Answered<()> {
        Ok(ledger::add(tx, &transfer.from, -transfer.amount_cents).await?)
    }
}

/// Starts it.
///
/// # Errors
/// If a variable is missing, or the schema cannot be made.
pub async fn app(env: Env) -> Result<App, BoxError> {
    serving::start(env, TwoTransactions).await
}
