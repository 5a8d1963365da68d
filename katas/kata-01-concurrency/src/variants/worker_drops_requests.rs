//! Flaw: the owner comes back with its stock and a new channel; what waited in the old one is gone.

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

/// Forgets who waited.
#[derive(Debug)]
pub struct WorkerDropsRequests;

#[async_trait]
impl Protocol for WorkerDropsRequests {
    async fn own(self: Arc<Self>, _service: Service, mut messages: mpsc::Receiver<Message>) {
        let mut stock = Stock::new();
        while let Some(message) = messages.recv().await {
            if !survived(answer(&mut stock, message)).await {
                // As a new channel would: whoever waits for an answer hears that none will come.
                while messages.try_recv().is_ok() {}
            }
        }
    }
}

/// Starts it.
pub async fn app(env: Env) -> Result<App, BoxError> {
    serving::start(env, WorkerDropsRequests).await
}
