//! Alternative: a row lock, held in a transaction as long as the charge takes, and no lease.
//!
//! The lock goes with the session, so a crash frees it at once, and nobody can take it over from a
//! handler that lives: there is nothing to fence. The price is a connection for each running charge.

use std::time::Duration;

use async_trait::async_trait;
use axum::response::{IntoResponse, Response};
use futures::future::BoxFuture;
use kata_lab::{App, BoxError, Env};
use sqlx::{Connection, PgConnection};

use crate::variants::{
    keys::{Claim, Columns, Job, Row, Settled, store},
    protocol::Protocol,
    serving::{self, Service},
};

/// Locks the row.
#[derive(Debug)]
pub struct RowLock;

#[async_trait]
impl Protocol for RowLock {
    async fn settle(&self, service: &Service, job: &Job) -> Result<Response, sqlx::Error> {
        settle_under(lock_row, self, service, job).await
    }

    // One for each charge that runs, half of what two instances may open.
    fn connections(&self) -> u32 {
        30
    }
}

/// Starts it.
pub async fn app(env: Env) -> Result<App, BoxError> {
    serving::start(env, RowLock).await
}

/// Takes a lock that ends with the transaction, without waiting for it; says whether it has it.
pub type Lock =
    for<'a> fn(&'a mut PgConnection, &'a Job) -> BoxFuture<'a, Result<bool, sqlx::Error>>;

/// Settles a job under a lock that lasts as long as the transaction. All that is done under it goes
/// through the same connection: to wait for a second one while holding the first is a deadlock as
/// soon as there are as many requests as connections.
pub async fn settle_under(
    lock: Lock,
    protocol: &impl Protocol,
    service: &Service,
    job: &Job,
) -> Result<Response, sqlx::Error> {
    let mut db = service.db.acquire().await?;
    loop {
        make_row(&mut db, service.config.key_ttl, job).await?;
        let mut transaction = db.begin().await?;
        if !lock(&mut transaction, job).await? {
            transaction.rollback().await?;
            match protocol.look(&mut db, job).await? {
                Some(row) => return Ok(protocol.judge(job, row).refusal()),
                None => continue,
            }
        }
        let columns: Option<Columns> = sqlx::query_as(
            "select token, fingerprint, status, content_type, body
             from idempotency_keys where scope = $1 and key = $2",
        )
        .bind(&job.scope)
        .bind(&job.key)
        .fetch_optional(&mut *transaction)
        .await?;
        // Gone if it was reaped between its making and the lock.
        let Some(row) = columns.map(Row::from) else {
            transaction.rollback().await?;
            continue;
        };
        let token = row.token;
        match protocol.judge(job, row) {
            // Not answered, and nobody else has the lock: ours.
            Claim::Running => {}
            found => {
                transaction.rollback().await?;
                return Ok(found.refusal());
            }
        }
        let outcome = protocol.charge(service, job, token).await;
        let settled = Settled::new(&job.body, &outcome);
        if protocol.is_final(&outcome) {
            let key_ttl = service.config.key_ttl;
            store(&mut *transaction, key_ttl, job, token, &settled).await?;
        }
        transaction.commit().await?;
        return Ok(settled.answer.into_response());
    }
}

/// Committed before the lock is taken, so that others can read the fingerprint while it is held.
async fn make_row(db: &mut PgConnection, key_ttl: Duration, job: &Job) -> Result<(), sqlx::Error> {
    // A key whose time is over goes first, unless its handler still holds it: waiting for a lock
    // here would keep a connection for every request that waits.
    sqlx::query(
        "delete from idempotency_keys where (scope, key) in (
             select scope, key from idempotency_keys
             where scope = $1 and key = $2 and expires_at <= now() for update skip locked)",
    )
    .bind(&job.scope)
    .bind(&job.key)
    .execute(&mut *db)
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
    .bind(key_ttl)
    .execute(db)
    .await?;
    Ok(())
}

fn lock_row<'a>(
    db: &'a mut PgConnection,
    job: &'a Job,
) -> BoxFuture<'a, Result<bool, sqlx::Error>> {
    const LOCK_NOT_AVAILABLE: &str = "55P03";
    Box::pin(async move {
        // `nowait`: fifty that wait for a lock are fifty connections.
        let locked = sqlx::query(
            "select from idempotency_keys where scope = $1 and key = $2 for update nowait",
        )
        .bind(&job.scope)
        .bind(&job.key)
        .execute(db)
        .await;
        match locked {
            Ok(_) => Ok(true),
            Err(sqlx::Error::Database(error))
                if error.code().as_deref() == Some(LOCK_NOT_AVAILABLE) =>
            {
                Ok(false)
            }
            Err(error) => Err(error),
        }
    })
}
