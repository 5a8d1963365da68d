//! Flaw: all callers share one space of keys; two who choose the same one meet.

use kata_lab::{App, BoxError, Env};

use crate::variants::{protocol::Protocol, serving};

/// Has one table for all.
#[derive(Debug)]
pub struct KeyNotScoped;

impl Protocol for KeyNotScoped {
    fn scope(&self, _account: &str) -> String {
        "account:".to_owned()
    }
}

/// Starts it.
pub async fn app(env: Env) -> Result<App, BoxError> {
    serving::start(env, KeyNotScoped).await
}
