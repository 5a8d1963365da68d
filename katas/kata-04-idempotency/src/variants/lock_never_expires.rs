//! Flaw: a claim has no end; a crash locks the key for good.

use std::time::Duration;

use kata_lab::{App, BoxError, Env};

use crate::variants::{
    protocol::Protocol,
    serving::{self, Service},
};

/// Holds on.
#[derive(Debug)]
pub struct LockNeverExpires;

impl Protocol for LockNeverExpires {
    fn lease(&self, _service: &Service) -> Duration {
        const A_CENTURY: Duration = Duration::from_secs(100 * 365 * 24 * 60 * 60);
        A_CENTURY
    }
}

/// Starts it.
pub async fn app(env: Env) -> Result<App, BoxError> {
    serving::start(env, LockNeverExpires).await
}
