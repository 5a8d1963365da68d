//! Alternative: it looks whether the id is free, and then writes, under a lock on the id.
//!
//! The same two statements as in `check_then_act`. The lock is the database's, so all instances see
//! it, and it ends with the transaction, so a crash leaves none.

use async_trait::async_trait;
use kata_lab::{App, BoxError, Env};
use sqlx::{Connection, PgConnection};

use crate::{
    contract::Placed,
    variants::{check_then_act, orders::Stored, serving, shop::Shop},
};

/// Locks, then looks.
#[derive(Debug)]
pub struct LockFirst;

#[async_trait]
impl Shop for LockFirst {
    async fn store(&self, db: &mut PgConnection, order: &Placed) -> Result<Stored, sqlx::Error> {
        let mut transaction = db.begin().await?;
        // Advisory locks belong to the whole database, hence the schema in the number.
        sqlx::query("select pg_advisory_xact_lock(hashtext(current_schema()), hashtext($1))")
            .bind(&order.order.order_id)
            .execute(&mut *transaction)
            .await?;
        let stored = check_then_act::store(self, &mut transaction, order).await?;
        transaction.commit().await?;
        Ok(stored)
    }
}

/// Starts it.
pub async fn app(env: Env) -> Result<App, BoxError> {
    serving::start(env, LockFirst).await
}
