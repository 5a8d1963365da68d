//! Flaw: the transfer that should be without a transaction has one.
//!
//! Nothing is lost, so nothing can be seen.

use async_trait::async_trait;
use axum::response::Response;
use kata_lab::{App, BoxError, Env};

use crate::{
    contract::{Answered, Transfer},
    variants::{
        protocol::Protocol,
        serving::{self, Service},
    },
};

/// Has one way to move money.
#[derive(Debug)]
pub struct UnsafeMadeSafe;

#[async_trait]
impl Protocol for UnsafeMadeSafe {
    async fn unsafe_transfer(&self, service: &Service, transfer: &Transfer) -> Answered<Response> {
        self.transfer(service, transfer).await
    }
}

/// Starts it.
///
/// # Errors
/// If a variable is missing, or the schema cannot be made.
pub async fn app(env: Env) -> Result<App, BoxError> {
    serving::start(env, UnsafeMadeSafe).await
}
