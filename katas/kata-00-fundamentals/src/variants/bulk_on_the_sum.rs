//! Flaw: the bulk discount is rounded once, over all lines, and not for each.
//!
//! A cent, now and then: too little to be seen, and enough for books that do not balance.

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

/// Rounds late.
#[derive(Debug)]
pub struct BulkOnTheSum;

#[async_trait]
impl Shop for BulkOnTheSum {
    async fn quote(&self, _service: &Service, cart: &Cart) -> Value {
        let mut quote = pricing::quote(&cart.lines, &cart.at);
        let bulk_lines = cart.lines.iter().filter(|line| line.quantity >= 10);
        let gross: i64 = bulk_lines
            .map(|line| line.quantity * line.unit_price_cents)
            .sum();
        let bulk = gross / 10;
        let weekend = match cart.at.weekday().is_weekend() {
            true => (quote.subtotal_cents - bulk) * 5 / 100,
            false => 0,
        };
        quote.discount_cents = bulk + weekend;
        quote.total_cents = quote.subtotal_cents - quote.discount_cents;
        json!(quote)
    }
}

/// Starts it.
pub async fn app(env: Env) -> Result<App, BoxError> {
    serving::start(env, BulkOnTheSum).await
}
