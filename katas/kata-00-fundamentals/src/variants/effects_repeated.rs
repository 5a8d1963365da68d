//! Flaw: the same order again is stored once, and its effects happen again.

use async_trait::async_trait;
use axum::{
    Json,
    response::{IntoResponse, Response},
};
use kata_lab::{App, BoxError, Env};

use crate::{
    contract::Order,
    variants::{
        orders::Stored,
        reference::Reference,
        serving::{self, Refusal, Service},
        shop::Shop,
    },
};

/// Looks at the request, and not at what came of it.
#[derive(Debug)]
pub struct EffectsRepeated;

#[async_trait]
impl Shop for EffectsRepeated {
    async fn place(&self, service: &Service, order: Order) -> Result<Response, Refusal> {
        let placed = self.placed(order.clone());
        let there = {
            let mut db = self.db(service).await?;
            self.find(&mut db, &order.order_id).await?
        };
        if Stored::compared(there, &order) != Stored::Same {
            return Reference.place(service, order).await;
        }
        self.carry_out(service, &self.on_placing(&order)).await;
        Ok(Json(self.shown(&placed)).into_response())
    }
}

/// Starts it.
pub async fn app(env: Env) -> Result<App, BoxError> {
    serving::start(env, EffectsRepeated).await
}
