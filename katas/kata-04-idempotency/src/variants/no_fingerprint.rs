//! Flaw: bodies are not compared; a reused key gets the answer of another payment.

use kata_lab::{App, BoxError, Env};

use crate::{
    contract::PayBody,
    variants::{protocol::Protocol, serving},
};

/// Sees no difference.
#[derive(Debug)]
pub struct NoFingerprint;

impl Protocol for NoFingerprint {
    fn fingerprint(&self, _body: &PayBody, _bytes: &[u8]) -> String {
        String::new()
    }
}

/// Starts it.
pub async fn app(env: Env) -> Result<App, BoxError> {
    serving::start(env, NoFingerprint).await
}
