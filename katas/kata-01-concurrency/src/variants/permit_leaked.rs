//! Flaw: the permit is given back in the last line, which is never reached when the caller hangs up.
//!
//! The handler is dropped at its await, and a line after an await is a line that may never run.

use async_trait::async_trait;
use kata_lab::{App, BoxError, Env};

use crate::{
    outside::CallFailed,
    variants::{
        protocol::Protocol,
        serving::{self, Service},
    },
};

/// Gives back by hand.
#[derive(Debug)]
pub struct PermitLeaked;

#[async_trait]
impl Protocol for PermitLeaked {
    async fn fetch(&self, service: &Service, id: &str) -> Result<(), CallFailed> {
        if let Ok(permit) = service.permits.acquire().await {
            permit.forget();
        }
        let fetched = service.outside.fetch(id).await;
        service.permits.add_permits(1);
        fetched
    }
}

/// Starts it.
pub async fn app(env: Env) -> Result<App, BoxError> {
    serving::start(env, PermitLeaked).await
}
