//! Flaw: a strong read looks whether both servers are well before it begins.

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

/// Makes two servers less available than one.
#[derive(Debug)]
pub struct StrongNeedsReplica;

#[async_trait]
impl Protocol for StrongNeedsReplica {
    async fn strong(&self, service: &Service, id: &str) -> Answered {
        if let Some(replica) = &service.replica {
            sqlx::query("select 1").execute(replica).await?;
        }
        reads::strong(&service.db, id).await
    }
}

/// Starts it.
///
/// # Errors
/// If a variable is missing, or the schema cannot be made.
pub async fn app(env: Env) -> Result<App, BoxError> {
    serving::start(env, StrongNeedsReplica).await
}
