//! Flaw: an eventual read always says that it is not behind.

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

/// Takes a replica for a copy.
#[derive(Debug)]
pub struct StalenessAlwaysZero;

#[async_trait]
impl Protocol for StalenessAlwaysZero {
    async fn staleness_ms(&self, _: &Service, _: &Replayed) -> Answered<Option<i64>> {
        Ok(Some(0))
    }
}

/// Starts it.
///
/// # Errors
/// If a variable is missing, or the schema cannot be made.
pub async fn app(env: Env) -> Result<App, BoxError> {
    serving::start(env, StalenessAlwaysZero).await
}
