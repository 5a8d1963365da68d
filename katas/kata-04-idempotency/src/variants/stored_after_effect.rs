//! Flaw: the key is written after the charge. An advisory lock keeps others out until then.
//!
//! No money is lost: the lock works, and so does the stable provider key. But while the first request
//! runs there is no fingerprint to compare with, and another body is told to wait.

use std::sync::Arc;

use async_trait::async_trait;
use axum::response::Response;
use kata_lab::{App, BoxError, Env};

use crate::variants::{
    alternative_advisory_lock::lock_number,
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
        in_own_task(async move {
            let mut transaction = service.db.begin().await?;
            if lock_number(&mut transaction, &job).await? {
                let response = self.settle(&service, &job).await;
                transaction.commit().await?;
                return response;
            }
            transaction.rollback().await?;
            Ok(match self.claim(&service, &job).await? {
                // Nothing is written yet; somebody is at work on it.
                Claim::Ours(_) => Claim::Running.refusal(),
                found => found.refusal(),
            })
        })
        .await
    }

    fn connections(&self) -> u32 {
        30
    }
}

/// Starts it.
pub async fn app(env: Env) -> Result<App, BoxError> {
    serving::start(env, StoredAfterEffect).await
}
