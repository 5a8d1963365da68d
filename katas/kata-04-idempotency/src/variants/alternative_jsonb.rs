//! Alternative: the answer's body is kept as `jsonb`.
//!
//! One can ask the database what was answered. The replay is the same JSON value, and no longer the
//! same bytes: `jsonb` keeps neither white space nor the order of members.

use async_trait::async_trait;
use kata_lab::{App, BoxError, Env};
use sqlx::PgConnection;

use crate::variants::{
    keys::{Columns, Job, Row, Settled, TABLES, store},
    protocol::Protocol,
    serving::{self, Service},
};

/// Keeps documents.
#[derive(Debug)]
pub struct Jsonb;

#[async_trait]
impl Protocol for Jsonb {
    fn tables(&self) -> String {
        format!("{TABLES} alter table idempotency_keys add column if not exists document jsonb;")
    }

    async fn finish(
        &self,
        service: &Service,
        job: &Job,
        token: i64,
        settled: &Settled,
    ) -> Result<bool, sqlx::Error> {
        let mut transaction = service.db.begin().await?;
        let ours = store(
            &mut *transaction,
            service.config.key_ttl,
            job,
            token,
            settled,
        )
        .await?;
        sqlx::query(
            "update idempotency_keys set document = body::jsonb, body = null
             where scope = $1 and key = $2 and token = $3",
        )
        .bind(&job.scope)
        .bind(&job.key)
        .bind(token)
        .execute(&mut *transaction)
        .await?;
        transaction.commit().await?;
        Ok(ours)
    }

    async fn look(&self, db: &mut PgConnection, job: &Job) -> Result<Option<Row>, sqlx::Error> {
        let columns: Option<Columns> = sqlx::query_as(
            "select token, fingerprint, status, content_type, document::text
             from idempotency_keys where scope = $1 and key = $2",
        )
        .bind(&job.scope)
        .bind(&job.key)
        .fetch_optional(db)
        .await?;
        Ok(columns.map(Row::from))
    }
}

/// Starts it.
pub async fn app(env: Env) -> Result<App, BoxError> {
    serving::start(env, Jsonb).await
}
