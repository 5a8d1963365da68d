//! Flaw: an eventual read fails when the primary cannot be asked how far behind it is.

use async_trait::async_trait;
use kata_lab::{App, BoxError, Env};

use crate::{
    contract::Answered,
    variants::{
        protocol::Protocol,
        reads::{self, Replayed},
        serving::{self, Service},
    },
};

/// Makes the replica as available as the primary.
#[derive(Debug)]
pub struct EventualNeedsPrimary;

#[async_trait]
impl Protocol for EventualNeedsPrimary {
    async fn staleness_ms(&self, service: &Service, replayed: &Replayed) -> Answered<Option<i64>> {
        Ok(Some(match reads::has_all(&service.db, replayed).await? {
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
    serving::start(env, EventualNeedsPrimary).await
}
