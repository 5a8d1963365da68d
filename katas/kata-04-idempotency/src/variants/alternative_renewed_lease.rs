//! Alternative: the handler renews its lease while it works.
//!
//! A short lease then serves both: a slow provider, which may take its time, and a crash, after which
//! nobody waits for long. It does not replace fencing: a handler that cannot reach the database cannot
//! renew, and comes back late all the same.

use std::convert::Infallible;

use async_trait::async_trait;
use kata_lab::{App, BoxError, Env};

use crate::{
    provider::{Outage, Outcome},
    variants::{
        keys::Job,
        protocol::Protocol,
        reference::Reference,
        serving::{self, Service},
    },
};

/// Shows that it lives.
#[derive(Debug)]
pub struct RenewedLease;

#[async_trait]
impl Protocol for RenewedLease {
    async fn charge(&self, service: &Service, job: &Job, token: i64) -> Result<Outcome, Outage> {
        tokio::select! {
            outcome = Reference.charge(service, job, token) => outcome,
            never = renew(service, job, token) => match never {},
        }
    }
}

/// Starts it.
pub async fn app(env: Env) -> Result<App, BoxError> {
    serving::start(env, RenewedLease).await
}

async fn renew(service: &Service, job: &Job, token: i64) -> Infallible {
    let lease = service.config.key_lease;
    loop {
        // Often enough that one renewal may fail.
        tokio::time::sleep(lease / 3).await;
        let renewed = sqlx::query(
            "update idempotency_keys set locked_until = now() + $4
             where scope = $1 and key = $2 and token = $3",
        )
        .bind(&job.scope)
        .bind(&job.key)
        .bind(token)
        .bind(lease)
        .execute(&service.db)
        .await;
        if let Err(error) = renewed {
            tracing::warn!(%error, "the lease was not renewed");
        }
    }
}
