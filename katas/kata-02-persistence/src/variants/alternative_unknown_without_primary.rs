//! Alternative: without the primary it says `null`: how far behind the answer is cannot be known.

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

/// Says what it does not know.
#[derive(Debug)]
pub struct UnknownWithoutPrimary;

#[async_trait]
impl Protocol for UnknownWithoutPrimary {
    async fn staleness_ms(&self, service: &Service, replayed: &Replayed) -> Answered<Option<i64>> {
        Ok(match reads::has_all(&service.db, replayed).await {
            Ok(true) => Some(0),
            Ok(false) => Some(replayed.behind_ms()),
            Err(_) => None,
        })
    }
}

/// Starts it.
///
/// # Errors
/// If a variable is missing, or the schema cannot be made.
pub async fn app(env: Env) -> Result<App, BoxError> {
    serving::start(env, UnknownWithoutPrimary).await
}
