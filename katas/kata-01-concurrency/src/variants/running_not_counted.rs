//! Flaw: a job is counted while it waits and when it is over, and in between nowhere.

use async_trait::async_trait;
use kata_lab::{App, BoxError, Env};

use crate::{
    contract::JobStats,
    variants::{
        protocol::Protocol,
        serving::{self, Service},
    },
};

/// Forgets what a worker has in its hands.
#[derive(Debug)]
pub struct RunningNotCounted;

#[async_trait]
impl Protocol for RunningNotCounted {
    fn stats(&self, service: &Service) -> JobStats {
        JobStats {
            running: 0,
            ..service.line.stats()
        }
    }
}

/// Starts it.
pub async fn app(env: Env) -> Result<App, BoxError> {
    serving::start(env, RunningNotCounted).await
}
