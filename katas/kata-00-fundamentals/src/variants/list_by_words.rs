//! Flaw: the list compares ids as a dictionary would, and not their bytes.
//!
//! A plain `order by` does the same in a database that was made with a language, and not in one that
//! was made without: the list depends on the server.

use async_trait::async_trait;
use kata_lab::{App, BoxError, Env};
use sqlx::PgConnection;

use crate::{
    contract::Placed,
    variants::{orders, serving, shop::Shop},
};

/// Ignores case.
#[derive(Debug)]
pub struct ListByWords;

#[async_trait]
impl Shop for ListByWords {
    async fn list(&self, db: &mut PgConnection) -> Result<Vec<Placed>, sqlx::Error> {
        let mut orders = orders::list(db).await?;
        orders.sort_by_key(|placed| {
            let order = &placed.order;
            (order.placed_at.clone(), order.order_id.to_lowercase())
        });
        Ok(orders)
    }
}

/// Starts it.
pub async fn app(env: Env) -> Result<App, BoxError> {
    serving::start(env, ListByWords).await
}
