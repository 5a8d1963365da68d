//! Flaw: a strong read that cannot reach the primary ends as an internal error.

use async_trait::async_trait;
use axum::response::IntoResponse;
use http::StatusCode;
use kata_lab::{App, BoxError, Env};

use crate::{
    contract::{Answered, Failure},
    variants::{
        protocol::Protocol,
        reads,
        serving::{self, Service},
    },
};

/// Does not tell "not now" from "broken".
#[derive(Debug)]
pub struct StrongBreaksWithoutPrimary;

#[async_trait]
impl Protocol for StrongBreaksWithoutPrimary {
    async fn strong(&self, service: &Service, id: &str) -> Answered {
        match reads::strong(&service.db, id).await {
            Err(Failure::Database(_)) => Ok(StatusCode::INTERNAL_SERVER_ERROR.into_response()),
            answer => answer,
        }
    }
}

/// Starts it.
///
/// # Errors
/// If a variable is missing, or the schema cannot be made.
pub async fn app(env: Env) -> Result<App, BoxError> {
    serving::start(env, StrongBreaksWithoutPrimary).await
}
