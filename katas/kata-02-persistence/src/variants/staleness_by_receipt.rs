//! Flaw: a replica that has replayed all that it received counts as complete, also when it receives nothing.

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

/// Asks the replica alone, which does not know what it was not sent.
#[derive(Debug)]
pub struct StalenessByReceipt;

#[async_trait]
impl Protocol for StalenessByReceipt {
    async fn staleness_ms(&self, _: &Service, replayed: &Replayed) -> Answered<Option<i64>> {
        Ok(Some(match replayed.has_replayed_all {
            true => 0,
            false => replayed.behind_ms(),
        }))
    }
}

/// Starts it.
///
/// # Errors
/// If a variable is missing, or the schema cannot be made.
pub async fn app(env: Env) -> Result<App, BoxError> {
    serving::start(env, StalenessByReceipt).await
}
