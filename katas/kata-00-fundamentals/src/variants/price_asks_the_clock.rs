//! Flaw: whether it is a weekend is asked of the clock, and not of the input.
//!
//! From Monday to Friday every test of it is green that has no weekend in it.

use std::time::{SystemTime, UNIX_EPOCH};

use async_trait::async_trait;
use kata_lab::{App, BoxError, Env};
use serde_json::{Value, json};

use crate::{
    contract::Cart,
    moment::Weekday,
    variants::{
        pricing,
        serving::{self, Service},
        shop::Shop,
    },
};

/// Asks what day it is.
#[derive(Debug)]
pub struct PriceAsksTheClock;

#[async_trait]
impl Shop for PriceAsksTheClock {
    async fn quote(&self, _service: &Service, cart: &Cart) -> Value {
        const DAY_S: u64 = 24 * 60 * 60;
        let since_1970 = SystemTime::now().duration_since(UNIX_EPOCH);
        let today = since_1970.unwrap_or_default().as_secs() / DAY_S;
        let today = Weekday::of_day(today as i64);
        json!(pricing::priced(&cart.lines, today.is_weekend()))
    }
}

/// Starts it.
pub async fn app(env: Env) -> Result<App, BoxError> {
    serving::start(env, PriceAsksTheClock).await
}
