//! Alternative: every request removes a few expired keys, and nothing runs in the background.
//!
//! The table then shrinks only while there are requests, which is also the only time that it grows.

use std::sync::Arc;

use async_trait::async_trait;
use kata_lab::{App, BoxError, Env};

use crate::variants::{
    keys::{Claim, Job, reap},
    protocol::Protocol,
    reference::Reference,
    serving::{self, Service},
};

/// Tidies up on the way.
#[derive(Debug)]
pub struct ReapsOnDemand;

#[async_trait]
impl Protocol for ReapsOnDemand {
    async fn claim(&self, service: &Service, job: &Job) -> Result<Claim, sqlx::Error> {
        // More than one, or the table would never get smaller.
        reap(service, 20).await?;
        Reference.claim(service, job).await
    }

    async fn background(self: Arc<Self>, _service: Service) {}
}

/// Starts it.
pub async fn app(env: Env) -> Result<App, BoxError> {
    serving::start(env, ReapsOnDemand).await
}
