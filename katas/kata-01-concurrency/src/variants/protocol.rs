//! The decisions: each method is one, with its reason. All that is decided here is the
//! reference's; a flawed variant decides one thing differently.
//!
//! A unit of stock goes through these states, and no others:
//!
//! ```text
//! on the shelf → sold       take: by whoever holds the lock, or by the owner
//! ```
//!
//! and a job through these:
//!
//! ```text
//! (none)  → refused    the queue is full
//! (none)  → queued     there is room
//! queued  → running    by a worker that has nothing else to do
//! running → done       the slow service has answered, or has failed
//! ```

use std::sync::Arc;

use async_trait::async_trait;
use http::HeaderMap;
use shared::http::Problem;
use tokio::sync::{mpsc, oneshot};

use crate::{
    contract::{self, DigestOrder, JobStats, Order, Refused, Style},
    outside::CallFailed,
    variants::{
        digest::digest,
        jobs::Line,
        serving::Service,
        stock::{self, Message},
    },
};

/// The decisions. All that is written here is the reference's.
#[async_trait]
pub trait Protocol: Send + Sync + 'static {
    /// The quantity of an order, checked before anything happens.
    fn read(&self, headers: &HeaderMap, bytes: &[u8]) -> Result<u64, Problem> {
        contract::reserve_body(headers, bytes)
    }

    /// Replaces what was there. Each style has its own stock.
    async fn put(
        &self,
        service: &Service,
        style: Style,
        sku: &str,
        quantity: u64,
    ) -> Result<(), Refused> {
        match style {
            Style::Naive => service.naive.put(sku, quantity),
            Style::Lock => service.lock.put(sku, quantity),
            Style::Worker => service.worker.put(sku, quantity).await?,
        }
        Ok(())
    }

    /// What there is.
    async fn look(&self, service: &Service, style: Style, sku: &str) -> Result<u64, Refused> {
        match style {
            Style::Naive => service.naive.look(sku).ok_or(Refused::Unknown),
            Style::Lock => service.lock.look(sku).ok_or(Refused::Unknown),
            Style::Worker => service.worker.look(sku).await,
        }
    }

    /// Once for each order. Whatever is no approval is none: nothing is sold on a hope.
    async fn approve(&self, service: &Service, order: &Order) -> Result<(), Refused> {
        let answer = service.outside.approve(order).await;
        answer.map_err(|CallFailed| Refused::NotApproved)
    }

    /// The race, as the contract wants it: what was read is old by the time it is written.
    async fn reserve_naive(&self, service: &Service, order: &Order) -> Result<u64, Refused> {
        let read = service.naive.look(&order.sku).ok_or(Refused::Unknown)?;
        let left = read.checked_sub(order.quantity).ok_or(Refused::SoldOut)?;
        self.approve(service, order).await?;
        service.naive.put(&order.sku, left);
        Ok(left)
    }

    /// Asks first and without the lock: somebody else's slowness must not become a queue here.
    /// Then decides and takes under one lock. An unknown article is not asked about.
    async fn reserve_lock(&self, service: &Service, order: &Order) -> Result<u64, Refused> {
        service.lock.look(&order.sku).ok_or(Refused::Unknown)?;
        self.approve(service, order).await?;
        service.lock.take(order)
    }

    /// The same, with a message in place of the lock.
    async fn reserve_worker(&self, service: &Service, order: &Order) -> Result<u64, Refused> {
        service.worker.look(&order.sku).await?;
        self.approve(service, order).await?;
        service.worker.take(order).await
    }

    /// The life of the owner of the worker's stock.
    async fn own(self: Arc<Self>, _service: Service, messages: mpsc::Receiver<Message>) {
        stock::own(messages).await;
    }

    /// Takes a job if there is room, and says at once if there is none: a caller that waits is a
    /// queue, too, and one without a bound.
    async fn accept(&self, service: &Service, job: String) -> bool {
        let room = service.line.try_push(job);
        if !room {
            service.line.refuse();
        }
        room
    }

    /// One job. A failure is its end, and not the worker's; and nobody knows whether the service
    /// has done it, so it is not sent again.
    async fn work(&self, service: &Service, job: &str) {
        if let Err(CallFailed) = service.outside.do_job(job).await {
            tracing::warn!(job, "a job failed");
        }
    }

    /// The life of one of the workers.
    async fn run_worker(self: Arc<Self>, service: Service) {
        loop {
            let job = service.line.next().await;
            self.work(&service, &job).await;
            service.line.done();
        }
    }

    /// What became of the jobs, for whoever asks.
    fn stats(&self, service: &Service) -> JobStats {
        service.line.stats()
    }

    /// The jobs that wait.
    fn line(&self, limit: usize) -> Line {
        Line::bounded(limit)
    }

    /// With a permit, which goes back when it is dropped: at the end, at a failure, and when the
    /// caller hangs up and this future is dropped half way.
    async fn fetch(&self, service: &Service, id: &str) -> Result<(), CallFailed> {
        let permit = service.permits.acquire().await;
        let fetched = service.outside.fetch(id).await;
        drop(permit);
        fetched
    }

    /// On a thread for work that blocks: the runtime's own threads never come to an await in it,
    /// and serve everybody. It ends early when nobody waits for it any more.
    async fn digest(&self, _service: &Service, order: DigestOrder) -> Option<String> {
        let (tell, told) = oneshot::channel();
        tokio::task::spawn_blocking(move || {
            if let Some(digest) = digest(&order, || tell.is_closed()) {
                let _ = tell.send(digest);
            }
        });
        told.await.ok()
    }
}
