//! Alternative: computes where it stands, and tells the runtime, which moves everybody else away.
//!
//! A digest goes on when its caller hangs up: nothing looks.

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

/// Stays.
#[derive(Debug)]
pub struct BlockInPlace;

#[async_trait]
impl Protocol for BlockInPlace {
    async fn digest(&self, _service: &Service, order: DigestOrder) -> Option<String> {
        tokio::task::block_in_place(|| digest(&order, || false))
    }
}

/// Starts it.
pub async fn app(env: Env) -> Result<App, BoxError> {
    serving::start(env, BlockInPlace).await
}
