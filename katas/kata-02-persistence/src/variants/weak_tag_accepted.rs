//! Flaw: a weak entity tag is taken for the strong one.
//!
//! `W/` says that two contents are alike, and `If-Match` asks whether they are the same.

use async_trait::async_trait;
use kata_lab::{App, BoxError, Env};

use crate::{
    contract::{Answered, Data},
    variants::{
        protocol::Protocol,
        reference::Reference,
        serving::{self, Service},
    },
};

/// Leaves out what it does not know.
#[derive(Debug)]
pub struct WeakTagAccepted;

#[async_trait]
impl Protocol for WeakTagAccepted {
    async fn replace(
        &self,
        service: &Service,
        id: &str,
        data: &Data,
        seen: &str,
    ) -> Answered<Option<String>> {
        let seen = seen.strip_prefix("W/").unwrap_or(seen);
        Reference.replace(service, id, data, seen).await
    }
}

/// Starts it.
///
/// # Errors
/// If a variable is missing, or the schema cannot be made.
pub async fn app(env: Env) -> Result<App, BoxError> {
    serving::start(env, WeakTagAccepted).await
}
