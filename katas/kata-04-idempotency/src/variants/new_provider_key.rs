//! Flaw: each attempt has a provider key of its own; a retry is another charge.

use kata_lab::{App, BoxError, Env};
use uuid::Uuid;

use crate::variants::{keys::Job, protocol::Protocol, serving};

/// Begins anew.
#[derive(Debug)]
pub struct NewProviderKey;

impl Protocol for NewProviderKey {
    fn provider_key(&self, _job: &Job) -> String {
        Uuid::new_v4().to_string()
    }
}

/// Starts it.
pub async fn app(env: Env) -> Result<App, BoxError> {
    serving::start(env, NewProviderKey).await
}
