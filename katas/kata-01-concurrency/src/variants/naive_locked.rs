//! Flaw: `naive` is not naive: a lock around everything hides the race that step 1 wants to see.

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

/// One order after the other.
#[derive(Debug, Default)]
pub struct NaiveLocked {
    turn: Mutex<()>,
}

#[async_trait]
impl Protocol for NaiveLocked {
    async fn reserve_naive(&self, service: &Service, order: &Order) -> Result<u64, Refused> {
        let _turn = self.turn.lock().await;
        Reference.reserve_naive(service, order).await
    }
}

/// Starts it.
pub async fn app(env: Env) -> Result<App, BoxError> {
    serving::start(env, NaiveLocked::default()).await
}
