//! Alternative: the handler dies with the client's connection.
//!
//! What axum does by itself. It is right as long as everything else is: no transaction is left half
//! way, the lease frees the key, and the next attempt uses the same provider key.

use std::sync::Arc;

use async_trait::async_trait;
use axum::response::Response;
use kata_lab::{App, BoxError, Env};

use crate::variants::{
    keys::Job,
    protocol::Protocol,
    serving::{self, Service},
};

/// Works only for those who listen.
#[derive(Debug)]
pub struct CancelledOnHangUp;

#[async_trait]
impl Protocol for CancelledOnHangUp {
    async fn run(self: Arc<Self>, service: Service, job: Job) -> Response {
        serving::answer(self.settle(&service, &job).await)
    }
}

/// Starts it.
pub async fn app(env: Env) -> Result<App, BoxError> {
    serving::start(env, CancelledOnHangUp).await
}
