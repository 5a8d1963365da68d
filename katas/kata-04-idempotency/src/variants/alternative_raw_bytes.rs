//! Alternative: the fingerprint is that of the body's bytes.
//!
//! Stricter: a client that writes the same body with another white space has sent another request.
//! It needs no agreement on what the members are, so it can sit in front of every route.

use kata_lab::{App, BoxError, Env};

use crate::{
    contract::PayBody,
    variants::{keys::sha256, protocol::Protocol, serving},
};

/// Compares bytes.
#[derive(Debug)]
pub struct RawBytes;

impl Protocol for RawBytes {
    fn fingerprint(&self, _body: &PayBody, bytes: &[u8]) -> String {
        sha256(bytes)
    }
}

/// Starts it.
pub async fn app(env: Env) -> Result<App, BoxError> {
    serving::start(env, RawBytes).await
}
