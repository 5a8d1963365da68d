//! Flaw: a dry run computes its list from the request alone, and promises what will be refused.

use async_trait::async_trait;
use kata_lab::{App, BoxError, Env};
use serde_json::Value;

use crate::{
    contract::{self, Order},
    variants::{
        serving::{self, Refusal, Service},
        shop::Shop,
    },
};

/// Looks away.
#[derive(Debug)]
pub struct DryRunLooksAtNothing;

#[async_trait]
impl Shop for DryRunLooksAtNothing {
    async fn rehearse(&self, _service: &Service, order: Order) -> Result<Value, Refusal> {
        let effects = self.on_placing(&order);
        Ok(contract::effects_shown(Some("order placed"), &effects))
    }
}

/// Starts it.
pub async fn app(env: Env) -> Result<App, BoxError> {
    serving::start(env, DryRunLooksAtNothing).await
}
