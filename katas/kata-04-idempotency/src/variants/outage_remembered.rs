//! Flaw: an outage is stored like an answer, and replayed for as long as the key lives.

use kata_lab::{App, BoxError, Env};

use crate::{
    provider::{Outage, Outcome},
    variants::{protocol::Protocol, serving},
};

/// Never forgets.
#[derive(Debug)]
pub struct OutageRemembered;

impl Protocol for OutageRemembered {
    fn is_final(&self, _outcome: &Result<Outcome, Outage>) -> bool {
        true
    }
}

/// Starts it.
pub async fn app(env: Env) -> Result<App, BoxError> {
    serving::start(env, OutageRemembered).await
}
