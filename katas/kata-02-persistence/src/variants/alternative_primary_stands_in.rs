//! Alternative: while the replica cannot be reached, the primary answers eventual reads.

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

/// Trades the load on the primary for an answer.
#[derive(Debug)]
pub struct PrimaryStandsIn;

#[async_trait]
impl Protocol for PrimaryStandsIn {
    async fn eventual(&self, service: &Service, id: &str) -> Answered {
        let Some(replica) = &service.replica else {
            return reads::current(&service.db, id).await;
        };
        match reads::look(replica, id).await {
            Ok((replayed, balance)) => {
                let staleness_ms = self.staleness_ms(service, &replayed).await?;
                reads::behind(id, balance, staleness_ms)
            }
            Err(_) => reads::current(&service.db, id).await,
        }
    }
}

/// Starts it.
///
/// # Errors
/// If a variable is missing, or the schema cannot be made.
pub async fn app(env: Env) -> Result<App, BoxError> {
    serving::start(env, PrimaryStandsIn).await
}
