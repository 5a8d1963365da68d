//! Events whose publish failed for good: a list for an operator, and the two ways out of it.
//!
//! A stuck event holds back the later ones of its key, since they may make no sense without it, and
//! nothing else. It stays until somebody decides.

use std::time::Duration;

use sqlx::{PgConnection, PgPool, Row};
use uuid::Uuid;

use super::OutboxError;
use crate::db::{TxOptions, transaction};

/// An event that no relay tries any more.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Stuck {
    /// Its place in the outbox, for `retry` and `discard`. Grows with the time of staging.
    pub id: i64,
    /// The id that its message has at the broker.
    pub message_id: Uuid,
    /// The queue that it is meant for.
    pub queue: String,
    /// The key whose later events wait behind it.
    pub key: Option<String>,
    /// Length of its payload.
    pub payload_bytes: usize,
    /// How often publishing it failed.
    pub attempts: u32,
    /// What the broker said last.
    pub last_error: String,
    /// How long ago it was staged.
    pub age: Duration,
    /// How many events are known to wait behind it. One that no relay has come across yet is not
    /// counted.
    pub held: u64,
}

/// Stuck events with an id greater than `after`, oldest first: start with 0, go on with the last
/// one's id.
///
/// # Errors
/// `Sql`.
///
/// # Cancel safety
/// Safe: it only reads.
pub async fn stuck(pool: &PgPool, after: i64, limit: u16) -> Result<Vec<Stuck>, OutboxError> {
    let rows = sqlx::query(
        "select e.id, message_id, queue, key, octet_length(payload) as payload_bytes, attempts,
                coalesce(last_error, '') as last_error,
                extract(epoch from clock_timestamp() - staged_at)::float8 as age_s,
                (select count(*) from outbox_events h where h.behind = e.id and h.id <> e.id) as held
         from outbox_events e
         where behind = id and retry_at is null and id > $1
         order by id limit $2",
    )
    .bind(after)
    .bind(i64::from(limit))
    .fetch_all(pool)
    .await?;
    let event = |row: sqlx::postgres::PgRow| {
        let bytes: i32 = row.try_get("payload_bytes")?;
        let attempts: i32 = row.try_get("attempts")?;
        let held: i64 = row.try_get("held")?;
        Ok(Stuck {
            id: row.try_get("id")?,
            message_id: row.try_get("message_id")?,
            queue: row.try_get("queue")?,
            key: row.try_get("key")?,
            payload_bytes: usize::try_from(bytes).unwrap_or_default(),
            attempts: attempts.unsigned_abs(),
            last_error: row.try_get("last_error")?,
            age: Duration::try_from_secs_f64(row.try_get("age_s")?).unwrap_or_default(),
            held: held.unsigned_abs(),
        })
    };
    rows.into_iter().map(event).collect()
}

/// Has a stuck or parked event tried again as if it were new. False if there is none of this id.
///
/// What waits behind it follows it, in order.
///
/// # Errors
/// `Sql`.
///
/// # Cancel safety
/// Safe: it happens whole or not at all, and repeating it does no harm.
pub async fn retry(pool: &PgPool, id: i64) -> Result<bool, OutboxError> {
    resolve(pool, id, false).await
}

/// Gives a stuck or parked event up: it is removed, and what waits behind it goes on without it.
/// False if there is none of this id.
///
/// # Errors
/// `Sql`.
///
/// # Cancel safety
/// Safe: it happens whole or not at all.
pub async fn discard(pool: &PgPool, id: i64) -> Result<bool, OutboxError> {
    resolve(pool, id, true).await
}

async fn resolve(pool: &PgPool, id: i64, discard: bool) -> Result<bool, OutboxError> {
    transaction(pool, &TxOptions::default(), async move |tx| {
        // Locked before what is behind it is looked for: a relay that is about to put one more
        // there waits for us, and then finds that there is nothing to wait behind.
        let locked =
            sqlx::query("select from outbox_events where id = $1 and behind = id for update")
                .bind(id)
                .fetch_optional(&mut *tx)
                .await?;
        if locked.is_none() {
            return Ok(false);
        }
        set_free(&mut *tx, &[id]).await?;
        let sql = if discard {
            "delete from outbox_events where id = $1"
        } else {
            "update outbox_events set attempts = 0 where id = $1"
        };
        sqlx::query(sql).bind(id).execute(&mut *tx).await?;
        Ok(true)
    })
    .await
}

/// Lets failed events and all behind them wait for a relay again. They must be locked, and this be
/// a statement of its own, so that it sees what was put behind them until then.
pub(super) async fn set_free(tx: &mut PgConnection, failed: &[i64]) -> Result<(), sqlx::Error> {
    sqlx::query("update outbox_events set behind = null, retry_at = null where behind = any ($1)")
        .bind(failed)
        .execute(tx)
        .await
        .map(drop)
}
