//! Your exercise: money that does not disappear. This is the only file to edit.
//!
//! | step | what to build | where | checks |
//! | --- | --- | --- | --- |
//! | 1 | accounts, and a transfer without a transaction | `open`, `balance`, `unsafe_transfer` | `opens_accounts`, `rejects_wrong_input`, `shows_the_loss_of_a_crash`, `shows_a_lost_update` |
//! | 2 | a transfer in one transaction, made once | `transfer`, `SCHEMA` | `moves_money`, `moves_it_once`, `forgets_a_refusal`, `keeps_the_total_in_every_crash` |
//! | 3 | transfers at once | `transfer` | `loses_no_update`, `never_overdraws`, `hides_deadlocks`, `moves_it_once_under_concurrency`, `survives_two_hundred_transfers` |
//! | 4 | a payment is unique by constraint | `pay`, `find_payment`, `SCHEMA` | `pays_and_shows_the_payment`, `forgets_a_refused_payment`, `pays_once_under_concurrency`, `refuses_other_content`, `keeps_debit_and_payment_together`, `pays_once_when_connections_break` |
//! | 5 | optimistic and pessimistic | `create`, `replace`, `find_profile`, `increment` | `guards_profiles_with_etags`, `refuses_one_of_two_writers`, `increments_change_the_etag`, `increments_count_every_time`, `increments_refuse_nobody` |
//! | 6 | write skew | `put_shift`, `on_call`, `leave` | `keeps_the_rota`, `keeps_one_doctor_on_call`, `hides_serialization_failures` |
//! | 7 | strong and eventual reads | `balance`, `eventual` | `reads_the_primary_without_a_replica`, `strong_sees_what_was_written`, `says_how_far_behind`, `is_not_fooled_by_a_replica_that_is_cut_off`, `does_not_find_what_the_replica_lacks`, `is_zero_again_when_nothing_is_written`, `eventual_survives_the_primary`, `strong_is_refused_without_the_primary`, `strong_survives_the_replica`, `works_again_when_healed` |
//! | 8 | the index | `find_payment`, `SCHEMA` | `finds_payments_by_an_index` |
//!
//! `crate::contract` has the bodies and the answers. What is here already runs, and answers 501 on
//! every route until you replace the `todo!()`s. Change whatever you like: the checks know the
//! routes and the tables of the contract, and nothing of this file.

use axum::{
    Router,
    body::Bytes,
    extract::{Path, Query, State},
    response::{IntoResponse, Response},
    routing::{get, post, put},
};
use http::{HeaderMap, StatusCode};
use kata_lab::{App, BoxError, Env};
use serde::Deserialize;
use sqlx::{PgPool, postgres::PgPoolOptions};

use crate::contract::{self, Account, Answered, Condition, Config, Data, Payment, Transfer};

/// Made at start, in one round trip. The tables of the contract are there already.
///
/// Steps 2, 4 and 8: which table and which index are missing?
pub const SCHEMA: &str = "";

/// What the handlers work with. Cheap to clone.
#[derive(Debug, Clone)]
pub struct Bank {
    /// Connections to the primary.
    pub db: PgPool,
    /// The same to the replica, if there is one.
    pub replica: Option<PgPool>,
}

/// The application.
pub async fn app(env: Env) -> Result<App, BoxError> {
    let config = Config::from_env(&env)?;
    let pool = |url: &str| {
        PgPoolOptions::new()
            .max_connections(12)
            .test_before_acquire(false)
            .connect_lazy(url)
    };
    let bank = Bank {
        db: pool(&config.database_url)?,
        replica: config.replica_url.as_deref().map(pool).transpose()?,
    };
    sqlx::raw_sql(SCHEMA).execute(&bank.db).await?;
    let router = Router::new()
        .route(contract::ACCOUNTS, post(accounts))
        .route(contract::ACCOUNT, get(account))
        .route(contract::TRANSFERS, post(transfers))
        .route(contract::UNSAFE_TRANSFERS, post(unsafe_transfers))
        .route(contract::PAYMENTS, post(payments))
        .route(contract::PAYMENT, get(payment))
        .route(contract::PROFILE, put(write_profile).get(read_profile))
        .route(contract::INCREMENT, post(increments))
        .route(contract::SHIFTS, get(rota))
        .route(contract::SHIFT, put(shift))
        .route(contract::LEAVE, post(leaves))
        .with_state(bank);
    Ok(App::new(router))
}

// ------------------------------------------------------------------------------- what to build

/// Opens an account: 201, or `contract::account_exists()`.
pub async fn open(bank: &Bank, account: &Account) -> Answered {
    let _ = (bank, account);
    todo!("step 1: one statement, and the primary key decides who was first")
}

/// The balance of an account, as the primary has it.
pub async fn balance(bank: &Bank, id: &str) -> Answered<Option<i64>> {
    let _ = (bank, id);
    todo!("step 1: select the balance")
}

/// Reads both balances, computes, writes both: four statements on one connection.
pub async fn unsafe_transfer(bank: &Bank, transfer: &Transfer) -> Answered {
    let _ = (bank, transfer);
    todo!("step 1: without a transaction, so that one can see what it is good for")
}

/// Moves the money: 201, 409 without enough of it, 404 without an account.
pub async fn transfer(bank: &Bank, transfer: &Transfer) -> Answered {
    let _ = (bank, transfer);
    todo!("step 2: all of it or nothing, and once for each transfer_id (step 3 comes back here)")
}

/// Pays: 201, 409 without enough money, 404 without an account.
pub async fn pay(bank: &Bank, payment: &Payment) -> Answered {
    let _ = (bank, payment);
    todo!("step 4: debit and row together, and once for each payment_id")
}

/// The payment with this id.
pub async fn find_payment(bank: &Bank, id: &str) -> Answered<Option<Payment>> {
    let _ = (bank, id);
    todo!("step 4: select the payment (step 8 comes back here)")
}

/// The first content of a profile, and its `ETag`; `None` if there is one already.
pub async fn create(bank: &Bank, id: &str, data: &Data) -> Answered<Option<String>> {
    let _ = (bank, id, data);
    todo!("step 5: one statement, and the primary key decides")
}

/// New content, and its `ETag`; `None` if what is there is not what `seen` names.
pub async fn replace(bank: &Bank, id: &str, data: &Data, seen: &str) -> Answered<Option<String>> {
    let _ = (bank, id, data, seen);
    todo!("step 5: optimistic, compare and write in one statement")
}

/// A profile with its `ETag`.
pub async fn find_profile(bank: &Bank, id: &str) -> Answered<Option<(Data, String)>> {
    let _ = (bank, id);
    todo!("step 5: select content and version")
}

/// Adds one to a member; the new content and its `ETag`.
pub async fn increment(bank: &Bank, id: &str, field: &str) -> Answered<(Data, String)> {
    let _ = (bank, id, field);
    todo!("step 5: pessimistic, lock the row before you read it")
}

/// Puts a doctor on or off call, whether or not they are known.
pub async fn put_shift(bank: &Bank, doctor: &str, on_call: bool) -> Answered<()> {
    let _ = (bank, doctor, on_call);
    todo!("step 6: insert, or update what is there")
}

/// Who is on call, by code point.
pub async fn on_call(bank: &Bank) -> Answered<Vec<String>> {
    let _ = bank;
    todo!("step 6: in which collation?")
}

/// A doctor leaves: 204, or `contract::nobody_left()`, or 404.
pub async fn leave(bank: &Bank, doctor: &str) -> Answered {
    let _ = (bank, doctor);
    todo!("step 6: what you read about the others has to be true when you commit")
}

/// A balance that may be behind, and by how much: `contract::stale`.
pub async fn eventual(bank: &Bank, id: &str) -> Answered {
    let _ = (bank, id);
    todo!("step 7: from the replica if there is one, else from the primary with 0")
}

// ------------------------------------------------------------------- from requests to the above

async fn accounts(State(bank): State<Bank>, headers: HeaderMap, bytes: Bytes) -> Answered {
    open(&bank, &Account::read(&headers, &bytes)?).await
}

#[derive(Deserialize)]
struct Read {
    read: Option<String>,
}

async fn account(
    State(bank): State<Bank>,
    Path(account_id): Path<String>,
    Query(query): Query<Read>,
) -> Answered {
    if query.read.as_deref() == Some("eventual") {
        return eventual(&bank, &account_id).await;
    }
    let balance = balance(&bank, &account_id).await?;
    let balance_cents = balance.ok_or_else(|| contract::not_found("account"))?;
    let account = Account {
        account_id,
        balance_cents,
    };
    Ok(contract::shown(StatusCode::OK, &account))
}

async fn transfers(State(bank): State<Bank>, headers: HeaderMap, bytes: Bytes) -> Answered {
    transfer(&bank, &Transfer::read(&headers, &bytes)?).await
}

async fn unsafe_transfers(State(bank): State<Bank>, headers: HeaderMap, bytes: Bytes) -> Answered {
    unsafe_transfer(&bank, &Transfer::read(&headers, &bytes)?).await
}

async fn payments(State(bank): State<Bank>, headers: HeaderMap, bytes: Bytes) -> Answered {
    pay(&bank, &Payment::read(&headers, &bytes)?).await
}

async fn payment(State(bank): State<Bank>, Path(id): Path<String>) -> Answered {
    let payment = find_payment(&bank, &id).await?;
    let payment = payment.ok_or_else(|| contract::not_found("payment"))?;
    Ok(contract::shown(StatusCode::OK, &payment))
}

async fn write_profile(
    State(bank): State<Bank>,
    Path(id): Path<String>,
    headers: HeaderMap,
    bytes: Bytes,
) -> Answered {
    let condition = Condition::read(&headers)?;
    let data = contract::read_profile(&headers, &bytes)?;
    let (status, written) = match condition {
        Condition::IsNew => (StatusCode::CREATED, create(&bank, &id, &data).await?),
        Condition::Matches(seen) => (StatusCode::OK, replace(&bank, &id, &data, &seen).await?),
    };
    let etag = written.ok_or_else(contract::precondition_failed)?;
    Ok(contract::profile(status, &data, &etag))
}

async fn read_profile(State(bank): State<Bank>, Path(id): Path<String>) -> Answered {
    let found = find_profile(&bank, &id).await?;
    let (data, etag) = found.ok_or_else(|| contract::not_found("profile"))?;
    Ok(contract::profile(StatusCode::OK, &data, &etag))
}

async fn increments(
    State(bank): State<Bank>,
    Path(id): Path<String>,
    headers: HeaderMap,
    bytes: Bytes,
) -> Answered {
    let field = contract::read_field(&headers, &bytes)?;
    let (data, etag) = increment(&bank, &id, &field).await?;
    Ok(contract::profile(StatusCode::OK, &data, &etag))
}

async fn rota(State(bank): State<Bank>) -> Answered {
    Ok(contract::rota(&on_call(&bank).await?))
}

async fn shift(
    State(bank): State<Bank>,
    Path(doctor): Path<String>,
    headers: HeaderMap,
    bytes: Bytes,
) -> Answered {
    let on_call = contract::read_on_call(&headers, &bytes)?;
    put_shift(&bank, &doctor, on_call).await?;
    Ok(StatusCode::NO_CONTENT.into_response())
}

async fn leaves(State(bank): State<Bank>, Path(doctor): Path<String>) -> Answered<Response> {
    leave(&bank, &doctor).await
}
