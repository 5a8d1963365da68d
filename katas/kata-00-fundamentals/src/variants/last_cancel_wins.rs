//! Flaw: cancelling again moves the time of the cancellation.

use async_trait::async_trait;
use kata_lab::{App, BoxError, Env};
use sqlx::PgConnection;

use crate::{
    contract::Cancellation,
    variants::{
        orders::{self, Cancelled},
        serving,
        shop::Shop,
    },
};

/// Overwrites.
#[derive(Debug)]
pub struct LastCancelWins;

#[async_trait]
impl Shop for LastCancelWins {
    async fn cancel(
        &self,
        db: &mut PgConnection,
        id: &str,
        by: &Cancellation,
    ) -> Result<Cancelled, sqlx::Error> {
        if let Some(order) = orders::cancel(&mut *db, id, by).await? {
            return Ok(Cancelled::Now(order));
        }
        sqlx::query("update orders set cancelled_at = $2 where order_id = $1")
            .bind(id)
            .bind(by.cancelled_at.as_str())
            .execute(&mut *db)
            .await?;
        Ok(match self.find(db, id).await? {
            Some(order) => Cancelled::Before(order),
            None => Cancelled::Unknown,
        })
    }
}

/// Starts it.
pub async fn app(env: Env) -> Result<App, BoxError> {
    serving::start(env, LastCancelWins).await
}
