//! Flaw: a serialization failure goes to the client.
//!
//! The rule holds, and a doctor who might have left is told to come back another time.

use kata_lab::{App, BoxError, Env};
use shared::db::TxOptions;

use crate::variants::{protocol::Protocol, serving};

/// Tries once.
#[derive(Debug)]
pub struct SerializationFailureShown;

impl Protocol for SerializationFailureShown {
    fn shifts(&self) -> TxOptions {
        TxOptions {
            attempts: 1,
            ..TxOptions::serializable()
        }
    }
}

/// Starts it.
///
/// # Errors
/// If a variable is missing, or the schema cannot be made.
pub async fn app(env: Env) -> Result<App, BoxError> {
    serving::start(env, SerializationFailureShown).await
}
