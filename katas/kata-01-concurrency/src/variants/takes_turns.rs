//! Flaw: computes on as many threads as there are digests, of which only one may run.
//!
//! It is what threads are to an interpreter with one lock for all of them: everybody gets on, nobody
//! sooner.

use std::sync::{Arc, Mutex};

use async_trait::async_trait;
use kata_lab::{App, BoxError, Env};
use tokio::sync::oneshot;

use crate::{
    contract::DigestOrder,
    variants::{
        digest::digest,
        protocol::Protocol,
        serving::{self, Service},
    },
};

/// Has one lock for all that computes.
#[derive(Debug, Default)]
pub struct TakesTurns {
    interpreter: Arc<Mutex<()>>,
}

#[async_trait]
impl Protocol for TakesTurns {
    async fn digest(&self, _service: &Service, order: DigestOrder) -> Option<String> {
        let (tell, told) = oneshot::channel();
        let interpreter = self.interpreter.clone();
        tokio::task::spawn_blocking(move || {
            let mut turn = Some(interpreter.lock());
            let next_turn = || {
                turn = None;
                turn = Some(interpreter.lock());
                tell.is_closed()
            };
            if let Some(digest) = digest(&order, next_turn) {
                let _ = tell.send(digest);
            }
        });
        told.await.ok()
    }
}

/// Starts it.
pub async fn app(env: Env) -> Result<App, BoxError> {
    serving::start(env, TakesTurns::default()).await
}
