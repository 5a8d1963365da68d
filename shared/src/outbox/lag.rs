//! How far the relays are behind, as numbers for a metric.

use std::time::Duration;

use sqlx::{PgPool, Row};

use super::OutboxError;

/// No more than this many events are counted: an outbox that is longer is late by any measure, and
/// a metric must not read a table whole.
pub const COUNT_LIMIT: u32 = 100_000;

/// What is left to be published.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Lag {
    /// Events that a relay can publish now; at most `COUNT_LIMIT`.
    pub waiting: u64,
    /// Events that failed and are tried again.
    pub parked: u64,
    /// Events that failed for good: see `stuck`.
    pub stuck: u64,
    /// Events that wait behind one of those; at most `COUNT_LIMIT`.
    pub held: u64,
    /// Time since the oldest waiting event was staged; `None` if there is none. This is what an
    /// alert looks at.
    pub oldest_waiting: Option<Duration>,
    /// The same of the oldest parked, stuck or held one.
    pub oldest_failed: Option<Duration>,
}

/// Measures it, with a few short reads of indexes.
///
/// Events of transactions that have not committed are not counted.
///
/// # Errors
/// `Sql`.
///
/// # Cancel safety
/// Safe: it only reads.
pub async fn lag(pool: &PgPool) -> Result<Lag, OutboxError> {
    // Whatever failed is older than what it holds back, so the oldest of the failed ones will do.
    let row = sqlx::query(
        "select
           (select count(*) from (select from outbox_events
            where published_at is null and behind is null limit $1) w) as waiting,
           (select count(*) from outbox_events
            where behind = id and retry_at is not null) as parked,
           (select count(*) from outbox_events where behind = id and retry_at is null) as stuck,
           (select count(*) from (select from outbox_events
            where behind is not null and behind <> id limit $1) h) as held,
           (select extract(epoch from clock_timestamp() - min(head.staged_at))::float8
            from outbox_lanes l cross join lateral (
                select staged_at from outbox_events e
                where e.lane = l.lane and published_at is null and behind is null
                order by id limit 1) head) as oldest_waiting,
           (select extract(epoch from clock_timestamp() - min(staged_at))::float8
            from outbox_events where behind = id) as oldest_failed",
    )
    .bind(i64::from(COUNT_LIMIT))
    .fetch_one(pool)
    .await?;
    let count = |column| row.try_get::<i64, _>(column).map(i64::unsigned_abs);
    let age = |column| {
        let seconds: Option<f64> = row.try_get(column)?;
        Ok::<_, sqlx::Error>(seconds.and_then(|s| Duration::try_from_secs_f64(s.max(0.0)).ok()))
    };
    Ok(Lag {
        waiting: count("waiting")?,
        parked: count("parked")?,
        stuck: count("stuck")?,
        held: count("held")?,
        oldest_waiting: age("oldest_waiting")?,
        oldest_failed: age("oldest_failed")?,
    })
}
