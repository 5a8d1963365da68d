//! Flaw: the first effect that fails is the last one that is tried.

use async_trait::async_trait;
use kata_lab::{App, BoxError, Env};

use crate::{
    effects::Effect,
    variants::{
        serving::{self, Service},
        shop::Shop,
    },
};

/// Gives up.
#[derive(Debug)]
pub struct GivesUpAfterRefusal;

#[async_trait]
impl Shop for GivesUpAfterRefusal {
    async fn carry_out(&self, service: &Service, effects: &[Effect]) {
        for effect in effects {
            if let Err(error) = service.outside.carry_out(effect).await {
                tracing::warn!(%error, "the rest is left out");
                return;
            }
        }
    }
}

/// Starts it.
pub async fn app(env: Env) -> Result<App, BoxError> {
    serving::start(env, GivesUpAfterRefusal).await
}
