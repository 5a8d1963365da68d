//! Flaw: the key is written after the charge. An advisory lock keeps others out until then.
//!
//! No money is lost: the lock works, and so does the stable provider key. But while the first request
//! runs there is no fingerprint to compare with, and another body is told to wait.

use std::sync::Arc;

use async_trait::async_trait;
use axum::response::Response;
use kata_lab::{App, BoxError, Env};

use crate::variants::{
    alternative_advisory_lock::settle_under_lock,
    check_then_act::CheckThenAct,
    keys::{Claim, Job, Settled},
    protocol::Protocol,
    serving::{self, Service, in_own_task},
};

/// Writes last.
#[derive(Debug)]
pub struct StoredAfterEffect;

#[async_trait]
impl Protocol for StoredAfterEffect {
    async fn claim(&self, service: &Service, job: &Job) -> Result<Claim, sqlx::Error> {
        CheckThenAct.claim(service, job).await
    }

    async fn finish(
        &self,
        service: &Service,
        job: &Job,
        token: i64,
        settled: &Settled,
    ) -> Result<bool, sqlx::Error> {
        CheckThenAct.finish(service, job, token, settled).await
    }

    async fn release(&self, _: &Service, _: &Job, _token: i64) -> Result<(), sqlx::Error> {
        Ok(())
    }

    async fn run(self: Arc<Self>, service: Service, job: Job) -> Response {
        in_own_task(settle_under_lock(self, service, job)).await
    }

    fn connections(&self) -> u32 {
        60
    }
}

/// Starts it.
pub async fn app(env: Env) -> Result<App, BoxError> {
    serving::start(env, StoredAfterEffect).await
}
