//! Alternative: a transfer is one conditional statement.
//!
//! A statement is a transaction of its own. What it decides on, it decides on the rows that it
//! locks: where it had to wait, PostgreSQL looks at the row again.

use async_trait::async_trait;
use axum::response::Response;
use http::StatusCode;
use kata_lab::{App, BoxError, Env};

use crate::{
    contract::{self, Answered, Transfer},
    variants::{
        attempts::is_lost_race,
        ledger::{self, Balances},
        protocol::{Protocol, same_again},
        serving::{self, Service},
    },
};

/// Says it all at once.
#[derive(Debug)]
pub struct AlternativeOneStatement;

#[async_trait]
impl Protocol for AlternativeOneStatement {
    async fn transfer(&self, service: &Service, transfer: &Transfer) -> Answered<Response> {
        loop {
            match self.try_transfer(service, transfer).await {
                Err(failure) if is_lost_race(&failure) => {}
                answer => return answer,
            }
        }
    }
}

impl AlternativeOneStatement {
    async fn try_transfer(&self, service: &Service, transfer: &Transfer) -> Answered<Response> {
        // Locked in the order of the ids; then both rows are judged as they are now. The note of the
        // transfer is written only if the money is there, and the money moves only with the note.
        let sql = "
            with locked as materialized (
                select account_id, balance_cents from accounts
                where account_id = $2 or account_id = $3 order by account_id for update
            ), noted as (
                insert into transfers (transfer_id, from_account, to_account, amount_cents)
                select $1, $2, $3, $4
                where exists (select from locked where account_id = $2 and balance_cents >= $4)
                  and exists (select from locked where account_id = $3)
                on conflict do nothing returning transfer_id
            )
            update accounts set balance_cents = accounts.balance_cents
                + case accounts.account_id when $2 then - $4::bigint else $4::bigint end
            from noted, locked where accounts.account_id = locked.account_id";
        let moved = sqlx::query(sql)
            .bind(&transfer.transfer_id)
            .bind(&transfer.from)
            .bind(&transfer.to)
            .bind(transfer.amount_cents)
            .execute(&service.db)
            .await?;
        if moved.rows_affected() > 0 {
            return Ok(contract::shown(StatusCode::CREATED, transfer));
        }
        let mut db = service.db.acquire().await?;
        if let Some(known) = ledger::transfer(&mut db, &transfer.transfer_id).await? {
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
    serving::start(env, AlternativeOneStatement).await
}
