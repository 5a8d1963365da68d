//! Flaw: the token is a counter in the row, which begins at 1 again when the key serves another payment.
//!
//! A handler that is late by a whole life of its key holds a token that is valid once more.

use async_trait::async_trait;
use kata_lab::{App, BoxError, Env};
use sqlx::PgConnection;

use crate::variants::{
    keys::Job,
    protocol::Protocol,
    serving::{self, Service},
};

/// Counts from one.
#[derive(Debug)]
pub struct TokenRestarts;

#[async_trait]
impl Protocol for TokenRestarts {
    async fn lock(
        &self,
        db: &mut PgConnection,
        service: &Service,
        job: &Job,
    ) -> Result<Option<i64>, sqlx::Error> {
        sqlx::query_scalar(
            "insert into idempotency_keys as held
                 (scope, key, fingerprint, token, locked_until, expires_at)
             values ($1, $2, $3, 1, now() + $4, now() + $5)
             on conflict (scope, key) do update
             set fingerprint = excluded.fingerprint,
                 token = case when held.expires_at <= now() then 1 else held.token + 1 end,
                 locked_until = excluded.locked_until, expires_at = excluded.expires_at,
                 status = null, content_type = null, body = null
             where held.locked_until <= now()
               and (held.expires_at <= now()
                    or held.status is null and held.fingerprint = excluded.fingerprint)
             returning token",
        )
        .bind(&job.scope)
        .bind(&job.key)
        .bind(&job.fingerprint)
        .bind(self.lease(service))
        .bind(service.config.key_ttl)
        .fetch_optional(db)
        .await
    }
}

/// Starts it.
pub async fn app(env: Env) -> Result<App, BoxError> {
    serving::start(env, TokenRestarts).await
}
