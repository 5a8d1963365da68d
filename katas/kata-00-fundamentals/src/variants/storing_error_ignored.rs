//! Flaw: an error of the database is written to the log, and everything goes on.

use async_trait::async_trait;
use kata_lab::{App, BoxError, Env};
use sqlx::PgConnection;

use crate::{
    contract::Placed,
    variants::{orders::Stored, reference::Reference, serving, shop::Shop},
};

/// Goes on.
#[derive(Debug)]
pub struct StoringErrorIgnored;

#[async_trait]
impl Shop for StoringErrorIgnored {
    async fn store(&self, db: &mut PgConnection, order: &Placed) -> Result<Stored, sqlx::Error> {
        Ok(Reference.store(db, order).await.unwrap_or_else(|error| {
            tracing::warn!(%error, "an order was not stored");
            Stored::New
        }))
    }
}

/// Starts it.
pub async fn app(env: Env) -> Result<App, BoxError> {
    serving::start(env, StoringErrorIgnored).await
}
