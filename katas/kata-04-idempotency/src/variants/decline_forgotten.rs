//! Flaw: a decline is not stored; who asks again calls the provider again.

use kata_lab::{App, BoxError, Env};

use crate::{
    provider::{Outage, Outcome},
    variants::{protocol::Protocol, serving},
};

/// Remembers only the good.
#[derive(Debug)]
pub struct DeclineForgotten;

impl Protocol for DeclineForgotten {
    fn is_final(&self, outcome: &Result<Outcome, Outage>) -> bool {
        matches!(outcome, Ok(Outcome::Captured { .. }))
    }
}

/// Starts it.
pub async fn app(env: Env) -> Result<App, BoxError> {
    serving::start(env, DeclineForgotten).await
}
