//! Flaw: an order that was read once is answered from memory from then on.
//!
//! It is stored where it belongs, and forgotten nowhere: another instance cancels it, and this one
//! does not hear of that.

use std::{
    collections::HashMap,
    sync::{Mutex, PoisonError},
};

use async_trait::async_trait;
use kata_lab::{App, BoxError, Env};
use sqlx::PgConnection;

use crate::{
    contract::{Cancellation, Placed},
    variants::{
        orders::{self, Cancelled},
        reference::Reference,
        serving,
        shop::Shop,
    },
};

/// Remembers what it has read.
#[derive(Debug, Default)]
pub struct CacheInMemory {
    // Held for a few moves, never across an await.
    orders: Mutex<HashMap<String, Placed>>,
}

impl CacheInMemory {
    fn cached<T>(&self, look: impl FnOnce(&mut HashMap<String, Placed>) -> T) -> T {
        look(&mut self.orders.lock().unwrap_or_else(PoisonError::into_inner))
    }
}

#[async_trait]
impl Shop for CacheInMemory {
    async fn find(&self, db: &mut PgConnection, id: &str) -> Result<Option<Placed>, sqlx::Error> {
        if let Some(order) = self.cached(|orders| orders.get(id).cloned()) {
            return Ok(Some(order));
        }
        let found = orders::find(db, id).await?;
        if let Some(order) = &found {
            self.cached(|orders| orders.insert(id.to_owned(), order.clone()));
        }
        Ok(found)
    }

    async fn cancel(
        &self,
        db: &mut PgConnection,
        id: &str,
        by: &Cancellation,
    ) -> Result<Cancelled, sqlx::Error> {
        self.cached(|orders| orders.remove(id));
        Reference.cancel(db, id, by).await
    }
}

/// Starts it.
pub async fn app(env: Env) -> Result<App, BoxError> {
    serving::start(env, CacheInMemory::default()).await
}
