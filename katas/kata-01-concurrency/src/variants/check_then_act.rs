//! Flaw: checks under one lock, asks, and takes under another.
//!
//! Each half is locked, and nothing ties them together: what was checked is old when it is acted on.

use async_trait::async_trait;
use kata_lab::{App, BoxError, Env};

use crate::{
    contract::{Order, Refused},
    variants::{
        protocol::Protocol,
        serving::{self, Service},
    },
};

/// Two right halves.
#[derive(Debug)]
pub struct CheckThenAct;

#[async_trait]
impl Protocol for CheckThenAct {
    async fn reserve_lock(&self, service: &Service, order: &Order) -> Result<u64, Refused> {
        let there = service.lock.look(&order.sku).ok_or(Refused::Unknown)?;
        if there < order.quantity {
            return Err(Refused::SoldOut);
        }
        self.approve(service, order).await?;
        Ok(service.lock.change(|stock| {
            let left = stock.entry(order.sku.clone()).or_default();
            // It was checked above, so this can never be less than nothing.
            *left = left.saturating_sub(order.quantity);
            *left
        }))
    }
}

/// Starts it.
pub async fn app(env: Env) -> Result<App, BoxError> {
    serving::start(env, CheckThenAct).await
}
