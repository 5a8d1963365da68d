//! Flaw: a fetch that fails returns early, and takes its permit along.

use async_trait::async_trait;
use kata_lab::{App, BoxError, Env};

use crate::{
    outside::CallFailed,
    variants::{
        protocol::Protocol,
        serving::{self, Service},
    },
};

/// Gives back when all went well.
#[derive(Debug)]
pub struct PermitLostOnFailure;

#[async_trait]
impl Protocol for PermitLostOnFailure {
    async fn fetch(&self, service: &Service, id: &str) -> Result<(), CallFailed> {
        let Ok(permit) = service.permits.acquire().await else {
            return Err(CallFailed);
        };
        let fetched = service.outside.fetch(id).await;
        if fetched.is_err() {
            permit.forget();
        }
        fetched
    }
}

/// Starts it.
pub async fn app(env: Env) -> Result<App, BoxError> {
    serving::start(env, PermitLostOnFailure).await
}
