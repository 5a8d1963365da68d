//! Claiming lanes, reading their events, and writing down what became of them: the statements by
//! which several relays share one outbox.
//!
//! Each statement commits by itself, and the second must not become a part of the first: a statement
//! reads with the snapshot that it began with. One that claims a lane *and* reads it may get a lane
//! that another relay gave back a moment ago, with the events that this other one had published.

use std::time::Duration;

use bytes::Bytes;
use sqlx::postgres::types::PgInterval;
use sqlx::types::Json;
use sqlx::{PgPool, Row};
use std::collections::BTreeMap;
use uuid::Uuid;

/// How many lanes there are. The generated column and the rows of `outbox_lanes` say the same.
pub(super) const LANES: u16 = 64;

/// Lanes that are ours until the lease ends.
#[derive(Debug)]
pub(super) struct Claim {
    /// The fence: another one for each claim.
    token: Uuid,
    lanes: Vec<i16>,
}

/// One event, as it is stored.
#[derive(Debug)]
pub(super) struct Staged {
    pub(super) id: i64,
    pub(super) message_id: Uuid,
    pub(super) queue: String,
    pub(super) key: Option<String>,
    pub(super) payload: Bytes,
    pub(super) headers: BTreeMap<String, String>,
    pub(super) priority: i16,
    /// What is left of it.
    pub(super) delay: Duration,
    pub(super) attempts: i32,
}

/// What became of the events of a claim.
#[derive(Debug, Default)]
pub(super) struct Settlement {
    /// Ids of events that the broker has.
    pub(super) published: Vec<i64>,
    /// Events that it refused.
    pub(super) failed: Vec<Failure>,
}

/// An event that could not be published.
#[derive(Debug)]
pub(super) struct Failure {
    pub(super) id: i64,
    pub(super) error: String,
    /// When it is tried again; `None`: never by itself.
    pub(super) retry_in: Option<Duration>,
}

/// Claims up to `limit` free lanes that have something for one of `queues`.
pub(super) async fn claim(
    pool: &PgPool,
    limit: u16,
    lease: Duration,
    queues: &[String],
) -> Result<Option<Claim>, sqlx::Error> {
    let token = Uuid::new_v4();
    // `skip locked`: another relay is claiming these right now. Random: relays that look at the same
    // moment want different lanes, and each lane has its turn.
    // The clock is the database's alone, so relays may disagree about the time.
    let lanes: Vec<i16> = sqlx::query_scalar(
        "with free as materialized (
             select lane from outbox_lanes l
             where (claimed_until is null or claimed_until < clock_timestamp())
               and exists (
                   select from outbox_events e
                   where e.lane = l.lane and published_at is null and behind is null
                     and queue = any ($4))
             order by random() limit $2
             for update skip locked
         )
         update outbox_lanes l set claim = $1, claimed_until = clock_timestamp() + $3
         from free where l.lane = free.lane
         returning l.lane",
    )
    .bind(token)
    .bind(i64::from(limit))
    .bind(interval(lease))
    .bind(queues)
    .fetch_all(pool)
    .await?;
    Ok((!lanes.is_empty()).then_some(Claim { token, lanes }))
}

impl Claim {
    /// The events at the heads of our lanes, in the order of their ids, at most `limit` of them and
    /// `limit_bytes` of payload; one at least, if there is any.
    ///
    /// Those that have to wait behind a failed one of their key are not among them, and are taken
    /// out of the way, so that the next look does not have to step over them again.
    pub(super) async fn read(
        &self,
        pool: &PgPool,
        limit: u16,
        limit_bytes: u32,
        queues: &[String],
    ) -> Result<Vec<Staged>, sqlx::Error> {
        let each = (usize::from(limit) / self.lanes.len().max(1)).max(1);
        let rows = sqlx::query(
            "with heads as (
                 select e.*, (
                     select max(f.id) from outbox_events f
                     where f.queue = e.queue and f.key = e.key and f.id < e.id and f.behind = f.id
                 ) as failed
                 from unnest($1::smallint[]) l (lane)
                 cross join lateral (
                     select * from outbox_events h
                     where h.lane = l.lane and published_at is null and behind is null
                       and queue = any ($4)
                     order by h.id limit $2
                 ) e
             ),
             -- The length of a payload is known without fetching it.
             sized as (
                 select *, sum(octet_length(payload)) over (order by id)
                           - octet_length(payload) as bytes_before
                 from heads
             )
             select id, message_id, queue, key, payload, headers, priority, attempts, failed,
                    greatest(0, extract(epoch from due_at - clock_timestamp()))::float8 as delay_s
             from sized where bytes_before < $3 order by id",
        )
        .bind(&self.lanes)
        .bind(i64::try_from(each).unwrap_or(i64::MAX))
        .bind(i64::from(limit_bytes))
        .bind(queues)
        .fetch_all(pool)
        .await?;
        let (mut events, mut held, mut behind) = (Vec::new(), Vec::new(), Vec::new());
        for row in rows {
            if let Some(failed) = row.try_get::<Option<i64>, _>("failed")? {
                held.push(row.try_get::<i64, _>("id")?);
                behind.push(failed);
                continue;
            }
            let headers: Json<BTreeMap<String, String>> = row.try_get("headers")?;
            let delay: Option<f64> = row.try_get("delay_s")?;
            events.push(Staged {
                id: row.try_get("id")?,
                message_id: row.try_get("message_id")?,
                queue: row.try_get("queue")?,
                key: row.try_get("key")?,
                payload: Bytes::from(row.try_get::<Vec<u8>, _>("payload")?),
                headers: headers.0,
                priority: row.try_get("priority")?,
                delay: Duration::try_from_secs_f64(delay.unwrap_or_default()).unwrap_or_default(),
                attempts: row.try_get("attempts")?,
            });
        }
        if !held.is_empty() {
            self.hold(pool, &held, &behind).await?;
        }
        Ok(events)
    }

    /// Puts events behind failed ones.
    async fn hold(&self, pool: &PgPool, held: &[i64], behind: &[i64]) -> Result<(), sqlx::Error> {
        // `for share` against whoever resolves the failed event meanwhile: they lock it first and
        // then set free all that is behind it, so either they see what we hold, or we see that
        // nothing is to be held any more.
        sqlx::query(
            "with failed as materialized (
                 select id from outbox_events where id = any ($2) and behind = id for share
             )
             update outbox_events e set behind = failed.id
             from unnest($1::bigint[], $2::bigint[]) as h (id, failed)
             join failed on failed.id = h.failed
             where e.id = h.id and e.behind is null",
        )
        .bind(held)
        .bind(behind)
        .execute(pool)
        .await
        .map(drop)
    }

    /// Writes down what became of the events and gives the lanes back. False if some of the lanes
    /// were not ours any more: of their events nothing is written, so they are published again.
    ///
    /// `keep`: whether published events stay for a while.
    pub(super) async fn settle(
        self,
        pool: &PgPool,
        settlement: &Settlement,
        keep: bool,
    ) -> Result<bool, sqlx::Error> {
        let failed = &settlement.failed;
        let retry_s = failed
            .iter()
            .map(|failure| failure.retry_in.map(|wait| wait.as_secs_f64()));
        let ids: Vec<i64> = failed.iter().map(|failure| failure.id).collect();
        let errors: Vec<&str> = failed
            .iter()
            .map(|failure| failure.error.as_str())
            .collect();
        let retry_s: Vec<Option<f64>> = retry_s.collect();
        // `for update`: while the lanes are locked nobody else can claim them, so what is written
        // below is written by their holder.
        let sql = if keep { SETTLE_AND_KEEP } else { SETTLE };
        let given_back = sqlx::query(sql)
            .bind(self.token)
            .bind(&settlement.published)
            .bind(ids)
            .bind(errors)
            .bind(retry_s)
            .execute(pool)
            .await?
            .rows_affected();
        Ok(given_back == self.lanes.len() as u64)
    }
}

/// Everything but what is done with the published ones.
macro_rules! settle {
    ($published:literal) => {
        concat!(
            "with ours as materialized (
                 select lane from outbox_lanes where claim = $1 order by lane for update
             ),
             published as (",
            $published,
            "where e.id = any ($2) and e.lane in (select lane from ours)
             ),
             failed as (
                 update outbox_events e
                 set attempts = attempts + 1, last_error = f.error, behind = e.id,
                     retry_at = clock_timestamp() + make_interval(secs => f.retry_s)
                 from unnest($3::bigint[], $4::text[], $5::float8[]) as f (id, error, retry_s)
                 where e.id = f.id and e.lane in (select lane from ours)
             )
             update outbox_lanes l set claim = null, claimed_until = null
             from ours where l.lane = ours.lane"
        )
    };
}

const SETTLE: &str = settle!("delete from outbox_events e ");
const SETTLE_AND_KEEP: &str =
    settle!("update outbox_events e set published_at = clock_timestamp() ");

/// Sets parked events free whose time has come, and what waits behind them. How many came due.
pub(super) async fn release_due(pool: &PgPool, limit: u16) -> Result<usize, sqlx::Error> {
    // Two statements, for the reason that `hold` gives; `skip locked`, since another relay that
    // holds the row is doing the same.
    let mut tx = crate::db::begin(pool, &crate::db::TxOptions::default()).await?;
    let due: Vec<i64> = sqlx::query_scalar(
        "select id from outbox_events where retry_at <= clock_timestamp()
         order by retry_at limit $1 for update skip locked",
    )
    .bind(i64::from(limit))
    .fetch_all(&mut *tx)
    .await?;
    if due.is_empty() {
        return Ok(0);
    }
    super::stuck::set_free(&mut tx, &due).await?;
    tx.commit().await?;
    Ok(due.len())
}

fn interval(duration: Duration) -> PgInterval {
    PgInterval {
        months: 0,
        days: 0,
        microseconds: i64::try_from(duration.as_micros()).unwrap_or(i64::MAX),
    }
}
