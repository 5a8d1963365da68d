//! Alternative: an advisory lock, held in a transaction as long as the charge takes, and no lease.
//!
//! As with a row lock, a crash frees it at once. The row of the key is written under it, and needs no
//! lock of its own: a lease of nothing.

use std::{sync::Arc, time::Duration};

use async_trait::async_trait;
use axum::response::{IntoResponse, Response};
use kata_lab::{App, BoxError, Env};

use crate::{
    contract,
    variants::{
        keys::Job,
        protocol::Protocol,
        serving::{self, Service, in_own_task},
    },
};

/// Locks a number.
#[derive(Debug)]
pub struct AdvisoryLock;

#[async_trait]
impl Protocol for AdvisoryLock {
    fn lease(&self, _service: &Service) -> Duration {
        Duration::ZERO
    }

    async fn run(self: Arc<Self>, service: Service, job: Job) -> Response {
        in_own_task(settle_under_lock(self, service, job)).await
    }

    // One for each request that may be held at the provider, and a few for those that ask.
    fn connections(&self) -> u32 {
        60
    }
}

/// Starts it.
pub async fn app(env: Env) -> Result<App, BoxError> {
    serving::start(env, AdvisoryLock).await
}

/// Settles a job while holding the lock of its key; 409 for whoever does not get it, unless the
/// row says more.
pub async fn settle_under_lock(
    protocol: Arc<impl Protocol>,
    service: Service,
    job: Job,
) -> Result<Response, sqlx::Error> {
    let mut transaction = service.db.begin().await?;
    // The lock is the database's, not the schema's: another program may use the same keys there.
    let locked: bool = sqlx::query_scalar(
        "select pg_try_advisory_xact_lock(
             hashtextextended(concat_ws(' ', current_schema(), $1::text, $2::text), 0))",
    )
    .bind(&job.scope)
    .bind(&job.key)
    .fetch_one(&mut *transaction)
    .await?;
    let response = if locked {
        protocol.settle(&service, &job).await
    } else {
        Ok(match protocol.look(&service, &job).await? {
            Some(row) => protocol.judge(&job, row).refusal(),
            // The holder has not come as far as writing it.
            None => contract::conflict(Duration::from_secs(1)).into_response(),
        })
    };
    // The end of the transaction frees the lock.
    transaction.commit().await?;
    response
}
