//! Alternative: the worker's stock has no owner, only a mutex that callers wait for in turn.
//!
//! On the wire nobody can tell the two apart: a full channel makes senders wait, and so does a mutex.

use std::time::Duration;

use async_trait::async_trait;
use kata_lab::{App, BoxError, Env};
use tokio::sync::Mutex;

use crate::{
    contract::{DOOMED, DOOMED_WORK_MS, Order, Refused, Stock, Style},
    variants::{
        protocol::Protocol,
        reference::Reference,
        serving::{self, Service},
        stock::take,
    },
};

/// Has no worker.
#[derive(Debug, Default)]
pub struct MutexWorker {
    stock: Mutex<Stock>,
}

#[async_trait]
impl Protocol for MutexWorker {
    async fn put(
        &self,
        service: &Service,
        style: Style,
        sku: &str,
        quantity: u64,
    ) -> Result<(), Refused> {
        if style != Style::Worker {
            return Reference.put(service, style, sku, quantity).await;
        }
        self.stock.lock().await.insert(sku.to_owned(), quantity);
        Ok(())
    }

    async fn look(&self, service: &Service, style: Style, sku: &str) -> Result<u64, Refused> {
        if style != Style::Worker {
            return Reference.look(service, style, sku).await;
        }
        let stock = self.stock.lock().await;
        stock.get(sku).copied().ok_or(Refused::Unknown)
    }

    async fn reserve_worker(&self, service: &Service, order: &Order) -> Result<u64, Refused> {
        self.look(service, Style::Worker, &order.sku).await?;
        self.approve(service, order).await?;
        let mut stock = self.stock.lock().await;
        if order.quantity == DOOMED {
            tokio::time::sleep(Duration::from_millis(DOOMED_WORK_MS)).await;
            return Err(Refused::OwnerFailed);
        }
        take(&mut stock, order)
    }
}

/// Starts it.
pub async fn app(env: Env) -> Result<App, BoxError> {
    serving::start(env, MutexWorker::default()).await
}
