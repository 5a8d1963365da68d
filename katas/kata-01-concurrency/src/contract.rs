//! The contract's vocabulary: routes, limits, bodies and answers. Yours to use in `exercise.rs`.
//!
//! What is decided by the contract is here, so that the exercise can be about what is not: who may
//! change what, when, and how many at once. Nothing in this file knows of locks or channels.

use std::collections::HashMap;

use axum::{
    Json,
    response::{IntoResponse, Response},
};
use http::{HeaderMap, HeaderValue, StatusCode, header};
use kata_lab::{Env, EnvError};
use serde::{Deserialize, Serialize};
use serde_json::json;
use shared::http::{Problem, read_object};

/// Sets and shows the stock of an article; `{style}` is `naive`, `lock` or `worker`.
pub const STOCK: &str = "/{style}/stock/{sku}";
/// Sells some of it.
pub const RESERVE: &str = "/{style}/stock/{sku}/reserve";
/// Takes a job, or refuses it.
pub const JOBS: &str = "/jobs";
/// Says what became of the jobs.
pub const JOB_STATS: &str = "/jobs/stats";
/// Calls the slow service.
pub const FETCHES: &str = "/fetches";
/// Computes.
pub const DIGESTS: &str = "/digests";

/// The quantity on which the owner of the worker's stock works for [`DOOMED_WORK_MS`], and fails.
pub const DOOMED: u64 = 666;
/// See [`DOOMED`].
pub const DOOMED_WORK_MS: u64 = 500;

/// Numbers beyond this one are not the same in every language.
const MAX: u64 = (1 << 53) - 1;

/// What is there, by article.
pub type Stock = HashMap<String, u64>;

/// What the program is given, from its environment.
#[derive(Debug, Clone)]
pub struct Config {
    /// Base address of whoever approves sales, without a slash at its end.
    pub approval_url: String,
    /// Base address of the slow service, without a slash at its end.
    pub slow_url: String,
    /// How many jobs may wait.
    pub queue_limit: usize,
    /// How many jobs are done at once.
    pub queue_workers: usize,
    /// How many fetches call the slow service at once.
    pub fetch_limit: usize,
}

impl Config {
    /// Reads the variables that the contract names.
    ///
    /// # Errors
    /// If one is missing, or is not a number where it should be.
    pub fn from_env(env: &Env) -> Result<Self, EnvError> {
        Ok(Self {
            approval_url: env.text("APPROVAL_URL")?.to_owned(),
            slow_url: env.text("SLOW_URL")?.to_owned(),
            queue_limit: env.number("QUEUE_LIMIT")?,
            queue_workers: env.number("QUEUE_WORKERS")?,
            fetch_limit: env.number("FETCH_LIMIT")?,
        })
    }
}

/// How the stock of an article is kept. Each style has its own.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Style {
    /// Read, ask, write back.
    Naive,
    /// Behind a mutex.
    Lock,
    /// By one task that owns it, and that others send messages to.
    Worker,
}

impl Style {
    /// The style of a path.
    ///
    /// # Errors
    /// 404: there is no such route.
    pub fn of(segment: &str) -> Result<Self, Problem> {
        match segment {
            "naive" => Ok(Self::Naive),
            "lock" => Ok(Self::Lock),
            "worker" => Ok(Self::Worker),
            _ => Err(Problem::new(
                StatusCode::NOT_FOUND,
                "There is no such style",
            )),
        }
    }
}

/// So much of an article, please.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Order {
    /// The article.
    pub sku: String,
    /// How many units, at least one.
    pub quantity: u64,
}

/// Why nothing was sold.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Refused {
    /// 404: there is no such article.
    Unknown,
    /// 409: there is less of it than was ordered.
    SoldOut,
    /// 503: nobody approved the sale.
    NotApproved,
    /// 500: the owner of the stock failed over this order.
    OwnerFailed,
}

impl IntoResponse for Refused {
    fn into_response(self) -> Response {
        let (status, title) = match self {
            Self::Unknown => (StatusCode::NOT_FOUND, "There is no such article"),
            Self::SoldOut => (StatusCode::CONFLICT, "There is not enough of it"),
            Self::NotApproved => (
                StatusCode::SERVICE_UNAVAILABLE,
                "The sale was not approved; nothing was sold",
            ),
            Self::OwnerFailed => (
                StatusCode::INTERNAL_SERVER_ERROR,
                "It could not be sold, and nothing was",
            ),
        };
        Problem::new(status, title).into_response()
    }
}

/// 200: sold, and this is what is left.
pub fn sold(remaining: u64) -> Response {
    Json(json!({ "remaining": remaining })).into_response()
}

/// 200: so many there are.
pub fn quantity(quantity: u64) -> Response {
    Json(json!({ "quantity": quantity })).into_response()
}

/// 503: come back later.
pub fn queue_full() -> Response {
    Problem::new(StatusCode::SERVICE_UNAVAILABLE, "The queue is full")
        .header(header::RETRY_AFTER, HeaderValue::from_static("1"))
        .into_response()
}

/// 502: the slow service did not do its part.
pub fn fetch_failed() -> Response {
    Problem::new(StatusCode::BAD_GATEWAY, "The thing could not be fetched").into_response()
}

/// What became of the jobs since the start.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct JobStats {
    /// They wait.
    pub queued: u64,
    /// The slow service has them.
    pub running: u64,
    /// They have ended, well or not.
    pub done: u64,
    /// They were refused with 503.
    pub refused: u64,
}

impl JobStats {
    /// All jobs that were accepted, as these numbers have it.
    pub fn accepted(&self) -> u64 {
        // A program may say anything.
        let open = self.queued.saturating_add(self.running);
        open.saturating_add(self.done)
    }
}

/// The body of `POST /digests`.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct DigestOrder {
    /// What is hashed first.
    pub seed: String,
    /// How often, in all.
    pub rounds: u64,
}

/// A quantity to put on the shelf.
///
/// # Errors
/// 415 for another media type, 400 for what is no JSON, 422 for what is outside the limits.
pub fn stock_body(headers: &HeaderMap, bytes: &[u8]) -> Result<u64, Problem> {
    let Quantity { quantity } = read_object(headers, bytes)?;
    within("quantity", quantity, 0)
}

/// A quantity to reserve.
///
/// # Errors
/// As [`stock_body`].
pub fn reserve_body(headers: &HeaderMap, bytes: &[u8]) -> Result<u64, Problem> {
    let Quantity { quantity } = read_object(headers, bytes)?;
    within("quantity", quantity, 1)
}

/// The id of a job.
///
/// # Errors
/// As [`stock_body`].
pub fn job_body(headers: &HeaderMap, bytes: &[u8]) -> Result<String, Problem> {
    let Job { job_id } = read_object(headers, bytes)?;
    name("job_id", job_id)
}

/// The id of a thing to fetch.
///
/// # Errors
/// As [`stock_body`].
pub fn fetch_body(headers: &HeaderMap, bytes: &[u8]) -> Result<String, Problem> {
    let Fetch { id } = read_object(headers, bytes)?;
    name("id", id)
}

/// What to compute.
///
/// # Errors
/// As [`stock_body`].
pub fn digest_body(headers: &HeaderMap, bytes: &[u8]) -> Result<DigestOrder, Problem> {
    let order: DigestOrder = read_object(headers, bytes)?;
    within("rounds", order.rounds, 1)?;
    Ok(order)
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Quantity {
    quantity: u64,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Job {
    job_id: String,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Fetch {
    id: String,
}

fn within(member: &str, number: u64, least: u64) -> Result<u64, Problem> {
    match (least..=MAX).contains(&number) {
        true => Ok(number),
        false => Err(Problem::invalid_body(format!(
            "{member} must be from {least} to 2^53 - 1"
        ))),
    }
}

// It becomes a part of a path, so it has to be one as it is.
fn name(member: &str, text: String) -> Result<String, Problem> {
    let allowed = |b: u8| b.is_ascii_alphanumeric() || b"._-".contains(&b);
    match (1..=64).contains(&text.len()) && text.bytes().all(allowed) {
        true => Ok(text),
        false => Err(Problem::invalid_body(format!(
            "{member} must be 1 to 64 of A-Z a-z 0-9 . _ -"
        ))),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn headers() -> HeaderMap {
        let json = HeaderValue::from_static("application/json; charset=utf-8");
        HeaderMap::from_iter([(header::CONTENT_TYPE, json)])
    }

    #[test]
    fn a_quantity_is_a_whole_number_within_limits() {
        let of = |body: &str| reserve_body(&headers(), body.as_bytes());
        assert_eq!(of(r#"{"quantity":1}"#).unwrap(), 1);
        for wrong in [
            r#"{"quantity":0}"#,
            r#"{"quantity":-1}"#,
            r#"{"quantity":1.5}"#,
            r#"{"quantity":"1"}"#,
            r#"{"quantity":9007199254740992}"#,
            r#"{"quantity":1,"more":1}"#,
            "{}",
            "[1]",
        ] {
            let refused = of(wrong).unwrap_err();
            assert_eq!(
                refused.status(),
                StatusCode::UNPROCESSABLE_ENTITY,
                "{wrong}"
            );
        }
        assert_eq!(of("{").unwrap_err().status(), StatusCode::BAD_REQUEST);
        assert_eq!(stock_body(&headers(), br#"{"quantity":0}"#).unwrap(), 0);
    }

    #[test]
    fn another_media_type_is_refused() {
        let refused = job_body(&HeaderMap::new(), br#"{"job_id":"j"}"#).unwrap_err();
        assert_eq!(refused.status(), StatusCode::UNSUPPORTED_MEDIA_TYPE);
    }

    #[test]
    fn an_id_can_stand_in_a_path() {
        let of = |id: &str| fetch_body(&headers(), json!({ "id": id }).to_string().as_bytes());
        assert!(of("thing-1.a_B").is_ok());
        for wrong in ["", "a/b", "a b", "ñ", &"x".repeat(65)] {
            assert!(of(wrong).is_err(), "{wrong}");
        }
    }
}
