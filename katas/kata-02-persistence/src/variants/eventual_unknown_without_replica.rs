//! Flaw: without a replica the staleness is unknown, although the primary was asked.

use async_trait::async_trait;
use kata_lab::{App, BoxError, Env};

use crate::{
    contract::Answered,
    variants::{
        protocol::Protocol,
        ledger, reads, serving::{self, Service},
    },
};

/// Knows only one way to be sure.
#[derive(Debug)]
pub struct EventualUnknownWithoutReplica;

#[async_trait]
impl Protocol for EventualUnknownWithoutReplica {
    async fn eventual(&self, service: &Service, id: &str) -> Answered {
        let Some(replica) = &service.replica else {
            let balance = ledger::balance(&mut *service.db.acquire().await?, id).await?;
            return reads::behind(id, balance, None);
        };
        let (replayed, balance) = reads::look(replica, id).await?;
        let staleness_ms = self.staleness_ms(service, &replayed).await?;
        reads::behind(id, balance, staleness_ms)
    }
}

/// Starts it.
///
/// # Errors
/// If a variable is missing, or the schema cannot be made.
pub async fn app(env: Env) -> Result<App, BoxError> {
    serving::start(env, EventualUnknownWithoutReplica).await
}
