//! Flaw: every fetch calls the slow service at once, however many there are.

use async_trait::async_trait;
use kata_lab::{App, BoxError, Env};

use crate::{
    outside::CallFailed,
    variants::{
        protocol::Protocol,
        serving::{self, Service},
    },
};

/// Has no limit.
#[derive(Debug)]
pub struct NoSemaphore;

#[async_trait]
impl Protocol for NoSemaphore {
    async fn fetch(&self, service: &Service, id: &str) -> Result<(), CallFailed> {
        service.outside.fetch(id).await
    }
}

/// Starts it.
pub async fn app(env: Env) -> Result<App, BoxError> {
    serving::start(env, NoSemaphore).await
}
