//! Alternative: a request that finds its key taken waits, and gives the first one's answer.
//!
//! Kinder to clients than 409, dearer for us: each one that waits asks the database again and again.

use std::time::Duration;

use async_trait::async_trait;
use kata_lab::{App, BoxError, Env};

use crate::variants::{
    keys::{Claim, Job},
    protocol::Protocol,
    reference::Reference,
    serving::{self, Service},
};

/// Has patience.
#[derive(Debug)]
pub struct Waits;

#[async_trait]
impl Protocol for Waits {
    async fn claim(&self, service: &Service, job: &Job) -> Result<Claim, sqlx::Error> {
        loop {
            match Reference.claim(service, job).await? {
                // No connection is held meanwhile, so that any number can wait.
                Claim::Running => tokio::time::sleep(Duration::from_millis(50)).await,
                found => return Ok(found),
            }
        }
    }
}

/// Starts it.
pub async fn app(env: Env) -> Result<App, BoxError> {
    serving::start(env, Waits).await
}
