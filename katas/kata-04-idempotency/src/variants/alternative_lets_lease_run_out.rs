//! Alternative: after an outage the key is not released; its lease runs out.
//!
//! One statement less to get wrong, and a natural pause before the provider is asked again. Clients
//! that try at once get 409 until the lease is over.

use async_trait::async_trait;
use kata_lab::{App, BoxError, Env};

use crate::variants::{
    keys::Job,
    protocol::Protocol,
    serving::{self, Service},
};

/// Has time.
#[derive(Debug)]
pub struct LetsLeaseRunOut;

#[async_trait]
impl Protocol for LetsLeaseRunOut {
    async fn release(&self, _: &Service, _: &Job, _token: i64) -> Result<(), sqlx::Error> {
        Ok(())
    }
}

/// Starts it.
pub async fn app(env: Env) -> Result<App, BoxError> {
    serving::start(env, LetsLeaseRunOut).await
}
