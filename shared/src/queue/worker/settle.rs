//! Settling in batches: what ends while a batch is on its way goes into the next one.
//!
//! So a worker with little to do acknowledges at once, and one with much to do acknowledges
//! hundreds at a time, without a timer that somebody would have to set.

use std::sync::Arc;
use std::time::{Duration, Instant};

use tokio::sync::mpsc;

use super::super::{Backoff, Consumer, Nack, QueueError, Receipt, Settled};
use super::observer::Observer;

/// What is to become of a delivery.
#[derive(Debug)]
pub(super) enum Verdict {
    Ack(Receipt),
    Nack(Nack),
    Dead(Receipt, String),
    Release(Receipt),
}

/// The other half of `Settler`.
pub(super) type Sender = mpsc::UnboundedSender<(Verdict, Instant)>;

/// Sends verdicts to the broker until the last sender is gone and all are told.
pub(super) struct Settler {
    pub(super) consumer: Arc<dyn Consumer>,
    pub(super) observer: Arc<dyn Observer>,
    /// At most so many at once.
    pub(super) batch: usize,
    /// How long the first of a batch waits for others.
    pub(super) linger: Duration,
}

/// Verdicts by kind, and until when the first of their leases lasts.
#[derive(Default)]
struct Batch {
    acks: Vec<Receipt>,
    nacks: Vec<Nack>,
    dead: Vec<(Receipt, String)>,
    releases: Vec<Receipt>,
    until: Option<Instant>,
}

impl Batch {
    fn add(&mut self, verdict: Verdict, until: Instant) {
        self.until = Some(self.until.map_or(until, |earlier| earlier.max(until)));
        match verdict {
            Verdict::Ack(receipt) => self.acks.push(receipt),
            Verdict::Nack(nack) => self.nacks.push(nack),
            Verdict::Dead(receipt, reason) => self.dead.push((receipt, reason)),
            Verdict::Release(receipt) => self.releases.push(receipt),
        }
    }

    fn len(&self) -> usize {
        self.acks.len() + self.nacks.len() + self.dead.len() + self.releases.len()
    }
}

impl Settler {
    pub(super) async fn run(self, mut verdicts: mpsc::UnboundedReceiver<(Verdict, Instant)>) {
        while let Some((verdict, until)) = verdicts.recv().await {
            let mut batch = Batch::default();
            batch.add(verdict, until);
            self.fill(&mut batch, &mut verdicts).await;
            self.settle(batch).await;
        }
    }

    async fn fill(
        &self,
        batch: &mut Batch,
        verdicts: &mut mpsc::UnboundedReceiver<(Verdict, Instant)>,
    ) {
        let deadline = tokio::time::Instant::now() + self.linger;
        while batch.len() < self.batch {
            let next = match verdicts.try_recv() {
                Ok(next) => next,
                Err(_) if self.linger.is_zero() => return,
                Err(_) => match tokio::time::timeout_at(deadline, verdicts.recv()).await {
                    Ok(Some(next)) => next,
                    Ok(None) | Err(_) => return,
                },
            };
            batch.add(next.0, next.1);
        }
    }

    /// Nacks before releases: what was behind a failed message of a key must come after it.
    async fn settle(&self, batch: Batch) {
        let consumer = &self.consumer;
        let until = batch.until.unwrap_or_else(Instant::now);
        if !batch.acks.is_empty() {
            self.insist(until, || consumer.ack(&batch.acks)).await;
        }
        if !batch.nacks.is_empty() {
            self.insist(until, || consumer.nack(&batch.nacks)).await;
        }
        if !batch.dead.is_empty() {
            self.insist(until, || consumer.dead_letter(&batch.dead))
                .await;
        }
        if !batch.releases.is_empty() {
            self.insist(until, || consumer.release(&batch.releases))
                .await;
        }
    }

    /// Until it succeeds, or the leases have run out, after which it is of no use. To settle twice
    /// is harmless.
    async fn insist<'a, F>(&self, until: Instant, call: impl Fn() -> F)
    where
        F: Future<Output = Result<Settled, QueueError>> + 'a,
    {
        let pause = Backoff::exponential(Duration::from_millis(20), Duration::from_secs(1));
        let mut failures = 0;
        loop {
            let error = match call().await {
                Ok(settled) if settled.lost.is_empty() => return,
                // After a failure they may be those that the failed call settled.
                Ok(settled) => {
                    if failures == 0 {
                        self.observer.lost(settled.lost.len());
                        tracing::warn!(
                            messages = settled.lost.len(),
                            "settled too late: somebody else has these messages"
                        );
                    }
                    return;
                }
                Err(error) => error,
            };
            self.observer.broker_failed(&error);
            failures += 1;
            let wait = pause.after(failures);
            if !error.is_transient() || Instant::now() + wait > until {
                tracing::warn!(%error, "messages could not be settled, and come again");
                return;
            }
            tokio::time::sleep(wait).await;
        }
    }
}
