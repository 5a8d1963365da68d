//! Flaw: it asks for an approval, and sells whatever the answer is.

use async_trait::async_trait;
use kata_lab::{App, BoxError, Env};

use crate::{
    contract::{Order, Refused},
    variants::{
        protocol::Protocol,
        serving::{self, Service},
    },
};

/// Asks for the form's sake.
#[derive(Debug)]
pub struct ApprovalIgnored;

#[async_trait]
impl Protocol for ApprovalIgnored {
    async fn approve(&self, service: &Service, order: &Order) -> Result<(), Refused> {
        let _ = service.outside.approve(order).await;
        Ok(())
    }
}

/// Starts it.
pub async fn app(env: Env) -> Result<App, BoxError> {
    serving::start(env, ApprovalIgnored).await
}
