//! Flaw: it looks whether the id is free, and then writes.
//!
//! Two that look at the same time both find it free. The primary key stops the second one, whose
//! client reads that the server has failed.

use async_trait::async_trait;
use kata_lab::{App, BoxError, Env};
use sqlx::{PgConnection, types::Json};

use crate::{
    contract::Placed,
    variants::{orders::Stored, serving, shop::Shop},
};

/// Looks first.
#[derive(Debug)]
pub struct CheckThenAct;

#[async_trait]
impl Shop for CheckThenAct {
    async fn store(&self, db: &mut PgConnection, order: &Placed) -> Result<Stored, sqlx::Error> {
        store(self, db, order).await
    }
}

/// Starts it.
pub async fn app(env: Env) -> Result<App, BoxError> {
    serving::start(env, CheckThenAct).await
}

/// Looks, then writes.
pub async fn store(
    shop: &impl Shop,
    db: &mut PgConnection,
    order: &Placed,
) -> Result<Stored, sqlx::Error> {
    let there = shop.find(&mut *db, &order.order.order_id).await?;
    if there.is_some() {
        return Ok(Stored::compared(there, &order.order));
    }
    sqlx::query(
        "insert into orders (order_id, customer, lines, total_cents, placed_at)
         values ($1, $2, $3, $4, $5)",
    )
    .bind(&order.order.order_id)
    .bind(&order.order.customer)
    .bind(Json(&order.order.lines))
    .bind(order.total_cents)
    .bind(order.order.placed_at.as_str())
    .execute(db)
    .await?;
    Ok(Stored::New)
}
