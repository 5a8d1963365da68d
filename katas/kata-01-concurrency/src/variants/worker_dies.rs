//! Flaw: nobody starts the owner again after it has failed.

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

/// Has no supervisor.
#[derive(Debug)]
pub struct WorkerDies;

#[async_trait]
impl Protocol for WorkerDies {
    async fn own(self: Arc<Self>, _service: Service, mut messages: mpsc::Receiver<Message>) {
        let mut stock = Stock::new();
        while let Some(message) = messages.recv().await {
            if !survived(answer(&mut stock, message)).await {
                return;
            }
        }
    }
}

/// Starts it.
pub async fn app(env: Env) -> Result<App, BoxError> {
    serving::start(env, WorkerDies).await
}
