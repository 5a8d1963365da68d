//! Flaw: the order is priced by other code than the quote, and that code knows no discounts.

use kata_lab::{App, BoxError, Env};

use crate::{
    contract::Order,
    variants::{serving, shop::Shop},
};

/// Adds up.
#[derive(Debug)]
pub struct TotalWithoutDiscounts;

impl Shop for TotalWithoutDiscounts {
    fn total(&self, order: &Order) -> i64 {
        let lines = order.lines.iter();
        lines
            .map(|line| line.quantity * line.unit_price_cents)
            .sum()
    }
}

/// Starts it.
pub async fn app(env: Env) -> Result<App, BoxError> {
    serving::start(env, TotalWithoutDiscounts).await
}
