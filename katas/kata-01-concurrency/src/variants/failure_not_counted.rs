//! Flaw: a job that failed is never counted as done, so it seems to run for ever.

use std::sync::Arc;

use async_trait::async_trait;
use kata_lab::{App, BoxError, Env};

use crate::variants::{
    protocol::Protocol,
    serving::{self, Service},
};

/// Counts what went well.
#[derive(Debug)]
pub struct FailureNotCounted;

#[async_trait]
impl Protocol for FailureNotCounted {
    async fn run_worker(self: Arc<Self>, service: Service) {
        loop {
            let job = service.line.next().await;
            if service.outside.do_job(&job).await.is_ok() {
                service.line.done();
            }
        }
    }
}

/// Starts it.
pub async fn app(env: Env) -> Result<App, BoxError> {
    serving::start(env, FailureNotCounted).await
}
