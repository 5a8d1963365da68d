//! Flaw: a dry run leaves out the calls, and stores the order.

use async_trait::async_trait;
use kata_lab::{App, BoxError, Env};
use serde_json::Value;

use crate::{
    contract::Order,
    variants::{
        reference::Reference,
        serving::{self, Refusal, Service},
        shop::Shop,
    },
};

/// Half of a dry run.
#[derive(Debug)]
pub struct DryRunStores;

#[async_trait]
impl Shop for DryRunStores {
    async fn rehearse(&self, service: &Service, order: Order) -> Result<Value, Refusal> {
        let placed = self.placed(order.clone());
        let listed = Reference.rehearse(service, order).await?;
        let mut db = self.db(service).await?;
        self.store(&mut db, &placed).await?;
        Ok(listed)
    }
}

/// Starts it.
pub async fn app(env: Env) -> Result<App, BoxError> {
    serving::start(env, DryRunStores).await
}
