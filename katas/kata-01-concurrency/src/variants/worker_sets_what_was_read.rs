//! Flaw: the owner is asked how many there are, and later told how many there are now.
//!
//! A channel instead of a lock, and the same race: check and act are two messages.

use async_trait::async_trait;
use kata_lab::{App, BoxError, Env};

use crate::{
    contract::{DOOMED, Order, Refused},
    variants::{
        protocol::Protocol,
        reference::Reference,
        serving::{self, Service},
    },
};

/// Does the owner's work for it.
#[derive(Debug)]
pub struct WorkerSetsWhatWasRead;

#[async_trait]
impl Protocol for WorkerSetsWhatWasRead {
    async fn reserve_worker(&self, service: &Service, order: &Order) -> Result<u64, Refused> {
        if order.quantity == DOOMED {
            return Reference.reserve_worker(service, order).await;
        }
        let there = service.worker.look(&order.sku).await?;
        let left = there.checked_sub(order.quantity).ok_or(Refused::SoldOut)?;
        self.approve(service, order).await?;
        service.worker.put(&order.sku, left).await?;
        Ok(left)
    }
}

/// Starts it.
pub async fn app(env: Env) -> Result<App, BoxError> {
    serving::start(env, WorkerSetsWhatWasRead).await
}
