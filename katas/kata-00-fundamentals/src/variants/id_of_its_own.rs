//! Flaw: an order is shown with an id that was drawn, and not given.
//!
//! Nobody can say in advance what the program will show, so no recorded answer can be compared.

use kata_lab::{App, BoxError, Env};
use serde_json::{Value, json};
use uuid::Uuid;

use crate::{
    contract::Placed,
    variants::{serving, shop::Shop},
};

/// Draws.
#[derive(Debug)]
pub struct IdOfItsOwn;

impl Shop for IdOfItsOwn {
    fn shown(&self, order: &Placed) -> Value {
        let mut shown = order.shown();
        shown["receipt"] = json!(Uuid::new_v4().to_string());
        shown
    }
}

/// Starts it.
pub async fn app(env: Env) -> Result<App, BoxError> {
    serving::start(env, IdOfItsOwn).await
}
