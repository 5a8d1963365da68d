//! Flaw: the staleness is the age of the last commit that was replayed, which grows while nobody writes.

use async_trait::async_trait;
use kata_lab::{App, BoxError, Env};

use crate::{
    contract::Answered,
    variants::{
        protocol::Protocol,
        reads::Replayed,
        serving::{self, Service},
    },
};

/// Asks the replica alone, and only for a time.
#[derive(Debug)]
pub struct StalenessByClock;

#[async_trait]
impl Protocol for StalenessByClock {
    async fn staleness_ms(&self, _: &Service, replayed: &Replayed) -> Answered<Option<i64>> {
        Ok(Some(replayed.behind_ms()))
    }
}

/// Starts it.
///
/// # Errors
/// If a variable is missing, or the schema cannot be made.
pub async fn app(env: Env) -> Result<App, BoxError> {
    serving::start(env, StalenessByClock).await
}
