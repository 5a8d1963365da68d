//! Flaw: the lock is held while the approval is asked for.
//!
//! Nothing is oversold. Every customer waits for the approvals of all who came before.

use async_trait::async_trait;
use kata_lab::{App, BoxError, Env};
use tokio::sync::Mutex;

use crate::{
    contract::{Order, Refused},
    variants::{
        protocol::Protocol,
        reference::Reference,
        serving::{self, Service},
    },
};

/// Holds on.
#[derive(Debug, Default)]
pub struct LockAcrossAwait {
    lock: Mutex<()>,
}

#[async_trait]
impl Protocol for LockAcrossAwait {
    async fn reserve_lock(&self, service: &Service, order: &Order) -> Result<u64, Refused> {
        let _held = self.lock.lock().await;
        Reference.reserve_lock(service, order).await
    }
}

/// Starts it.
pub async fn app(env: Env) -> Result<App, BoxError> {
    serving::start(env, LockAcrossAwait::default()).await
}
