//! Flaw: whatever has the right types is an order, with minus three pieces too.

use http::{HeaderMap, StatusCode};
use kata_lab::{App, BoxError, Env};
use shared::http::Problem;

use crate::{
    contract::Order,
    variants::{serving, shop::Shop},
};

/// Believes.
#[derive(Debug)]
pub struct InputBelieved;

impl Shop for InputBelieved {
    fn read(&self, _headers: &HeaderMap, bytes: &[u8]) -> Result<Order, Problem> {
        serde_json::from_slice(bytes)
            .map_err(|_| Problem::new(StatusCode::BAD_REQUEST, "The body is no order"))
    }
}

/// Starts it.
pub async fn app(env: Env) -> Result<App, BoxError> {
    serving::start(env, InputBelieved).await
}
