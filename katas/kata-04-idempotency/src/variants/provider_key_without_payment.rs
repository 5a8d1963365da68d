//! Flaw: the provider key is made of account and key alone.
//!
//! When a key has expired here and serves another payment, the provider still knows it from the first
//! one, and refuses.

use kata_lab::{App, BoxError, Env};
use serde_json::json;

use crate::variants::{
    keys::{Job, sha256},
    protocol::Protocol,
    serving,
};

/// Forgets what is paid.
#[derive(Debug)]
pub struct ProviderKeyWithoutPayment;

impl Protocol for ProviderKeyWithoutPayment {
    fn provider_key(&self, job: &Job) -> String {
        sha256(json!([job.scope, job.key, job.account]).to_string())
    }
}

/// Starts it.
pub async fn app(env: Env) -> Result<App, BoxError> {
    serving::start(env, ProviderKeyWithoutPayment).await
}
