//! Flaw: the caller's key goes on to the provider as it is.
//!
//! To the provider, all of our callers are one: us. It also remembers longer than we do, so an expired
//! key is not free there.

use kata_lab::{App, BoxError, Env};

use crate::variants::{keys::Job, protocol::Protocol, serving};

/// Hands the key on.
#[derive(Debug)]
pub struct ProviderKeyUnscoped;

impl Protocol for ProviderKeyUnscoped {
    fn provider_key(&self, job: &Job) -> String {
        job.key.clone()
    }
}

/// Starts it.
pub async fn app(env: Env) -> Result<App, BoxError> {
    serving::start(env, ProviderKeyUnscoped).await
}
