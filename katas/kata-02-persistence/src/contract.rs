//! The contract's vocabulary: routes, bodies and answers. Yours to use in `exercise.rs`.
//!
//! What is decided by the contract is here, so that the exercise can be about what is not: which
//! statements belong together, what is locked and in which order, and who repeats what. Nothing in
//! this file knows of transactions.

use axum::{
    Json,
    response::{IntoResponse, Response},
};
use http::{HeaderMap, HeaderValue, StatusCode, header};
use kata_lab::{Env, EnvError};
use serde::{Deserialize, Serialize};
use serde_json::{Map, Value, json};
use shared::{
    db::SqlFailure,
    http::{Problem, read_object},
};

/// Opens an account.
pub const ACCOUNTS: &str = "/accounts";
/// Shows an account; `?read=strong` (as without it) or `?read=eventual`.
pub const ACCOUNT: &str = "/accounts/{id}";
/// Moves money from one account to another.
pub const TRANSFERS: &str = "/transfers";
/// The same without a transaction, so that one can see what it is good for.
pub const UNSAFE_TRANSFERS: &str = "/unsafe/transfers";
/// Pays once for each `payment_id`.
pub const PAYMENTS: &str = "/payments";
/// Shows a payment.
pub const PAYMENT: &str = "/payments/{id}";
/// Creates, replaces and shows a profile, with `ETag`s.
pub const PROFILE: &str = "/profiles/{id}";
/// Adds one to a member of a profile.
pub const INCREMENT: &str = "/profiles/{id}/increment";
/// Shows who is on call.
pub const SHIFTS: &str = "/shifts";
/// Puts a doctor on or off call, whatever the rule says.
pub const SHIFT: &str = "/shifts/{doctor}";
/// A doctor goes off call, if another one stays.
pub const LEAVE: &str = "/shifts/{doctor}/leave";

/// The tables that the contract promises: the lab makes them before a program is started.
///
/// `payments` has no constraint on purpose: which one it needs is for step 4 to find out.
pub const TABLES: &str = "
create table accounts (
    account_id    text primary key,
    balance_cents bigint not null
);
create table payments (
    payment_id   text not null,
    account_id   text not null,
    amount_cents bigint not null
);
create table profiles (
    profile_id text primary key,
    data       jsonb not null,
    version    bigint not null default 1
);
create table doctors (
    doctor  text primary key,
    on_call boolean not null
);
";

/// The largest amount of one transfer or payment, in cents.
pub const MAX_AMOUNT_CENTS: i64 = 1_000_000_000_000;
/// The largest balance that an account is opened with, in cents.
pub const MAX_BALANCE_CENTS: i64 = 1_000_000_000_000_000;

/// What the program is given, from its environment.
#[derive(Debug, Clone)]
pub struct Config {
    /// The database; the role's own schema is its search path.
    pub database_url: String,
    /// A streaming replica of it, if there is one.
    pub replica_url: Option<String>,
}

impl Config {
    /// Reads the variables that the contract names.
    ///
    /// # Errors
    /// If `DATABASE_URL` is missing.
    pub fn from_env(env: &Env) -> Result<Self, EnvError> {
        Ok(Self {
            database_url: env.text("DATABASE_URL")?.to_owned(),
            replica_url: env.text("REPLICA_URL").ok().map(str::to_owned),
        })
    }
}

/// The body of `POST /accounts`, and what `GET /accounts/{id}` shows.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Account {
    /// Chosen by the caller.
    pub account_id: String,
    /// Never below zero.
    pub balance_cents: i64,
}

impl Account {
    /// Reads and checks a body.
    ///
    /// # Errors
    /// 415 for another media type, 400 for what is no JSON, 422 for what is outside the limits.
    pub fn read(headers: &HeaderMap, bytes: &[u8]) -> Result<Self, Problem> {
        let body: Self = read_object(headers, bytes)?;
        check_id("account_id", &body.account_id)?;
        if !(0..=MAX_BALANCE_CENTS).contains(&body.balance_cents) {
            return Err(Problem::invalid_body(
                "balance_cents must be from 0 to 10^15",
            ));
        }
        Ok(body)
    }
}

/// The body of `POST /transfers`, and its answer.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Transfer {
    /// Chosen by the caller: the same again is the same transfer.
    pub transfer_id: String,
    /// Whose balance is debited.
    pub from: String,
    /// Whose balance is credited.
    pub to: String,
    /// How much.
    pub amount_cents: i64,
}

impl Transfer {
    /// Reads and checks a body.
    ///
    /// # Errors
    /// As [`Account::read`].
    pub fn read(headers: &HeaderMap, bytes: &[u8]) -> Result<Self, Problem> {
        let body: Self = read_object(headers, bytes)?;
        check_id("transfer_id", &body.transfer_id)?;
        check_id("from", &body.from)?;
        check_id("to", &body.to)?;
        check_amount(body.amount_cents)?;
        if body.from == body.to {
            return Err(Problem::invalid_body("from and to must differ"));
        }
        Ok(body)
    }
}

/// The body of `POST /payments`, and what `GET /payments/{id}` shows.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Payment {
    /// Chosen by the caller: the same again is the same payment.
    pub payment_id: String,
    /// Whose balance is debited.
    pub account: String,
    /// How much.
    pub amount_cents: i64,
}

impl Payment {
    /// Reads and checks a body.
    ///
    /// # Errors
    /// As [`Account::read`].
    pub fn read(headers: &HeaderMap, bytes: &[u8]) -> Result<Self, Problem> {
        let body: Self = read_object(headers, bytes)?;
        check_id("payment_id", &body.payment_id)?;
        check_id("account", &body.account)?;
        check_amount(body.amount_cents)?;
        Ok(body)
    }
}

/// What a profile holds: any JSON object.
pub type Data = Map<String, Value>;

/// The body of `PUT /profiles/{id}`.
///
/// # Errors
/// As [`Account::read`].
pub fn read_profile(headers: &HeaderMap, bytes: &[u8]) -> Result<Data, Problem> {
    read_object(headers, bytes)
}

/// The member that `POST /profiles/{id}/increment` counts in.
///
/// # Errors
/// As [`Account::read`].
pub fn read_field(headers: &HeaderMap, bytes: &[u8]) -> Result<String, Problem> {
    #[derive(Deserialize)]
    #[serde(deny_unknown_fields)]
    struct Body {
        field: String,
    }
    let body: Body = read_object(headers, bytes)?;
    check_id("field", &body.field)?;
    Ok(body.field)
}

/// Whether `PUT /shifts/{doctor}` puts the doctor on call.
///
/// # Errors
/// As [`Account::read`].
pub fn read_on_call(headers: &HeaderMap, bytes: &[u8]) -> Result<bool, Problem> {
    #[derive(Deserialize)]
    #[serde(deny_unknown_fields)]
    struct Body {
        on_call: bool,
    }
    read_object(headers, bytes).map(|body: Body| body.on_call)
}

/// Under which condition `PUT /profiles/{id}` may write.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Condition {
    /// `If-None-Match: *`: only if there is none yet.
    IsNew,
    /// `If-Match`: only over the content that has this entity tag, quotes included.
    Matches(String),
}

impl Condition {
    /// Reads the request's precondition.
    ///
    /// # Errors
    /// 428 if there is none.
    pub fn read(headers: &HeaderMap) -> Result<Self, Problem> {
        let text = |name| headers.get(name).and_then(|value| value.to_str().ok());
        if text(header::IF_NONE_MATCH).map(str::trim) == Some("*") {
            return Ok(Self::IsNew);
        }
        match text(header::IF_MATCH) {
            Some(tag) => Ok(Self::Matches(tag.trim().to_owned())),
            None => Err(Problem::new(
                StatusCode::PRECONDITION_REQUIRED,
                "If-Match or If-None-Match is required",
            )),
        }
    }
}

/// A profile as it is answered: its content, and a strong `ETag` that names exactly this content.
pub fn profile(status: StatusCode, data: &Data, etag: &str) -> Response {
    let mut response = (status, Json(data)).into_response();
    // A tag is made of a number or a digest, which a header can hold.
    if let Ok(etag) = HeaderValue::from_str(etag) {
        response.headers_mut().insert(header::ETAG, etag);
    }
    response
}

/// 201 or 200 with a value.
pub fn shown(status: StatusCode, value: &impl Serialize) -> Response {
    (status, Json(value)).into_response()
}

/// Who is on call, as `GET /shifts` shows it: sorted by code point.
pub fn rota(on_call: &[String]) -> Response {
    shown(StatusCode::OK, &json!({ "on_call": on_call }))
}

/// A balance from a source that may be behind; `None` if nobody can say how far.
pub fn stale(account: &Account, staleness_ms: Option<i64>) -> Response {
    let mut shows = json!(account);
    shows["staleness_ms"] = json!(staleness_ms);
    shown(StatusCode::OK, &shows)
}

/// Why a request has no good answer.
#[derive(Debug)]
pub enum Failure {
    /// A rule of the contract says no. It is the answer.
    Refused(Problem),
    /// The database failed, or refused for a reason of its own.
    Database(sqlx::Error),
}

/// What a handler comes to.
pub type Answered<T = Response> = Result<T, Failure>;

impl From<Problem> for Failure {
    fn from(problem: Problem) -> Self {
        Self::Refused(problem)
    }
}

impl From<sqlx::Error> for Failure {
    fn from(error: sqlx::Error) -> Self {
        Self::Database(error)
    }
}

/// So that `shared::db::transaction` can see that another attempt may succeed.
impl SqlFailure for Failure {
    fn sql(&self) -> Option<&sqlx::Error> {
        match self {
            Self::Database(error) => Some(error),
            Self::Refused(_) => None,
        }
    }
}

impl IntoResponse for Failure {
    fn into_response(self) -> Response {
        match self {
            Self::Refused(problem) => problem.into_response(),
            // A client never reads what a database says: it helps nobody there, and tells of
            // tables and hosts.
            Self::Database(error) => {
                tracing::warn!(%error, "the database failed");
                Problem::new(
                    StatusCode::SERVICE_UNAVAILABLE,
                    "Not possible at the moment; send the same request again",
                )
                .into_response()
            }
        }
    }
}

/// 409: the account is open already.
pub fn account_exists() -> Problem {
    Problem::new(StatusCode::CONFLICT, "There is such an account")
}

/// 409: there is less in the account than is asked for.
pub fn not_enough_money() -> Problem {
    Problem::new(StatusCode::CONFLICT, "Not enough money")
}

/// 409: nobody would be on call.
pub fn nobody_left() -> Problem {
    Problem::new(StatusCode::CONFLICT, "One doctor has to stay on call")
}

/// 409: the same request is running; its answer comes soon.
pub fn still_running() -> Problem {
    Problem::new(StatusCode::CONFLICT, "The same request is running")
        .header(header::RETRY_AFTER, HeaderValue::from(1))
}

/// 422: the id was used with other content. It says nothing about that content.
pub fn reused_id() -> Problem {
    Problem::new(
        StatusCode::UNPROCESSABLE_ENTITY,
        "This id was used for another request",
    )
}

/// 412: the content is not the one that the caller has seen.
pub fn precondition_failed() -> Problem {
    Problem::new(
        StatusCode::PRECONDITION_FAILED,
        "The profile has changed, or is not there",
    )
}

/// 422: the member of a profile is there and is no whole number.
pub fn not_a_number() -> Problem {
    Problem::invalid_body("this member of the profile is no whole number")
}

/// 404.
pub fn not_found(what: &str) -> Problem {
    Problem::new(StatusCode::NOT_FOUND, format!("No such {what}"))
}

/// Whether a text can be an id: 1 to 64 of `[A-Za-z0-9._-]`.
pub fn is_id(text: &str) -> bool {
    (1..=64).contains(&text.len())
        && text
            .bytes()
            .all(|b| b.is_ascii_alphanumeric() || b"._-".contains(&b))
}

fn check_id(name: &str, text: &str) -> Result<(), Problem> {
    match is_id(text) {
        true => Ok(()),
        false => Err(Problem::invalid_body(format!(
            "{name} must be 1 to 64 of A-Z a-z 0-9 . _ -"
        ))),
    }
}

fn check_amount(amount_cents: i64) -> Result<(), Problem> {
    match (1..=MAX_AMOUNT_CENTS).contains(&amount_cents) {
        true => Ok(()),
        false => Err(Problem::invalid_body(
            "amount_cents must be from 1 to 10^12",
        )),
    }
}
