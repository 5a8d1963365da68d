//! Flaw: an order and its lines are written one after the other, each for itself.
//!
//! Whoever comes in between, or after a crash in between, finds an order without lines.

use async_trait::async_trait;
use kata_lab::{App, BoxError, Env};
use sqlx::PgConnection;

use crate::{
    contract::{Cancellation, Placed},
    variants::{
        alternative_lines_in_own_table::{
            LinesInOwnTable, TABLES, find, insert_head, insert_lines, list,
        },
        orders::{Cancelled, Stored},
        serving,
        shop::Shop,
    },
};

/// Two writes.
#[derive(Debug)]
pub struct OrderInTwoTransactions;

#[async_trait]
impl Shop for OrderInTwoTransactions {
    async fn store(&self, db: &mut PgConnection, order: &Placed) -> Result<Stored, sqlx::Error> {
        if insert_head(&mut *db, order).await? {
            insert_lines(db, &order.order).await?;
            return Ok(Stored::New);
        }
        let there = find(db, &order.order.order_id).await?;
        Ok(Stored::compared(there, &order.order))
    }

    async fn find(&self, db: &mut PgConnection, id: &str) -> Result<Option<Placed>, sqlx::Error> {
        find(db, id).await
    }

    async fn list(&self, db: &mut PgConnection) -> Result<Vec<Placed>, sqlx::Error> {
        list(db).await
    }

    async fn cancel(
        &self,
        db: &mut PgConnection,
        id: &str,
        by: &Cancellation,
    ) -> Result<Cancelled, sqlx::Error> {
        LinesInOwnTable.cancel(db, id, by).await
    }

    fn tables(&self) -> String {
        TABLES.to_owned()
    }
}

/// Starts it.
pub async fn app(env: Env) -> Result<App, BoxError> {
    serving::start(env, OrderInTwoTransactions).await
}
