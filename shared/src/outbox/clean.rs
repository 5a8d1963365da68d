//! Removing published events that were kept for a while, a bounded number at a time.

use std::time::Duration;

use sqlx::PgPool;

use super::OutboxError;

/// Removes at most `limit` events that were published longer than `keep` ago, oldest first. How
/// many: if it is `limit`, there may be more.
///
/// Reads no more than it removes. A relay with `keep` calls it by itself.
///
/// # Errors
/// `Sql`.
///
/// # Cancel safety
/// Safe: it happens whole or not at all.
pub async fn clean_up(pool: &PgPool, keep: Duration, limit: u16) -> Result<u64, OutboxError> {
    // `skip locked`: several relays clean up side by side instead of waiting for each other.
    let removed = sqlx::query(
        "delete from outbox_events where id in (
             select id from outbox_events
             where published_at < clock_timestamp() - make_interval(secs => $1)
             order by published_at limit $2
             for update skip locked
         )",
    )
    .bind(keep.as_secs_f64())
    .bind(i64::from(limit))
    .execute(pool)
    .await?;
    Ok(removed.rows_affected())
}
