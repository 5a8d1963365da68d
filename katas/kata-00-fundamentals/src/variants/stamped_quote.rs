//! Flaw: a quote says when it was made, so no two are the same.

use std::time::{SystemTime, UNIX_EPOCH};

use async_trait::async_trait;
use kata_lab::{App, BoxError, Env};
use serde_json::{Value, json};

use crate::{
    contract::Cart,
    variants::{
        pricing,
        serving::{self, Service},
        shop::Shop,
    },
};

/// Stamps.
#[derive(Debug)]
pub struct StampedQuote;

#[async_trait]
impl Shop for StampedQuote {
    async fn quote(&self, _service: &Service, cart: &Cart) -> Value {
        let now = SystemTime::now().duration_since(UNIX_EPOCH);
        let mut quote = json!(pricing::quote(&cart.lines, &cart.at));
        quote["quoted_at"] = json!(now.unwrap_or_default().as_nanos().to_string());
        quote
    }
}

/// Starts it.
pub async fn app(env: Env) -> Result<App, BoxError> {
    serving::start(env, StampedQuote).await
}
