//! What the handlers did. Written in the same transaction as the effect, so that it cannot say
//! anything else than what happened.

use std::collections::HashSet;

use shared::db::{PoolSettings, TxOptions, begin, connect_lazy, migrate};
use shared::outbox::{Event, MIGRATIONS, OutboxError, stage_all};
use shared::queue::Message;
use sqlx::{PgConnection, PgPool, Row};
use uuid::Uuid;

use super::judge::{Effect, Start};

#[derive(Clone)]
pub(super) struct Ledger {
    pool: PgPool,
}

impl Ledger {
    pub(super) fn open(url: &str) -> Self {
        let settings = PoolSettings {
            max_connections: 4,
            ..PoolSettings::default()
        };
        Self {
            pool: connect_lazy(url.parse().unwrap(), &settings),
        }
    }

    pub(super) fn pool(self) -> PgPool {
        self.pool
    }

    pub(super) async fn create(&self) {
        migrate(&self.pool, &[MIGRATIONS]).await.unwrap();
        // No unique constraint on the effects: whether there are two is what is asked.
        sqlx::raw_sql(
            "create table starts (
                 id bigint generated always as identity primary key,
                 message uuid not null, worker integer not null, attempt integer not null,
                 came_to text
             );
             create table inbox (message uuid primary key);
             create table effects (
                 position bigint generated always as identity primary key,
                 message uuid not null, key text not null, seq integer not null
             )",
        )
        .execute(&self.pool)
        .await
        .unwrap();
    }

    /// A delivery is in the hands of a worker. Committed at once: if the worker is killed it stays.
    pub(super) async fn start(
        &self,
        message: Uuid,
        worker: u32,
        attempt: u32,
    ) -> Result<i64, sqlx::Error> {
        sqlx::query_scalar(
            "insert into starts (message, worker, attempt) values ($1, $2, $3) returning id",
        )
        .bind(message)
        .bind(worker.cast_signed())
        .bind(attempt.cast_signed())
        .fetch_one(&self.pool)
        .await
    }

    /// The effect and the note that it happened, together: the one way to act once on what is
    /// delivered at least once. `naive` leaves the note out.
    pub(super) async fn act(
        &self,
        start: i64,
        message: Uuid,
        key: &str,
        seq: i32,
        naive: bool,
    ) -> Result<(), sqlx::Error> {
        let mut tx = begin(&self.pool, &TxOptions::default()).await?;
        let is_new = naive || note(&mut tx, message).await?;
        if is_new {
            sqlx::query("insert into effects (message, key, seq) values ($1, $2, $3)")
                .bind(message)
                .bind(key)
                .bind(seq)
                .execute(&mut *tx)
                .await?;
        }
        sqlx::query("update starts set came_to = $2 where id = $1")
            .bind(start)
            .bind(if is_new { "done" } else { "known" })
            .execute(&mut *tx)
            .await?;
        tx.commit().await
    }

    /// Stages messages in the outbox: from the commit on they are accepted.
    pub(super) async fn stage(&self, queue: &str, messages: &[Message]) -> Result<(), OutboxError> {
        let event = |message: &Message| Event::new(queue, message.clone());
        let events: Vec<Event> = messages.iter().map(event).collect();
        let mut tx = begin(&self.pool, &TxOptions::default()).await?;
        stage_all(&mut tx, &events).await?;
        Ok(tx.commit().await?)
    }

    /// What relays have lanes at this moment, by the tokens of their claims; those of the dead
    /// included, until their leases end.
    pub(super) async fn claims(&self) -> Result<HashSet<Uuid>, sqlx::Error> {
        let sql = "select distinct claim from outbox_lanes
                   where claim is not null and claimed_until > clock_timestamp()";
        let claims = sqlx::query_scalar(sql).fetch_all(&self.pool).await?;
        Ok(claims.into_iter().collect())
    }

    /// The handler said no.
    pub(super) async fn fail(&self, start: i64) -> Result<(), sqlx::Error> {
        sqlx::query("update starts set came_to = 'failed' where id = $1")
            .bind(start)
            .execute(&self.pool)
            .await
            .map(drop)
    }

    /// How many deliveries this worker has begun, and how many of them have not come to an end.
    pub(super) async fn begun(&self, worker: u32) -> Result<(i64, i64), sqlx::Error> {
        let sql = "select count(*), count(*) filter (where came_to is null)
                   from starts where worker = $1";
        let row = sqlx::query(sql)
            .bind(worker.cast_signed())
            .fetch_one(&self.pool)
            .await?;
        Ok((row.get(0), row.get(1)))
    }

    /// How many different messages had their effect.
    pub(super) async fn done(&self) -> Result<i64, sqlx::Error> {
        let sql = "select count(distinct message) from effects";
        sqlx::query_scalar(sql).fetch_one(&self.pool).await
    }

    pub(super) async fn effects(&self) -> Result<Vec<Effect>, sqlx::Error> {
        let sql = "select message, key, seq from effects order by position";
        let rows = sqlx::query(sql).fetch_all(&self.pool).await?;
        let effect = |row: sqlx::postgres::PgRow| Effect {
            message: row.get(0),
            key: row.get(1),
            seq: row.get(2),
        };
        Ok(rows.into_iter().map(effect).collect())
    }

    pub(super) async fn starts(&self) -> Result<Vec<Start>, sqlx::Error> {
        let sql = "select message, came_to from starts order by id";
        let rows = sqlx::query(sql).fetch_all(&self.pool).await?;
        let start = |row: sqlx::postgres::PgRow| Start {
            message: row.get(0),
            came_to: row.get(1),
        };
        Ok(rows.into_iter().map(start).collect())
    }
}

async fn note(tx: &mut PgConnection, message: Uuid) -> Result<bool, sqlx::Error> {
    sqlx::query("insert into inbox values ($1) on conflict do nothing")
        .bind(message)
        .execute(tx)
        .await
        .map(|done| done.rows_affected() == 1)
}
