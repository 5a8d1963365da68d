//! A transfer without a transaction, as the contract wants it for step 1: read both, compute in
//! code, write both, each statement on its own.

use axum::response::Response;
use http::StatusCode;

use crate::{
    contract::{self, Answered, Transfer},
    variants::{ledger, serving::Service},
};

/// Moves the money in four statements that nothing holds together.
///
/// # Errors
/// A refusal, or the database's error, after which nobody knows how many of the four were done.
pub async fn run(service: &Service, transfer: &Transfer) -> Answered<Response> {
    // One connection, so that the order of the statements is the order in which they arrive.
    let mut db = service.db.acquire().await?;
    let from = ledger::balance(&mut db, &transfer.from).await?;
    let to = ledger::balance(&mut db, &transfer.to).await?;
    let (Some(from), Some(to)) = (from, to) else {
        return Err(contract::not_found("account").into());
    };
    if from < transfer.amount_cents {
        return Err(contract::not_enough_money().into());
    }
    ledger::set(&mut db, &transfer.from, from - transfer.amount_cents).await?;
    ledger::set(&mut db, &transfer.to, to + transfer.amount_cents).await?;
    Ok(contract::shown(StatusCode::CREATED, transfer))
}
