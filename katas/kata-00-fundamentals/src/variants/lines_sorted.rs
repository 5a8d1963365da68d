//! Flaw: an order is shown with its lines sorted, and not as it was sent.

use kata_lab::{App, BoxError, Env};
use serde_json::Value;

use crate::{
    contract::Placed,
    variants::{serving, shop::Shop},
};

/// Tidies up.
#[derive(Debug)]
pub struct LinesSorted;

impl Shop for LinesSorted {
    fn shown(&self, order: &Placed) -> Value {
        let mut order = order.clone();
        order
            .order
            .lines
            .sort_by(|one, other| one.sku.cmp(&other.sku));
        order.shown()
    }
}

/// Starts it.
pub async fn app(env: Env) -> Result<App, BoxError> {
    serving::start(env, LinesSorted).await
}
