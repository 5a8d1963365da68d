//! Flaw: each round hashes the text of the last digest instead of its bytes.

use async_trait::async_trait;
use kata_lab::{App, BoxError, Env};
use sha2::{Digest, Sha256};
use tokio::sync::oneshot;

use crate::{
    contract::DigestOrder,
    variants::{
        digest::hex,
        protocol::Protocol,
        serving::{self, Service},
    },
};

/// Computes something else.
#[derive(Debug)]
pub struct HashesTheHex;

#[async_trait]
impl Protocol for HashesTheHex {
    async fn digest(&self, _service: &Service, order: DigestOrder) -> Option<String> {
        let (tell, told) = oneshot::channel();
        tokio::task::spawn_blocking(move || {
            let mut text = order.seed;
            for _ in 0..order.rounds {
                if tell.is_closed() {
                    return;
                }
                text = hex(&Sha256::digest(text));
            }
            let _ = tell.send(text);
        });
        told.await.ok()
    }
}

/// Starts it.
pub async fn app(env: Env) -> Result<App, BoxError> {
    serving::start(env, HashesTheHex).await
}
