//! Flaw: an eventual read of an account that the replica lacks comes from the primary.

use async_trait::async_trait;
use kata_lab::{App, BoxError, Env};

use crate::{
    contract::Answered,
    variants::{
        protocol::Protocol,
        reads,
        serving::{self, Service},
    },
};

/// Goes back in time for one account and not for another.
#[derive(Debug)]
pub struct EventualAsksPrimaryForMissing;

#[async_trait]
impl Protocol for EventualAsksPrimaryForMissing {
    async fn eventual(&self, service: &Service, id: &str) -> Answered {
        let Some(replica) = &service.replica else {
            return reads::current(&service.db, id).await;
        };
        let (replayed, balance) = reads::look(replica, id).await?;
        if balance.is_none() {
            return reads::current(&service.db, id).await;
        }
        let staleness_ms = self.staleness_ms(service, &replayed).await?;
        reads::behind(id, balance, staleness_ms)
    }
}

/// Starts it.
///
/// # Errors
/// If a variable is missing, or the schema cannot be made.
pub async fn app(env: Env) -> Result<App, BoxError> {
    serving::start(env, EventualAsksPrimaryForMissing).await
}
