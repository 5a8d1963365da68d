//! Flaw: computes on the runtime's own threads, behind a blocking mutex.
//!
//! One thread computes, the others wait for the mutex, and none is left to answer `/health`.

use std::sync::Mutex;

use async_trait::async_trait;
use kata_lab::{App, BoxError, Env};

use crate::{
    contract::DigestOrder,
    variants::{
        digest::digest,
        protocol::Protocol,
        serving::{self, Service},
    },
};

/// Lets everybody wait.
#[derive(Debug, Default)]
pub struct BlocksTheRuntime {
    hasher: Mutex<()>,
}

#[async_trait]
impl Protocol for BlocksTheRuntime {
    async fn digest(&self, _service: &Service, order: DigestOrder) -> Option<String> {
        let _turn = self.hasher.lock();
        digest(&order, || false)
    }
}

/// Starts it.
pub async fn app(env: Env) -> Result<App, BoxError> {
    serving::start(env, BlocksTheRuntime::default()).await
}
