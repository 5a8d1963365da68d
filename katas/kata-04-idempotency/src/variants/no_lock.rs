//! Flaw: the key is written first and locks nobody out: a lease of nothing.
//!
//! The provider key is stable, so nobody is charged twice, and the provider is called by everybody.

use std::time::Duration;

use kata_lab::{App, BoxError, Env};

use crate::variants::{
    protocol::Protocol,
    serving::{self, Service},
};

/// Lets all in.
#[derive(Debug)]
pub struct NoLock;

impl Protocol for NoLock {
    fn lease(&self, _service: &Service) -> Duration {
        Duration::ZERO
    }
}

/// Starts it.
pub async fn app(env: Env) -> Result<App, BoxError> {
    serving::start(env, NoLock).await
}
