//! Alternative: looks before it asks, and refuses at once what is sold out already.
//!
//! The look decides nothing: whoever passes it is judged again when the approval is there.

use async_trait::async_trait;
use kata_lab::{App, BoxError, Env};

use crate::{
    contract::{DOOMED, Order, Refused, Style},
    variants::{
        protocol::Protocol,
        reference::Reference,
        serving::{self, Service},
    },
};

/// Spares others the work.
#[derive(Debug)]
pub struct LooksEarly;

impl LooksEarly {
    async fn enough(&self, service: &Service, style: Style, order: &Order) -> Result<(), Refused> {
        match self.look(service, style, &order.sku).await? < order.quantity {
            true => Err(Refused::SoldOut),
            false => Ok(()),
        }
    }
}

#[async_trait]
impl Protocol for LooksEarly {
    async fn reserve_lock(&self, service: &Service, order: &Order) -> Result<u64, Refused> {
        self.enough(service, Style::Lock, order).await?;
        Reference.reserve_lock(service, order).await
    }

    async fn reserve_worker(&self, service: &Service, order: &Order) -> Result<u64, Refused> {
        // Not where the owner has to fail over the order: that is about failing, not about stock.
        if order.quantity != DOOMED {
            self.enough(service, Style::Worker, order).await?;
        }
        Reference.reserve_worker(service, order).await
    }
}

/// Starts it.
pub async fn app(env: Env) -> Result<App, BoxError> {
    serving::start(env, LooksEarly).await
}
