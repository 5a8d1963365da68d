//! Flaw: the effects are carried out inside the transaction, before it is committed.
//!
//! It looks careful: if anything fails, everything is rolled back. A letter is not.

use async_trait::async_trait;
use axum::{
    Json,
    response::{IntoResponse, Response},
};
use http::StatusCode;
use kata_lab::{App, BoxError, Env};

use crate::{
    contract::{self, Order},
    variants::{
        orders::{self, Stored},
        serving::{self, Refusal, Service},
        shop::Shop,
    },
};

/// Commits last.
#[derive(Debug)]
pub struct MailBeforeCommit;

#[async_trait]
impl Shop for MailBeforeCommit {
    async fn place(&self, service: &Service, order: Order) -> Result<Response, Refusal> {
        let order = self.placed(order);
        let mut transaction = service.db.begin().await?;
        if orders::insert(&mut transaction, &order).await? {
            self.carry_out(service, &self.on_placing(&order.order))
                .await;
            transaction.commit().await?;
            return Ok((StatusCode::CREATED, Json(self.shown(&order))).into_response());
        }
        let there = self.find(&mut transaction, &order.order.order_id).await?;
        match Stored::compared(there, &order.order) {
            Stored::Other => Err(contract::id_is_taken().into()),
            _ => Ok(Json(self.shown(&order)).into_response()),
        }
    }
}

/// Starts it.
pub async fn app(env: Env) -> Result<App, BoxError> {
    serving::start(env, MailBeforeCommit).await
}
