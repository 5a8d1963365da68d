//! Flaw: nobody removes expired keys.

use std::sync::Arc;

use async_trait::async_trait;
use kata_lab::{App, BoxError, Env};

use crate::variants::{
    protocol::Protocol,
    serving::{self, Service},
};

/// Keeps everything.
#[derive(Debug)]
pub struct TableGrows;

#[async_trait]
impl Protocol for TableGrows {
    async fn background(self: Arc<Self>, _service: Service) {}
}

/// Starts it.
pub async fn app(env: Env) -> Result<App, BoxError> {
    serving::start(env, TableGrows).await
}
