//! Flaw: a transfer is one statement, and computes from a subquery.
//!
//! A statement that has to wait for a row looks at that row again, and not at what its subqueries
//! have read: those are as old as its snapshot.

use async_trait::async_trait;
use axum::response::Response;
use http::StatusCode;
use kata_lab::{App, BoxError, Env};
use sqlx::AssertSqlSafe;

use crate::{
    contract::{self, Answered, Transfer},
    variants::{
        ledger::{self, Balances},
        protocol::{Protocol, same_again},
        serving::{self, Service},
    },
};

/// Says it all at once, and too early.
#[derive(Debug)]
pub struct SnapshotInAStatement;

#[async_trait]
impl Protocol for SnapshotInAStatement {
    async fn transfer(&self, service: &Service, transfer: &Transfer) -> Answered<Response> {
        // Without parameters and in one round trip: ids have no quotes in them, as the contract has
        // checked.
        let Transfer {
            transfer_id,
            from,
            to,
            amount_cents,
        } = transfer;
        let balance =
            |id: &str| format!("(select balance_cents from accounts where account_id = '{id}')");
        let (payer, payee) = (balance(from), balance(to));
        let sql = format!(
            "with noted as (
                insert into transfers (transfer_id, from_account, to_account, amount_cents)
                select '{transfer_id}', '{from}', '{to}', {amount_cents}
                where {payer} >= {amount_cents} and {payee} is not null
                on conflict do nothing returning transfer_id
            )
            update accounts set balance_cents = case account_id
                when '{from}' then {payer} - {amount_cents} else {payee} + {amount_cents} end
            where account_id in ('{from}', '{to}') and exists (select from noted)"
        );
        let moved = sqlx::raw_sql(AssertSqlSafe(sql))
            .execute(&service.db)
            .await?;
        if moved.rows_affected() > 0 {
            return Ok(contract::shown(StatusCode::CREATED, transfer));
        }
        let mut db = service.db.acquire().await?;
        if let Some(known) = ledger::transfer(&mut db, transfer_id).await? {
            return same_again(known == *transfer, transfer);
        }
        match ledger::look(&mut db, transfer).await? {
            Balances {
                from: Some(_),
                to: Some(_),
            } => Err(contract::not_enough_money().into()),
            _ => Err(contract::not_found("account").into()),
        }
    }
}

/// Starts it.
///
/// # Errors
/// If a variable is missing, or the schema cannot be made.
pub async fn app(env: Env) -> Result<App, BoxError> {
    serving::start(env, SnapshotInAStatement).await
}
