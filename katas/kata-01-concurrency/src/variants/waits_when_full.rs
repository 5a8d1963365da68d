//! Flaw: a job that finds the queue full waits until there is room.
//!
//! The queue has its bound. Those who wait in front of it are a second one that has none.

use std::time::Duration;

use async_trait::async_trait;
use kata_lab::{App, BoxError, Env};

use crate::variants::{
    protocol::Protocol,
    serving::{self, Service},
};

/// Has patience, and every caller needs it too.
#[derive(Debug)]
pub struct WaitsWhenFull;

#[async_trait]
impl Protocol for WaitsWhenFull {
    async fn accept(&self, service: &Service, job: String) -> bool {
        while !service.line.try_push(job.clone()) {
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
        true
    }
}

/// Starts it.
pub async fn app(env: Env) -> Result<App, BoxError> {
    serving::start(env, WaitsWhenFull).await
}
