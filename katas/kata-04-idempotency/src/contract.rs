//! The contract's vocabulary: routes, limits, bodies and answers. Yours to use in `exercise.rs`.
//!
//! What is decided by the contract is here, so that the exercise can be about what is not: when to
//! charge, what to remember, and who may write. Nothing in this file knows of keys or locks.

use std::time::Duration;

use axum::response::{IntoResponse, Response};
use http::{HeaderMap, HeaderName, HeaderValue, StatusCode, header};
use kata_lab::{Env, EnvError};
use serde::{Deserialize, Serialize};
use serde_json::{Map, Value, json};
use shared::http::{Problem, read_object};

/// Pays once for each `Idempotency-Key`.
pub const PAY: &str = "/pay";
/// Shows a payment to the account that made it.
pub const PAYMENT: &str = "/payments/{id}";
/// Takes a message that the lab, as the broker, pushes.
pub const MESSAGES: &str = "/messages";

/// The request header that carries the key.
pub const IDEMPOTENCY_KEY: HeaderName = HeaderName::from_static("idempotency-key");
/// The response header that says: this is what I said the first time.
pub const REPLAYED: HeaderName = HeaderName::from_static("idempotency-replayed");

/// Numbers beyond this one are not the same in every language.
const MAX_AMOUNT_CENTS: i64 = (1 << 53) - 1;

/// What the program is given, from its environment.
#[derive(Debug, Clone)]
pub struct Config {
    /// The database; the role's own schema is its search path.
    pub database_url: String,
    /// Base address of the payment provider, without a slash at its end.
    pub provider_url: String,
    /// How long one answer of the provider may take.
    pub provider_timeout: Duration,
    /// How long a key may stay locked by a handler that has stopped making progress.
    pub key_lease: Duration,
    /// How long an answer is remembered after it was stored.
    pub key_ttl: Duration,
}

impl Config {
    /// Reads the variables that the contract names.
    ///
    /// # Errors
    /// If one is missing, or is not a number of milliseconds where it should be.
    pub fn from_env(env: &Env) -> Result<Self, EnvError> {
        Ok(Self {
            database_url: env.text("DATABASE_URL")?.to_owned(),
            provider_url: env.text("PAYMENT_PROVIDER_URL")?.to_owned(),
            provider_timeout: env.millis("PROVIDER_TIMEOUT_MS")?,
            key_lease: env.millis("KEY_LEASE_MS")?,
            key_ttl: env.millis("KEY_TTL_MS")?,
        })
    }
}

/// The body of `POST /pay`, within the contract's limits.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct PayBody {
    /// Chosen by the caller.
    pub payment_id: String,
    /// In the currency's minor unit.
    pub amount_cents: i64,
    /// Three capital letters.
    pub currency: String,
    /// The card to charge.
    pub card: String,
}

impl PayBody {
    /// Reads and checks a body.
    ///
    /// # Errors
    /// 415 for another media type, 400 for what is no JSON, 422 for what is outside the limits.
    pub fn read(headers: &HeaderMap, bytes: &[u8]) -> Result<Self, Problem> {
        Self::from_value(read_object(headers, bytes)?)
    }

    fn from_value(value: Value) -> Result<Self, Problem> {
        let body: Self = serde_json::from_value(value)
            .map_err(|error| Problem::invalid_body(error.to_string()))?;
        if !is_text(&body.payment_id) {
            return Err(Problem::invalid_body(
                "payment_id must have 1 to 64 characters",
            ));
        }
        if !(1..=MAX_AMOUNT_CENTS).contains(&body.amount_cents) {
            return Err(Problem::invalid_body(
                "amount_cents must be from 1 to 2^53 - 1",
            ));
        }
        if body.currency.len() != 3 || !body.currency.bytes().all(|b| b.is_ascii_uppercase()) {
            return Err(Problem::invalid_body(
                "currency must be three capital letters",
            ));
        }
        if !is_text(&body.card) {
            return Err(Problem::invalid_body("card must have 1 to 64 characters"));
        }
        Ok(body)
    }
}

/// What the broker pushes.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Message {
    /// Somebody wants a payment made.
    PaymentRequested {
        /// The same for every push of this message.
        message_id: String,
        /// Whose payment it is.
        account: String,
        /// What to pay.
        body: PayBody,
    },
    /// A type that this program does not know: nothing to do, and no reason to see it again.
    Unknown,
}

impl Message {
    /// Reads and checks a message.
    ///
    /// # Errors
    /// As [`PayBody::read`].
    pub fn read(headers: &HeaderMap, bytes: &[u8]) -> Result<Self, Problem> {
        let mut members: Map<String, Value> = read_object(headers, bytes)?;
        let mut take = |name: &str| match members.remove(name) {
            Some(Value::String(text)) => Ok(text),
            _ => Err(Problem::invalid_body(format!("{name} must be a text"))),
        };
        if take("type")? != "payment.requested" {
            return Ok(Self::Unknown);
        }
        let message_id = take("message_id")?;
        if message_id.is_empty() || message_id.len() > 255 || message_id.contains('\0') {
            return Err(Problem::invalid_body(
                "message_id must have 1 to 255 characters",
            ));
        }
        let account = take("account")?;
        if !is_account(&account) {
            return Err(Problem::invalid_body(
                "account must be 1 to 64 of A-Z a-z 0-9 . _ -",
            ));
        }
        let body = PayBody::from_value(members.into())?;
        Ok(Self::PaymentRequested {
            message_id,
            account,
            body,
        })
    }
}

/// The account that calls, believed as it is: this kata is not about passwords.
///
/// # Errors
/// 401 if there is no `Authorization: Bearer <account>`.
pub fn caller(headers: &HeaderMap) -> Result<String, Problem> {
    headers
        .get(header::AUTHORIZATION)
        .and_then(|value| value.to_str().ok())
        .and_then(|value| value.split_once(' '))
        .filter(|(scheme, account)| scheme.eq_ignore_ascii_case("bearer") && is_account(account))
        .map(|(_, account)| account.to_owned())
        .ok_or_else(|| {
            Problem::new(StatusCode::UNAUTHORIZED, "Who is calling?")
                .detail("send Authorization: Bearer <account>")
                .header(header::WWW_AUTHENTICATE, HeaderValue::from_static("Bearer"))
        })
}

/// An answer that can be kept and given again: status, media type and body.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Answer {
    /// The HTTP status.
    pub status: u16,
    /// The media type of the body.
    pub content_type: String,
    /// JSON.
    pub body: String,
}

impl Answer {
    /// 201: charged.
    pub fn captured(body: &PayBody, charge_id: &str) -> Self {
        let content = json!({
            "payment_id": body.payment_id,
            "charge_id": charge_id,
            "status": "captured",
        });
        Self {
            status: StatusCode::CREATED.as_u16(),
            content_type: "application/json".to_owned(),
            body: content.to_string(),
        }
    }

    /// 402: the provider has said no, and will say no again.
    pub fn declined() -> Self {
        Self::problem(StatusCode::PAYMENT_REQUIRED, "The card was declined")
    }

    /// 503: we do not know what happened, or could not do our part.
    pub fn unavailable() -> Self {
        Self::problem(
            StatusCode::SERVICE_UNAVAILABLE,
            "Not possible at the moment; send the same request again",
        )
    }

    fn problem(status: StatusCode, title: &str) -> Self {
        Self {
            status: status.as_u16(),
            content_type: "application/problem+json".to_owned(),
            body: json!({ "title": title, "status": status.as_u16() }).to_string(),
        }
    }

    /// The same answer to somebody who asks again: marked with `Idempotency-Replayed: true`.
    pub fn replayed(self) -> Response {
        let mut response = self.into_response();
        response
            .headers_mut()
            .insert(REPLAYED, HeaderValue::from_static("true"));
        response
    }
}

impl IntoResponse for Answer {
    fn into_response(self) -> Response {
        let status = StatusCode::from_u16(self.status).unwrap_or(StatusCode::INTERNAL_SERVER_ERROR);
        (
            status,
            [(header::CONTENT_TYPE, self.content_type)],
            self.body,
        )
            .into_response()
    }
}

/// 400: no key, or one that cannot be a key.
pub fn bad_key(detail: &str) -> Problem {
    Problem::new(StatusCode::BAD_REQUEST, "Idempotency-Key is required").detail(detail)
}

/// 409: the first request with this key is still running.
pub fn conflict(retry_after: Duration) -> Problem {
    // Rounded up: a client that comes back too early gains nothing.
    let seconds = retry_after.as_secs() + u64::from(retry_after.subsec_nanos() > 0);
    Problem::new(StatusCode::CONFLICT, "A request with this key is running")
        .header(header::RETRY_AFTER, HeaderValue::from(seconds))
}

/// 422: the key was used with another body. It says nothing about that body, nor about its answer.
pub fn reused_key() -> Problem {
    Problem::new(
        StatusCode::UNPROCESSABLE_ENTITY,
        "This key was used for another request",
    )
}

/// 404: no such payment of this account.
pub fn not_found() -> Problem {
    Problem::new(StatusCode::NOT_FOUND, "No such payment")
}

// PostgreSQL's text holds everything but U+0000; letting it through would turn wrong input into 503.
fn is_text(text: &str) -> bool {
    !text.contains('\0') && (1..=64).contains(&text.chars().count())
}

fn is_account(text: &str) -> bool {
    (1..=64).contains(&text.len())
        && text
            .bytes()
            .all(|b| b.is_ascii_alphanumeric() || b"._-".contains(&b))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn json_headers() -> HeaderMap {
        let json = HeaderValue::from_static("application/json; charset=utf-8");
        HeaderMap::from_iter([(header::CONTENT_TYPE, json)])
    }

    fn message(change: impl Fn(&mut Value)) -> Result<Message, Problem> {
        let mut value = json!({
            "message_id": "m-1", "type": "payment.requested", "account": "acme",
            "payment_id": "pay-1", "amount_cents": 100, "currency": "EUR", "card": "4242",
        });
        change(&mut value);
        Message::read(&json_headers(), value.to_string().as_bytes())
    }

    #[test]
    fn text_that_the_database_cannot_hold_is_wrong_input() {
        let body = r#"{"payment_id":"a\u0000","amount_cents":1,"currency":"EUR","card":"c"}"#;
        let refused = PayBody::read(&json_headers(), body.as_bytes()).unwrap_err();
        assert_eq!(refused.status(), StatusCode::UNPROCESSABLE_ENTITY);
    }

    #[test]
    fn a_message_of_an_unknown_type_may_have_any_other_members() {
        let unknown = message(|value| *value = json!({ "type": "payment.celebrated", "cake": 1 }));
        assert_eq!(unknown.unwrap(), Message::Unknown);
    }

    #[test]
    fn a_message_is_as_strict_as_a_request() {
        assert!(message(|_| {}).is_ok());
        for (member, wrong) in [
            ("message_id", json!("")),
            ("account", json!("a/b")),
            ("amount_cents", json!(0)),
            ("type", json!(7)),
            ("more", json!("than asked for")),
        ] {
            assert!(
                message(|value| value[member] = wrong.clone()).is_err(),
                "{member}"
            );
        }
    }

    #[test]
    fn the_caller_is_an_account_after_bearer() {
        let of = |value: &'static str| {
            let value = HeaderValue::from_static(value);
            caller(&HeaderMap::from_iter([(header::AUTHORIZATION, value)])).ok()
        };
        assert_eq!(of("Bearer acme-1").as_deref(), Some("acme-1"));
        for wrong in ["Basic YTpi", "Bearer", "Bearer ", "Bearer a b", "acme"] {
            assert_eq!(of(wrong), None, "{wrong}");
        }
    }

    #[test]
    fn retry_after_is_rounded_up() {
        for (wait_ms, seconds) in [(0, "0"), (1, "1"), (1_000, "1"), (1_001, "2")] {
            let response = conflict(Duration::from_millis(wait_ms)).into_response();
            assert_eq!(response.headers()[header::RETRY_AFTER], seconds);
        }
    }
}
