//! Alternative: a fetch goes on when its caller hangs up, and keeps its permit until it has ended.
//!
//! As in a runtime that does not tell its handlers: the answer is thrown away, the permit is not.

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

/// Does not look up.
#[derive(Debug)]
pub struct FinishesWhatItBegan;

#[async_trait]
impl Protocol for FinishesWhatItBegan {
    async fn fetch(&self, service: &Service, id: &str) -> Result<(), CallFailed> {
        let (service, id) = (service.clone(), id.to_owned());
        let work = tokio::spawn(async move { Reference.fetch(&service, &id).await });
        work.await.unwrap_or(Err(CallFailed))
    }
}

/// Starts it.
pub async fn app(env: Env) -> Result<App, BoxError> {
    serving::start(env, FinishesWhatItBegan).await
}
