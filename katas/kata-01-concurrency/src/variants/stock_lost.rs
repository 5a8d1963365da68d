//! Flaw: the owner comes back after a failure, with empty hands: its stock died with it.

use std::sync::Arc;

use async_trait::async_trait;
use kata_lab::{App, BoxError, Env};
use tokio::sync::mpsc;

use crate::{
    contract::Stock,
    variants::{
        protocol::Protocol,
        serving::{self, Service},
        stock::{Message, answer, survived},
    },
};

/// Keeps the state inside of what fails.
#[derive(Debug)]
pub struct StockLost;

#[async_trait]
impl Protocol for StockLost {
    async fn own(self: Arc<Self>, _service: Service, mut messages: mpsc::Receiver<Message>) {
        let mut stock = Stock::new();
        while let Some(message) = messages.recv().await {
            if !survived(answer(&mut stock, message)).await {
                stock = Stock::new();
            }
        }
    }
}

/// Starts it.
pub async fn app(env: Env) -> Result<App, BoxError> {
    serving::start(env, StockLost).await
}
