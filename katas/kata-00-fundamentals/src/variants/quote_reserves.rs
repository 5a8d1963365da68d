//! Flaw: a quote reserves the goods, to be on the safe side.
//!
//! Whoever asks for a price a thousand times empties the warehouse.

use async_trait::async_trait;
use kata_lab::{App, BoxError, Env};
use serde_json::{Value, json};

use crate::{
    contract::{Cart, Order},
    effects::Effect,
    variants::{
        pricing,
        serving::{self, Service},
        shop::Shop,
    },
};

/// Has an effect.
#[derive(Debug)]
pub struct QuoteReserves;

#[async_trait]
impl Shop for QuoteReserves {
    async fn quote(&self, service: &Service, cart: &Cart) -> Value {
        let order = Order {
            order_id: "quote".to_owned(),
            customer: "somebody".to_owned(),
            lines: cart.lines.clone(),
            placed_at: cart.at.clone(),
        };
        self.carry_out(service, &[Effect::reservation(&order)])
            .await;
        json!(pricing::quote(&cart.lines, &cart.at))
    }
}

/// Starts it.
pub async fn app(env: Env) -> Result<App, BoxError> {
    serving::start(env, QuoteReserves).await
}
