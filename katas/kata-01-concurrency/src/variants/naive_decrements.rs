//! Flaw: `naive` does not write back what it read: it decides and takes at the end, under one lock.
//!
//! Right, and so not what step 1 asks for.

use async_trait::async_trait;
use kata_lab::{App, BoxError, Env};

use crate::{
    contract::{Order, Refused},
    variants::{
        protocol::Protocol,
        serving::{self, Service},
    },
};

/// Right too early.
#[derive(Debug)]
pub struct NaiveDecrements;

#[async_trait]
impl Protocol for NaiveDecrements {
    async fn reserve_naive(&self, service: &Service, order: &Order) -> Result<u64, Refused> {
        service.naive.look(&order.sku).ok_or(Refused::Unknown)?;
        self.approve(service, order).await?;
        service.naive.take(order)
    }
}

/// Starts it.
pub async fn app(env: Env) -> Result<App, BoxError> {
    serving::start(env, NaiveDecrements).await
}
