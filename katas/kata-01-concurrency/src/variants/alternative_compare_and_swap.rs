//! Alternative: no lock at the counter: an atomic, and a loop that compares and swaps.
//!
//! Whoever was overtaken sees it, since the swap fails, and decides again. The mutex that is left is
//! around the list of articles, and is held for a look-up.

use std::{
    collections::HashMap,
    sync::{
        Arc, Mutex, MutexGuard, PoisonError,
        atomic::{AtomicU64, Ordering},
    },
};

use async_trait::async_trait;
use kata_lab::{App, BoxError, Env};

use crate::{
    contract::{Order, Refused, Style},
    variants::{
        protocol::Protocol,
        reference::Reference,
        serving::{self, Service},
    },
};

/// Optimistic.
#[derive(Debug, Default)]
pub struct CompareAndSwap {
    articles: Mutex<HashMap<String, Arc<AtomicU64>>>,
}

impl CompareAndSwap {
    fn articles(&self) -> MutexGuard<'_, HashMap<String, Arc<AtomicU64>>> {
        self.articles.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn article(&self, sku: &str) -> Result<Arc<AtomicU64>, Refused> {
        let article = self.articles().get(sku).cloned();
        article.ok_or(Refused::Unknown)
    }
}

#[async_trait]
impl Protocol for CompareAndSwap {
    async fn put(
        &self,
        service: &Service,
        style: Style,
        sku: &str,
        quantity: u64,
    ) -> Result<(), Refused> {
        if style != Style::Lock {
            return Reference.put(service, style, sku, quantity).await;
        }
        let article = Arc::new(AtomicU64::new(quantity));
        self.articles().insert(sku.to_owned(), article);
        Ok(())
    }

    async fn look(&self, service: &Service, style: Style, sku: &str) -> Result<u64, Refused> {
        if style != Style::Lock {
            return Reference.look(service, style, sku).await;
        }
        Ok(self.article(sku)?.load(Ordering::Relaxed))
    }

    async fn reserve_lock(&self, service: &Service, order: &Order) -> Result<u64, Refused> {
        let article = self.article(&order.sku)?;
        self.approve(service, order).await?;
        let take = |left: u64| left.checked_sub(order.quantity);
        // Relaxed, since nothing else is published with the number: it is all there is.
        let took = article.fetch_update(Ordering::Relaxed, Ordering::Relaxed, take);
        let before = took.map_err(|_| Refused::SoldOut)?;
        Ok(before - order.quantity)
    }
}

/// Starts it.
pub async fn app(env: Env) -> Result<App, BoxError> {
    serving::start(env, CompareAndSwap::default()).await
}
