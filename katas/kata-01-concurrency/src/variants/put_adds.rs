//! Flaw: setting the stock adds to it, so that a `PUT` that is sent again is another delivery.

use async_trait::async_trait;
use kata_lab::{App, BoxError, Env};

use crate::{
    contract::{Refused, Style},
    variants::{
        protocol::Protocol,
        reference::Reference,
        serving::{self, Service},
    },
};

/// Counts deliveries.
#[derive(Debug)]
pub struct PutAdds;

#[async_trait]
impl Protocol for PutAdds {
    async fn put(
        &self,
        service: &Service,
        style: Style,
        sku: &str,
        quantity: u64,
    ) -> Result<(), Refused> {
        let there = self.look(service, style, sku).await.unwrap_or_default();
        Reference.put(service, style, sku, there + quantity).await
    }
}

/// Starts it.
pub async fn app(env: Env) -> Result<App, BoxError> {
    serving::start(env, PutAdds).await
}
