//! Flaw: computes on a thread for blocking work, one digest after the other.
//!
//! Concurrent, since everything else goes on meanwhile, and not parallel.

use async_trait::async_trait;
use kata_lab::{App, BoxError, Env};
use tokio::sync::Mutex;

use crate::{
    contract::DigestOrder,
    variants::{
        protocol::Protocol,
        reference::Reference,
        serving::{self, Service},
    },
};

/// Has one calculator.
#[derive(Debug, Default)]
pub struct OneDigestAtATime {
    turn: Mutex<()>,
}

#[async_trait]
impl Protocol for OneDigestAtATime {
    async fn digest(&self, service: &Service, order: DigestOrder) -> Option<String> {
        let _turn = self.turn.lock().await;
        Reference.digest(service, order).await
    }
}

/// Starts it.
pub async fn app(env: Env) -> Result<App, BoxError> {
    serving::start(env, OneDigestAtATime::default()).await
}
