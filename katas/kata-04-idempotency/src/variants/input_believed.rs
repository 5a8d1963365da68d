//! Flaw: the body is read and not checked; an amount of zero or less goes to the provider.

use http::{HeaderMap, StatusCode};
use kata_lab::{App, BoxError, Env};
use shared::http::Problem;

use crate::{
    contract::PayBody,
    variants::{protocol::Protocol, serving},
};

/// Believes what it reads.
#[derive(Debug)]
pub struct InputBelieved;

impl Protocol for InputBelieved {
    fn read(&self, _headers: &HeaderMap, bytes: &[u8]) -> Result<PayBody, Problem> {
        serde_json::from_slice(bytes)
            .map_err(|_| Problem::new(StatusCode::BAD_REQUEST, "The body is not valid"))
    }
}

/// Starts it.
pub async fn app(env: Env) -> Result<App, BoxError> {
    serving::start(env, InputBelieved).await
}
