//! The reference: every decision as `protocol.rs` argues it, on the wiring of `serving.rs`.

use kata_lab::{App, BoxError, Env};

use crate::variants::{protocol::Protocol, serving};

/// Decides nothing differently.
#[derive(Debug)]
pub struct Reference;

impl Protocol for Reference {}

/// Starts it.
///
/// # Errors
/// If a variable is missing, or the schema cannot be made.
pub async fn app(env: Env) -> Result<App, BoxError> {
    serving::start(env, Reference).await
}
