//! Flaw: a job that fails ends the worker that did it, and one day there is no worker left.

use std::sync::Arc;

use async_trait::async_trait;
use kata_lab::{App, BoxError, Env};

use crate::variants::{
    protocol::Protocol,
    serving::{self, Service},
};

/// Falls with its first failure.
#[derive(Debug)]
pub struct WorkerEndsOnFailure;

#[async_trait]
impl Protocol for WorkerEndsOnFailure {
    async fn run_worker(self: Arc<Self>, service: Service) {
        loop {
            let job = service.line.next().await;
            let outcome = service.outside.do_job(&job).await;
            service.line.done();
            if outcome.is_err() {
                return;
            }
        }
    }
}

/// Starts it.
pub async fn app(env: Env) -> Result<App, BoxError> {
    serving::start(env, WorkerEndsOnFailure).await
}
