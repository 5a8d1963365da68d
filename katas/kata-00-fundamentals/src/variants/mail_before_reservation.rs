//! Flaw: the customer is told before the goods are set aside.

use kata_lab::{App, BoxError, Env};

use crate::{
    contract::Order,
    effects::Effect,
    variants::{reference::Reference, serving, shop::Shop},
};

/// Tells first.
#[derive(Debug)]
pub struct MailBeforeReservation;

impl Shop for MailBeforeReservation {
    fn on_placing(&self, order: &Order) -> Vec<Effect> {
        let mut effects = Reference.on_placing(order);
        effects.reverse();
        effects
    }
}

/// Starts it.
pub async fn app(env: Env) -> Result<App, BoxError> {
    serving::start(env, MailBeforeReservation).await
}
