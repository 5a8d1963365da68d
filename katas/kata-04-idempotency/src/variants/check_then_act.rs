//! Flaw: looks for the key, acts if there is none, and writes it afterwards.
//!
//! Whoever looks before that finds nothing either. And since nothing is written before the charge, an
//! attempt has no name that the next one could know: each has a provider key of its own.

use async_trait::async_trait;
use kata_lab::{App, BoxError, Env};
use uuid::Uuid;

use crate::variants::{
    keys::{Claim, Job, Settled, store},
    protocol::Protocol,
    serving::{self, Service},
};

const NO_TOKEN: i64 = 0;

/// Looks, acts, writes.
#[derive(Debug)]
pub struct CheckThenAct;

#[async_trait]
impl Protocol for CheckThenAct {
    async fn claim(&self, service: &Service, job: &Job) -> Result<Claim, sqlx::Error> {
        let mut db = service.db.acquire().await?;
        Ok(match self.look(&mut db, job).await? {
            Some(row) => self.judge(job, row),
            None => Claim::Ours(NO_TOKEN),
        })
    }

    fn provider_key(&self, _job: &Job) -> String {
        Uuid::new_v4().to_string()
    }

    async fn finish(
        &self,
        service: &Service,
        job: &Job,
        _token: i64,
        settled: &Settled,
    ) -> Result<bool, sqlx::Error> {
        let mut transaction = service.db.begin().await?;
        let token = sqlx::query_scalar(
            "insert into idempotency_keys
                 (scope, key, fingerprint, token, locked_until, expires_at)
             values ($1, $2, $3, nextval('idempotency_tokens'), now(), now())
             on conflict (scope, key) do update
             set fingerprint = excluded.fingerprint, token = excluded.token
             returning token",
        )
        .bind(&job.scope)
        .bind(&job.key)
        .bind(&job.fingerprint)
        .fetch_one(&mut *transaction)
        .await?;
        let key_ttl = service.config.key_ttl;
        store(&mut *transaction, key_ttl, job, token, settled).await?;
        transaction.commit().await?;
        Ok(true)
    }

    async fn release(&self, _: &Service, _: &Job, _token: i64) -> Result<(), sqlx::Error> {
        Ok(())
    }
}

/// Starts it.
pub async fn app(env: Env) -> Result<App, BoxError> {
    serving::start(env, CheckThenAct).await
}
