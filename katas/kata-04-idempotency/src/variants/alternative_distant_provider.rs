//! Alternative: a call takes more than a second to get to the provider.
//!
//! A slow network, or a machine with too much to do: the program is right, and its patience with the
//! provider runs out before the provider has heard anything. A lab that takes such a silence for a
//! mistake judges the machine.

use std::time::Duration;

use async_trait::async_trait;
use http::StatusCode;
use kata_lab::{App, BoxError, Env};
use tokio::time::{sleep, timeout};

use crate::{
    provider::{Outage, Outcome},
    variants::{
        keys::Job,
        protocol::Protocol,
        reference::Reference,
        serving::{self, Service},
    },
};

/// Longer than the second for which a hasty instance waits.
const WAY: Duration = Duration::from_millis(1_200);

/// Far from the provider.
#[derive(Debug)]
pub struct DistantProvider;

#[async_trait]
impl Protocol for DistantProvider {
    async fn charge(&self, service: &Service, job: &Job, token: i64) -> Result<Outcome, Outage> {
        let call = async {
            sleep(WAY).await;
            Reference.charge(service, job, token).await
        };
        timeout(service.config.provider_timeout, call)
            .await
            .unwrap_or(Err(Outage::NoDecision(StatusCode::GATEWAY_TIMEOUT)))
    }
}

/// Starts it.
pub async fn app(env: Env) -> Result<App, BoxError> {
    serving::start(env, DistantProvider).await
}
