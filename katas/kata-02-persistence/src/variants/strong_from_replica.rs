//! Flaw: every read comes from the replica, if there is one, to spare the primary.

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

/// Does not let the caller see its own write.
#[derive(Debug)]
pub struct StrongFromReplica;

#[async_trait]
impl Protocol for StrongFromReplica {
    async fn strong(&self, service: &Service, id: &str) -> Answered {
        reads::strong(service.replica.as_ref().unwrap_or(&service.db), id).await
    }
}

/// Starts it.
///
/// # Errors
/// If a variable is missing, or the schema cannot be made.
pub async fn app(env: Env) -> Result<App, BoxError> {
    serving::start(env, StrongFromReplica).await
}
