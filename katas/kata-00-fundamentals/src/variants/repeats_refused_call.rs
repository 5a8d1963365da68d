//! Flaw: an effect that failed is tried again, though nobody knows whether it happened.

use async_trait::async_trait;
use kata_lab::{App, BoxError, Env};

use crate::{
    effects::Effect,
    variants::{
        serving::{self, Service},
        shop::Shop,
    },
};

/// Insists.
#[derive(Debug)]
pub struct RepeatsRefusedCall;

#[async_trait]
impl Shop for RepeatsRefusedCall {
    async fn carry_out(&self, service: &Service, effects: &[Effect]) {
        const TRIES: usize = 3;
        for effect in effects {
            for _ in 0..TRIES {
                match service.outside.carry_out(effect).await {
                    Ok(()) => break,
                    Err(error) => tracing::warn!(%error, "once more"),
                }
            }
        }
    }
}

/// Starts it.
pub async fn app(env: Env) -> Result<App, BoxError> {
    serving::start(env, RepeatsRefusedCall).await
}
