//! Flaw: a known id is answered as paid, whatever it was used for.

use kata_lab::{App, BoxError, Env};

use crate::{
    contract::Payment,
    variants::{protocol::Protocol, serving},
};

/// Compares nothing but the id.
#[derive(Debug)]
pub struct ContentNotCompared;

impl Protocol for ContentNotCompared {
    fn is_same(&self, known: Option<&Payment>, _payment: &Payment) -> bool {
        known.is_some()
    }
}

/// Starts it.
///
/// # Errors
/// If a variable is missing, or the schema cannot be made.
pub async fn app(env: Env) -> Result<App, BoxError> {
    serving::start(env, ContentNotCompared).await
}
