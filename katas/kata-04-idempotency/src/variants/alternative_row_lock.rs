//! Alternative: a row lock, held in a transaction as long as the charge takes, and no lease.
//!
//! The lock goes with the session, so a crash frees it at once, and nobody can take it over from a
//! handler that lives: there is nothing to fence. The price is a connection for each running charge.

use async_trait::async_trait;
use axum::response::{IntoResponse, Response};
use kata_lab::{App, BoxError, Env};
use sqlx::PgTransaction;

use crate::variants::{
    keys::{Claim, Job, Settled, store},
    protocol::Protocol,
    serving::{self, Service},
};

/// Locks the row.
#[derive(Debug)]
pub struct RowLock;

#[async_trait]
impl Protocol for RowLock {
    async fn settle(&self, service: &Service, job: &Job) -> Result<Response, sqlx::Error> {
        loop {
            make_row(service, job).await?;
            let mut transaction = service.db.begin().await?;
            let locked = match lock_row(&mut transaction, job).await {
                Ok(Some(token)) => Some(token),
                // Reaped since it was made.
                Ok(None) => continue,
                Err(error) if is_locked(&error) => None,
                Err(error) => return Err(error),
            };
            let Some(row) = self.look(service, job).await? else {
                continue;
            };
            let token = match (locked, self.judge(job, row)) {
                // Not answered, and nobody else holds it.
                (Some(token), Claim::Running) => token,
                (_, found) => return Ok(found.refusal()),
            };
            let outcome = self.charge(service, job, token).await;
            let settled = Settled::new(&job.body, &outcome);
            if self.is_final(&outcome) {
                let key_ttl = service.config.key_ttl;
                store(&mut *transaction, key_ttl, job, token, &settled).await?;
            }
            transaction.commit().await?;
            return Ok(settled.answer.into_response());
        }
    }

    // One for each request that may be held at the provider, and a few for those that ask.
    fn connections(&self) -> u32 {
        60
    }
}

/// Starts it.
pub async fn app(env: Env) -> Result<App, BoxError> {
    serving::start(env, RowLock).await
}

/// Committed before the lock is taken, so that others can read the fingerprint while it is held.
async fn make_row(service: &Service, job: &Job) -> Result<(), sqlx::Error> {
    // A key whose time is over goes first, unless its handler still holds it: waiting for a lock
    // here would keep a connection for every request that waits.
    sqlx::query(
        "delete from idempotency_keys where (scope, key) in (
             select scope, key from idempotency_keys
             where scope = $1 and key = $2 and expires_at <= now() for update skip locked)",
    )
    .bind(&job.scope)
    .bind(&job.key)
    .execute(&service.db)
    .await?;
    sqlx::query(
        "insert into idempotency_keys
             (scope, key, fingerprint, token, locked_until, expires_at)
         values ($1, $2, $3, nextval('idempotency_tokens'), now(), now() + $4)
         on conflict do nothing",
    )
    .bind(&job.scope)
    .bind(&job.key)
    .bind(&job.fingerprint)
    .bind(service.config.key_ttl)
    .execute(&service.db)
    .await?;
    Ok(())
}

// `nowait`: fifty that wait for a lock are fifty connections.
async fn lock_row(
    transaction: &mut PgTransaction<'_>,
    job: &Job,
) -> Result<Option<i64>, sqlx::Error> {
    sqlx::query_scalar(
        "select token from idempotency_keys where scope = $1 and key = $2 for update nowait",
    )
    .bind(&job.scope)
    .bind(&job.key)
    .fetch_optional(&mut **transaction)
    .await
}

fn is_locked(error: &sqlx::Error) -> bool {
    const LOCK_NOT_AVAILABLE: &str = "55P03";
    let error = error.as_database_error();
    error.and_then(|error| error.code()).as_deref() == Some(LOCK_NOT_AVAILABLE)
}
