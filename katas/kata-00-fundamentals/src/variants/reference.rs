//! The reference: every decision as `shop.rs` argues it, on the wiring of `serving.rs`.

use kata_lab::{App, BoxError, Env};

use crate::variants::{serving, shop::Shop};

/// Decides nothing differently.
#[derive(Debug)]
pub struct Reference;

impl Shop for Reference {}

/// Starts it.
///
/// # Errors
/// If a variable is missing, or the tables cannot be made.
pub async fn app(env: Env) -> Result<App, BoxError> {
    serving::start(env, Reference).await
}
