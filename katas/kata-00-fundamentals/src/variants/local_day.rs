//! Flaw: the weekend begins where the server stands: half a day early, in Auckland.

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

/// Asks what day it is here.
#[derive(Debug)]
pub struct LocalDay;

#[async_trait]
impl Shop for LocalDay {
    async fn quote(&self, _service: &Service, cart: &Cart) -> Value {
        // What a library makes of TZ=Pacific/Auckland: twelve hours later than UTC, or thirteen.
        let is_tomorrow = cart.at.as_str()[11..13]
            .parse()
            .is_ok_and(|hour: u8| hour >= 12);
        let tomorrow = |today| match today {
            Weekday::Friday => Weekday::Saturday,
            Weekday::Sunday => Weekday::Monday,
            same => same,
        };
        let today = cart.at.weekday();
        let here = if is_tomorrow { tomorrow(today) } else { today };
        json!(pricing::priced(&cart.lines, here.is_weekend()))
    }
}

/// Starts it.
pub async fn app(env: Env) -> Result<App, BoxError> {
    serving::start(env, LocalDay).await
}
