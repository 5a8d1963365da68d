//! Flaw: a fetch that failed is answered as if it had not.

use async_trait::async_trait;
use kata_lab::{App, BoxError, Env};

use crate::{
    outside::CallFailed,
    variants::{
        protocol::Protocol,
        reference::Reference,
        serving::{self, Service},
    },
};

/// Always has good news.
#[derive(Debug)]
pub struct FailureSwallowed;

#[async_trait]
impl Protocol for FailureSwallowed {
    async fn fetch(&self, service: &Service, id: &str) -> Result<(), CallFailed> {
        let _ = Reference.fetch(service, id).await;
        Ok(())
    }
}

/// Starts it.
pub async fn app(env: Env) -> Result<App, BoxError> {
    serving::start(env, FailureSwallowed).await
}
