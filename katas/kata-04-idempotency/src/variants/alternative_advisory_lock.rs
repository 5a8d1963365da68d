//! Alternative: an advisory lock, held in a transaction as long as the charge takes, and no lease.
//!
//! As with a row lock, a crash frees it at once. It locks a number and not a row, so it needs no row
//! to be there; two keys with the same number get in each other's way, and no more than that.

use async_trait::async_trait;
use axum::response::Response;
use futures::future::BoxFuture;
use kata_lab::{App, BoxError, Env};
use sqlx::PgConnection;

use crate::variants::{
    alternative_row_lock::settle_under,
    keys::Job,
    protocol::Protocol,
    serving::{self, Service},
};

/// Locks a number.
#[derive(Debug)]
pub struct AdvisoryLock;

#[async_trait]
impl Protocol for AdvisoryLock {
    async fn settle(&self, service: &Service, job: &Job) -> Result<Response, sqlx::Error> {
        settle_under(lock_number, self, service, job).await
    }

    // One for each charge that runs, half of what two instances may open.
    fn connections(&self) -> u32 {
        30
    }
}

/// Starts it.
pub async fn app(env: Env) -> Result<App, BoxError> {
    serving::start(env, AdvisoryLock).await
}

/// Whether the number of this key is ours until the transaction ends.
pub fn lock_number<'a>(
    db: &'a mut PgConnection,
    job: &'a Job,
) -> BoxFuture<'a, Result<bool, sqlx::Error>> {
    // The numbers are the database's, not the schema's: another program may use the same keys there.
    Box::pin(
        sqlx::query_scalar(
            "select pg_try_advisory_xact_lock(
                 hashtextextended(concat_ws(' ', current_schema(), $1::text, $2::text), 0))",
        )
        .bind(&job.scope)
        .bind(&job.key)
        .fetch_one(db),
    )
}
