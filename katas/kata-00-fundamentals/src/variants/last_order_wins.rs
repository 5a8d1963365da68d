//! Flaw: another order under a taken id replaces the one that is there.

use async_trait::async_trait;
use kata_lab::{App, BoxError, Env};
use sqlx::{PgConnection, types::Json};

use crate::{
    contract::Placed,
    variants::{
        orders::{self, Stored},
        serving,
        shop::Shop,
    },
};

/// Overwrites.
#[derive(Debug)]
pub struct LastOrderWins;

#[async_trait]
impl Shop for LastOrderWins {
    async fn store(&self, db: &mut PgConnection, order: &Placed) -> Result<Stored, sqlx::Error> {
        if orders::insert(&mut *db, order).await? {
            return Ok(Stored::New);
        }
        let there = self.find(&mut *db, &order.order.order_id).await?;
        if Stored::compared(there, &order.order) == Stored::Same {
            return Ok(Stored::Same);
        }
        sqlx::query(
            "update orders set customer = $2, lines = $3, total_cents = $4, placed_at = $5
             where order_id = $1",
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
}

/// Starts it.
pub async fn app(env: Env) -> Result<App, BoxError> {
    serving::start(env, LastOrderWins).await
}
