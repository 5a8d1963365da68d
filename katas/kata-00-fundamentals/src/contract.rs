//! The contract's vocabulary: routes, limits, bodies and answers. Yours to use in `exercise.rs`.
//!
//! What is decided by the contract is here, so that the exercise can be about what is not: where
//! state lives, what is computed from what, and when something happens outside. Nothing in this
//! file knows of a database, a clock or a price.

use http::{HeaderMap, StatusCode};
use kata_lab::{Env, EnvError};
use serde::{Deserialize, Serialize, de::DeserializeOwned};
use serde_json::{Value, json};
use shared::http::{Problem, read_object};

use crate::{effects::Effect, moment::Moment};

/// Places an order (`POST`, with `?dry_run=true` to see what that would do), lists them (`GET`).
pub const ORDERS: &str = "/orders";
/// Shows an order.
pub const ORDER: &str = "/orders/{id}";
/// Cancels an order.
pub const CANCEL: &str = "/orders/{id}/cancel";
/// Prices a cart.
pub const QUOTES: &str = "/quotes";

/// What the program is given, from its environment.
#[derive(Debug, Clone)]
pub struct Config {
    /// The database; the role's own schema is its search path.
    pub database_url: String,
    /// Base address of the mail service, without a slash at its end. It may have a path.
    pub mail_url: String,
    /// Base address of the warehouse, likewise.
    pub warehouse_url: String,
}

impl Config {
    /// Reads the variables that the contract names.
    ///
    /// # Errors
    /// If one is missing.
    pub fn from_env(env: &Env) -> Result<Self, EnvError> {
        Ok(Self {
            database_url: env.text("DATABASE_URL")?.to_owned(),
            mail_url: env.text("MAIL_URL")?.to_owned(),
            warehouse_url: env.text("WAREHOUSE_URL")?.to_owned(),
        })
    }
}

/// So many pieces of something, at a price.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Line {
    /// What is ordered.
    pub sku: String,
    /// How many.
    pub quantity: i64,
    /// What one costs, in the currency's minor unit.
    pub unit_price_cents: i64,
}

/// The body of `POST /orders`, within the contract's limits.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Order {
    /// Chosen by the caller.
    pub order_id: String,
    /// Who is written to.
    pub customer: String,
    /// In the order in which they were sent.
    pub lines: Vec<Line>,
    /// When the caller says that it was placed.
    pub placed_at: Moment,
}

impl Order {
    /// Reads and checks a body.
    ///
    /// # Errors
    /// 415 for another media type, 400 for what is no JSON, 422 for what is outside the limits.
    pub fn read(headers: &HeaderMap, bytes: &[u8]) -> Result<Self, Problem> {
        let order: Self = read(headers, bytes)?;
        if !is_id(&order.order_id) {
            return Err(Problem::invalid_body(
                "order_id must be 1 to 64 of A-Z a-z 0-9 . _ -",
            ));
        }
        // PostgreSQL's text holds everything but U+0000, which would turn wrong input into a 5xx.
        if order.customer.contains('\0') || !(1..=64).contains(&order.customer.chars().count()) {
            return Err(Problem::invalid_body(
                "customer must have 1 to 64 characters, none of them U+0000",
            ));
        }
        check_lines(&order.lines)?;
        Ok(order)
    }
}

/// The body of `POST /quotes`.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize)]
pub struct Cart {
    /// What is asked for.
    pub lines: Vec<Line>,
    /// When the caller would buy it.
    pub at: Moment,
}

impl Cart {
    /// Reads and checks a body.
    ///
    /// # Errors
    /// As [`Order::read`].
    pub fn read(headers: &HeaderMap, bytes: &[u8]) -> Result<Self, Problem> {
        let cart: Self = read(headers, bytes)?;
        check_lines(&cart.lines)?;
        Ok(cart)
    }
}

/// The body of `POST /orders/{id}/cancel`.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize)]
pub struct Cancellation {
    /// When the caller says that it was cancelled.
    pub cancelled_at: Moment,
}

impl Cancellation {
    /// Reads and checks a body.
    ///
    /// # Errors
    /// As [`Order::read`].
    pub fn read(headers: &HeaderMap, bytes: &[u8]) -> Result<Self, Problem> {
        read_object(headers, bytes)
    }
}

/// What a cart costs: the answer of `POST /quotes`.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Quote {
    /// Quantity times price, over all lines.
    pub subtotal_cents: i64,
    /// What is taken off.
    pub discount_cents: i64,
    /// What is left.
    pub total_cents: i64,
    /// The rules that apply, in the contract's order.
    pub rules: Vec<&'static str>,
}

/// An order as it is kept and shown.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Placed {
    /// As it was sent.
    pub order: Order,
    /// What it costs.
    pub total_cents: i64,
    /// When the caller says that it was cancelled, if it was.
    pub cancelled_at: Option<Moment>,
}

impl Placed {
    /// The body of `GET /orders/{id}`.
    pub fn shown(&self) -> Value {
        let status = match self.cancelled_at {
            None => "placed",
            Some(_) => "cancelled",
        };
        json!({
            "order_id": self.order.order_id,
            "customer": self.order.customer,
            "lines": self.order.lines,
            "total_cents": self.total_cents,
            "status": status,
            "placed_at": self.order.placed_at,
            "cancelled_at": self.cancelled_at,
        })
    }
}

/// The answer to a dry run: the change of the database, if there is one, and the calls.
pub fn effects_shown(change: Option<&str>, effects: &[Effect]) -> Value {
    let change = change.map(|change| json!({ "target": "database", "change": change }));
    let calls = effects.iter().map(|effect| json!(effect));
    json!({ "effects": change.into_iter().chain(calls).collect::<Vec<_>>() })
}

/// Whether the query asks for a dry run.
pub fn is_dry_run(query: Option<&str>) -> bool {
    let mut members = query.unwrap_or_default().split('&');
    members.any(|member| member == "dry_run=true")
}

/// Whether a text can be an id. What is in a path may be anything.
pub fn is_id(text: &str) -> bool {
    (1..=64).contains(&text.len())
        && text
            .bytes()
            .all(|byte| byte.is_ascii_alphanumeric() || b"._-".contains(&byte))
}

/// 404: there is no such order.
pub fn not_found() -> Problem {
    Problem::new(StatusCode::NOT_FOUND, "No such order")
}

/// 409: the id belongs to another order.
pub fn id_is_taken() -> Problem {
    Problem::new(
        StatusCode::CONFLICT,
        "This order_id belongs to another order",
    )
}

/// 503: the database does not answer as it should.
pub fn unavailable() -> Problem {
    Problem::new(
        StatusCode::SERVICE_UNAVAILABLE,
        "Not possible at the moment; send the same request again",
    )
}

fn check_lines(lines: &[Line]) -> Result<(), Problem> {
    const MOST_PIECES: i64 = 1_000_000;
    const HIGHEST_PRICE: i64 = 10_000_000;
    if !(1..=100).contains(&lines.len()) {
        return Err(Problem::invalid_body("there must be 1 to 100 lines"));
    }
    for line in lines {
        if !is_id(&line.sku) {
            return Err(Problem::invalid_body(
                "sku must be 1 to 64 of A-Z a-z 0-9 . _ -",
            ));
        }
        if !(1..=MOST_PIECES).contains(&line.quantity) {
            return Err(Problem::invalid_body("quantity must be from 1 to 1000000"));
        }
        if !(0..=HIGHEST_PRICE).contains(&line.unit_price_cents) {
            return Err(Problem::invalid_body(
                "unit_price_cents must be from 0 to 10000000",
            ));
        }
    }
    Ok(())
}

// What is true of the body is true of each line: without their names, members are not taken.
fn read<T: DeserializeOwned>(headers: &HeaderMap, bytes: &[u8]) -> Result<T, Problem> {
    let body: Value = read_object(headers, bytes)?;
    let mut lines = body["lines"].as_array().into_iter().flatten();
    if !lines.all(Value::is_object) {
        return Err(Problem::invalid_body("each line must be an object"));
    }
    serde_json::from_value(body).map_err(|error| Problem::invalid_body(error.to_string()))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn read(change: impl Fn(&mut Value)) -> Result<Order, Problem> {
        let mut body = json!({
            "order_id": "o-1",
            "customer": "ada",
            "lines": [{ "sku": "tea", "quantity": 2, "unit_price_cents": 350 }],
            "placed_at": "2026-03-07T10:00:00Z",
        });
        change(&mut body);
        let json = http::HeaderValue::from_static("application/json; charset=utf-8");
        let headers = HeaderMap::from_iter([(http::header::CONTENT_TYPE, json)]);
        Order::read(&headers, body.to_string().as_bytes())
    }

    #[test]
    fn limits_are_part_of_what_is_allowed() {
        assert!(read(|_| {}).is_ok());
        let longest = "x".repeat(64);
        assert!(read(|body| body["customer"] = json!("é".repeat(64))).is_ok());
        assert!(read(|body| body["order_id"] = json!(longest)).is_ok());
        assert!(read(|body| body["lines"][0]["unit_price_cents"] = json!(0)).is_ok());
        assert!(read(|body| body["lines"][0]["quantity"] = json!(1_000_000)).is_ok());
    }

    #[test]
    fn what_is_outside_of_them_is_refused() {
        let line = json!({ "sku": "tea", "quantity": 1, "unit_price_cents": 1 });
        let wrong: [(&str, Value); 10] = [
            ("order_id", json!("a/b")),
            ("order_id", json!("")),
            ("customer", json!("a\0b")),
            ("customer", json!("é".repeat(65))),
            ("lines", json!([])),
            ("lines", json!(vec![line; 101])),
            ("lines", json!([["tea", 1, 1]])),
            (
                "lines",
                json!([{ "sku": "tea", "quantity": 0, "unit_price_cents": 1 }]),
            ),
            (
                "lines",
                json!([{ "sku": "tea", "quantity": 1, "unit_price_cents": -1 }]),
            ),
            ("placed_at", json!("2026-02-30T00:00:00Z")),
        ];
        for (member, value) in wrong {
            let refused = read(|body| body[member] = value.clone()).unwrap_err();
            assert_eq!(
                refused.status(),
                StatusCode::UNPROCESSABLE_ENTITY,
                "{member}: {value}"
            );
        }
        assert!(read(|body| *body = json!(["o-1", "ada", [], "2026-03-07T10:00:00Z"])).is_err());
    }

    #[test]
    fn a_dry_run_is_asked_for_by_name() {
        assert!(is_dry_run(Some("dry_run=true")));
        assert!(is_dry_run(Some("a=b&dry_run=true")));
        for query in [None, Some(""), Some("dry_run=false"), Some("xdry_run=true")] {
            assert!(!is_dry_run(query), "{query:?}");
        }
    }
}
