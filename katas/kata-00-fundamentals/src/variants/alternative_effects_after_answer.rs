//! Alternative: the answer does not wait for the effects; they are carried out behind it, in order.
//!
//! The customer is served sooner, and a crash right after the answer loses more effects. Neither
//! is lost work of the order: that is stored by then.

use async_trait::async_trait;
use kata_lab::{App, BoxError, Env};

use crate::{
    effects::Effect,
    variants::{
        reference::Reference,
        serving::{self, Service},
        shop::Shop,
    },
};

/// Answers first.
#[derive(Debug)]
pub struct EffectsAfterAnswer;

#[async_trait]
impl Shop for EffectsAfterAnswer {
    async fn carry_out(&self, service: &Service, effects: &[Effect]) {
        let (service, effects) = (service.clone(), effects.to_vec());
        tokio::spawn(async move { Reference.carry_out(&service, &effects).await });
    }
}

/// Starts it.
pub async fn app(env: Env) -> Result<App, BoxError> {
    serving::start(env, EffectsAfterAnswer).await
}
