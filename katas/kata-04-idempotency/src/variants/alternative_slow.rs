//! Alternative: the reference on a slow machine. It comes up late, begins late and answers late.
//!
//! A check that takes late for never would judge the machine.

use std::time::Duration;

use kata_lab::{App, BoxError, Env};
use tokio::time::sleep;

use crate::variants::reference;

/// Much longer than a call takes on an idle machine.
const LATE: Duration = Duration::from_millis(100);

/// Starts it.
pub async fn app(env: Env) -> Result<App, BoxError> {
    sleep(LATE).await;
    Ok(reference::app(env).await?.slowed(LATE))
}
