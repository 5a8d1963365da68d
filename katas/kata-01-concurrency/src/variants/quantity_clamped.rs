//! Flaw: a quantity that makes no sense is made into one that does.
//!
//! Meant kindly. The client has a bug, hears nothing of it, and has bought a unit.

use http::HeaderMap;
use kata_lab::{App, BoxError, Env};
use serde_json::Value;
use shared::http::Problem;

use crate::variants::{protocol::Protocol, serving};

/// Knows better.
#[derive(Debug)]
pub struct QuantityClamped;

impl Protocol for QuantityClamped {
    fn read(&self, _headers: &HeaderMap, bytes: &[u8]) -> Result<u64, Problem> {
        let body: Value = serde_json::from_slice(bytes).unwrap_or_default();
        Ok(body["quantity"].as_u64().unwrap_or(1).max(1))
    }
}

/// Starts it.
pub async fn app(env: Env) -> Result<App, BoxError> {
    serving::start(env, QuantityClamped).await
}
