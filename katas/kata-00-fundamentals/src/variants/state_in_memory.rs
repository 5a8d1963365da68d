//! Flaw: orders live in the memory of the process.
//!
//! With one instance that is never restarted it does everything right.

use std::{
    collections::BTreeMap,
    sync::{Mutex, MutexGuard, PoisonError},
};

use async_trait::async_trait;
use kata_lab::{App, BoxError, Env};
use sqlx::PgConnection;

use crate::{
    contract::{Cancellation, Placed},
    variants::{
        orders::{Cancelled, Stored},
        serving,
        shop::Shop,
    },
};

/// Remembers.
#[derive(Debug, Default)]
pub struct StateInMemory {
    // Held for a few moves, never across an await.
    orders: Mutex<BTreeMap<String, Placed>>,
}

impl StateInMemory {
    fn orders(&self) -> MutexGuard<'_, BTreeMap<String, Placed>> {
        self.orders.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

#[async_trait]
impl Shop for StateInMemory {
    async fn store(&self, _: &mut PgConnection, order: &Placed) -> Result<Stored, sqlx::Error> {
        let mut orders = self.orders();
        let id = &order.order.order_id;
        if orders.contains_key(id) {
            return Ok(Stored::compared(orders.get(id).cloned(), &order.order));
        }
        orders.insert(id.clone(), order.clone());
        Ok(Stored::New)
    }

    async fn find(&self, _: &mut PgConnection, id: &str) -> Result<Option<Placed>, sqlx::Error> {
        Ok(self.orders().get(id).cloned())
    }

    async fn list(&self, _: &mut PgConnection) -> Result<Vec<Placed>, sqlx::Error> {
        let mut orders: Vec<_> = self.orders().values().cloned().collect();
        // Stable, and the map has them by the bytes of their ids.
        orders.sort_by(|one, other| one.order.placed_at.cmp(&other.order.placed_at));
        Ok(orders)
    }

    async fn cancel(
        &self,
        _: &mut PgConnection,
        id: &str,
        by: &Cancellation,
    ) -> Result<Cancelled, sqlx::Error> {
        Ok(match self.orders().get_mut(id) {
            None => Cancelled::Unknown,
            Some(order) if order.cancelled_at.is_some() => Cancelled::Before(order.clone()),
            Some(order) => {
                order.cancelled_at = Some(by.cancelled_at.clone());
                Cancelled::Now(order.clone())
            }
        })
    }
}

/// Starts it.
pub async fn app(env: Env) -> Result<App, BoxError> {
    serving::start(env, StateInMemory::default()).await
}
