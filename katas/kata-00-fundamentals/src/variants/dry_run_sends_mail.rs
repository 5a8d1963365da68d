//! Flaw: the mail is sent deep inside, where nobody knows of dry runs.

use async_trait::async_trait;
use kata_lab::{App, BoxError, Env};
use serde_json::Value;

use crate::{
    contract::Order,
    effects::{Effect, Template},
    variants::{
        reference::Reference,
        serving::{self, Refusal, Service},
        shop::Shop,
    },
};

/// Sends all the same.
#[derive(Debug)]
pub struct DryRunSendsMail;

#[async_trait]
impl Shop for DryRunSendsMail {
    async fn rehearse(&self, service: &Service, order: Order) -> Result<Value, Refusal> {
        let mail = Effect::mail(&order, Template::OrderPlaced);
        let listed = Reference.rehearse(service, order).await?;
        self.carry_out(service, &[mail]).await;
        Ok(listed)
    }
}

/// Starts it.
pub async fn app(env: Env) -> Result<App, BoxError> {
    serving::start(env, DryRunSendsMail).await
}
