//! Flaw: after an outage the key is freed by its name; a late handler frees what its successor has stored.

use async_trait::async_trait;
use kata_lab::{App, BoxError, Env};

use crate::variants::{
    keys::Job,
    protocol::Protocol,
    serving::{self, Service},
};

/// Deletes by name.
#[derive(Debug)]
pub struct ReleaseNotFenced;

#[async_trait]
impl Protocol for ReleaseNotFenced {
    async fn release(&self, service: &Service, job: &Job, _token: i64) -> Result<(), sqlx::Error> {
        sqlx::query("delete from idempotency_keys where scope = $1 and key = $2")
            .bind(&job.scope)
            .bind(&job.key)
            .execute(&service.db)
            .await?;
        Ok(())
    }
}

/// Starts it.
pub async fn app(env: Env) -> Result<App, BoxError> {
    serving::start(env, ReleaseNotFenced).await
}
