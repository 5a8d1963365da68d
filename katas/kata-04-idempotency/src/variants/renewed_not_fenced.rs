//! Flaw: the lease is renewed while the handler works, and so nothing is fenced.
//!
//! A handler that lives keeps its key, unless it is cut off from the database: then it cannot renew,
//! another takes over, and it does not know.

use async_trait::async_trait;
use kata_lab::{App, BoxError, Env};

use crate::{
    provider::{Outage, Outcome},
    variants::{
        alternative_renewed_lease::RenewedLease,
        keys::{Job, Settled},
        lease_without_fencing::LeaseWithoutFencing,
        protocol::Protocol,
        serving::{self, Service},
    },
};

/// Trusts its heartbeat.
#[derive(Debug)]
pub struct RenewedNotFenced;

#[async_trait]
impl Protocol for RenewedNotFenced {
    async fn charge(&self, service: &Service, job: &Job, token: i64) -> Result<Outcome, Outage> {
        RenewedLease.charge(service, job, token).await
    }

    async fn finish(
        &self,
        service: &Service,
        job: &Job,
        token: i64,
        settled: &Settled,
    ) -> Result<bool, sqlx::Error> {
        LeaseWithoutFencing
            .finish(service, job, token, settled)
            .await
    }

    async fn release(&self, service: &Service, job: &Job, token: i64) -> Result<(), sqlx::Error> {
        LeaseWithoutFencing.release(service, job, token).await
    }
}

/// Starts it.
pub async fn app(env: Env) -> Result<App, BoxError> {
    serving::start(env, RenewedNotFenced).await
}
