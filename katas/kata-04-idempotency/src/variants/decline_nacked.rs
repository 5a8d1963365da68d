//! Flaw: a message whose card is declined is nacked, and comes again for ever.

use http::StatusCode;
use kata_lab::{App, BoxError, Env};

use crate::variants::{protocol::Protocol, serving};

/// Hopes for better.
#[derive(Debug)]
pub struct DeclineNacked;

impl Protocol for DeclineNacked {
    fn acks(&self, status: StatusCode) -> bool {
        status == StatusCode::CREATED
    }
}

/// Starts it.
pub async fn app(env: Env) -> Result<App, BoxError> {
    serving::start(env, DeclineNacked).await
}
