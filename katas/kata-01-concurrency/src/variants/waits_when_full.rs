//! Flaw: a job that finds the queue full waits until there is room.
//!
//! The queue has its bound. Those who wait in front of it are a second one that has none. They wait
//! on a task of their own, and so whether or not the caller has hung up, as handlers do in most
//! languages.

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
        let line = service.line.clone();
        let waiting = tokio::spawn(async move {
            while !line.try_push(job.clone()) {
                tokio::time::sleep(Duration::from_millis(10)).await;
            }
        });
        waiting.await.is_ok()
    }
}

/// Starts it.
pub async fn app(env: Env) -> Result<App, BoxError> {
    serving::start(env, WaitsWhenFull).await
}
