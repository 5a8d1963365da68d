//! Flaw: the queue has no bound: whatever comes is accepted, until there is no memory left.

use kata_lab::{App, BoxError, Env};

use crate::variants::{jobs::Line, protocol::Protocol, serving};

/// Never says no.
#[derive(Debug)]
pub struct UnboundedQueue;

impl Protocol for UnboundedQueue {
    fn line(&self, _limit: usize) -> Line {
        Line::bounded(usize::MAX)
    }
}

/// Starts it.
pub async fn app(env: Env) -> Result<App, BoxError> {
    serving::start(env, UnboundedQueue).await
}
