//! Flaw: the key is not looked at; each request is a new one.

use http::HeaderMap;
use kata_lab::{App, BoxError, Env};
use shared::http::Problem;
use uuid::Uuid;

use crate::variants::{protocol::Protocol, serving};

/// Ignores the key.
#[derive(Debug)]
pub struct NoKey;

impl Protocol for NoKey {
    fn key(&self, _headers: &HeaderMap) -> Result<String, Problem> {
        Ok(Uuid::new_v4().to_string())
    }
}

/// Starts it.
pub async fn app(env: Env) -> Result<App, BoxError> {
    serving::start(env, NoKey).await
}
