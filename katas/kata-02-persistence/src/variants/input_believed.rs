//! Flaw: the body of a transfer is taken as it comes.
//!
//! A negative amount takes money from the account that should get it.

use http::HeaderMap;
use kata_lab::{App, BoxError, Env};
use shared::http::{Problem, read_object};

use crate::{
    contract::Transfer,
    variants::{protocol::Protocol, serving},
};

/// Believes what can be parsed.
#[derive(Debug)]
pub struct InputBelieved;

impl Protocol for InputBelieved {
    fn read(&self, headers: &HeaderMap, bytes: &[u8]) -> Result<Transfer, Problem> {
        read_object(headers, bytes)
    }
}

/// Starts it.
///
/// # Errors
/// If a variable is missing, or the schema cannot be made.
pub async fn app(env: Env) -> Result<App, BoxError> {
    serving::start(env, InputBelieved).await
}
