//! Flaw: the owner asks for the approval itself, and meanwhile answers nobody.
//!
//! The lock across an await, in the dress of message passing.

use std::sync::Arc;

use async_trait::async_trait;
use kata_lab::{App, BoxError, Env};
use tokio::sync::mpsc;

use crate::{
    contract::{Order, Refused, Stock},
    variants::{
        protocol::Protocol,
        serving::{self, Service},
        stock::{Message, answer, survived},
    },
};

/// Has one owner do everything.
#[derive(Debug)]
pub struct OwnerAsks;

#[async_trait]
impl Protocol for OwnerAsks {
    async fn reserve_worker(&self, service: &Service, order: &Order) -> Result<u64, Refused> {
        service.worker.look(&order.sku).await?;
        service.worker.take(order).await
    }

    async fn own(self: Arc<Self>, service: Service, mut messages: mpsc::Receiver<Message>) {
        let mut stock = Stock::new();
        while let Some(message) = messages.recv().await {
            match message {
                Message::Take { order, tell } if self.approve(&service, &order).await.is_err() => {
                    let _ = tell.send(Err(Refused::NotApproved));
                }
                approved => {
                    survived(answer(&mut stock, approved)).await;
                }
            }
        }
    }
}

/// Starts it.
pub async fn app(env: Env) -> Result<App, BoxError> {
    serving::start(env, OwnerAsks).await
}
