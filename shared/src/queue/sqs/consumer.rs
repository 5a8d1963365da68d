//! A consumer: asks SQS, and keeps the handles of what it was given until their time is up.

use std::collections::HashMap;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

use async_trait::async_trait;
use tokio::sync::{Notify, oneshot};

use super::api::Api;
use super::envelope::{Death, Incoming, Outgoing};
use super::messages::Outcome;
use super::{BROKER, LONGEST, whole_seconds};
use crate::queue::{Consumer, ConsumerOptions, Delivery, Nack, QueueError, Receipt, Settled};

pub(super) struct SqsConsumer {
    api: Arc<Api>,
    url: Arc<str>,
    dead: String,
    poll_interval: Duration,
    held: Mutex<Held>,
    deaf: AtomicBool,
    closed: AtomicBool,
    stopped: Notify,
}

#[derive(Default)]
struct Held {
    next: i64,
    /// By the receipt's token.
    leases: HashMap<i64, Lease>,
}

/// A message that is ours until `end`, counted from before it was asked for: SQS counts from later
/// on, so that nobody else has it yet.
#[derive(Debug, Clone)]
struct Lease {
    end: Instant,
    handle: String,
    incoming: Arc<Incoming>,
}

impl SqsConsumer {
    pub(super) fn new(
        api: &Arc<Api>,
        url: String,
        dead: String,
        options: &ConsumerOptions,
    ) -> Self {
        Self {
            api: Arc::clone(api),
            url: url.into(),
            dead,
            poll_interval: options.poll_interval.max(Duration::from_millis(1)),
            held: Mutex::new(Held {
                next: i64::from(rand::random::<u32>()) << 30,
                leases: HashMap::new(),
            }),
            deaf: AtomicBool::new(false),
            closed: AtomicBool::new(false),
            stopped: Notify::new(),
        }
    }

    fn lock(&self) -> MutexGuard<'_, Held> {
        self.held.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn check(&self) -> Result<(), QueueError> {
        self.api.check_open()?;
        match self.closed.load(Ordering::Acquire) {
            true => Err(QueueError::Closed { what: "consumer" }),
            false => Ok(()),
        }
    }

    /// Asks in a task of its own, which runs to its end: dropping a request would not call back what
    /// SQS hands out to it. What nobody waits for any more is shown again.
    fn ask(
        &self,
        max: usize,
        lease: Duration,
        wait_s: u64,
    ) -> oneshot::Receiver<Result<Vec<Incoming>, QueueError>> {
        let (tell, told) = oneshot::channel();
        let (api, url) = (Arc::clone(&self.api), Arc::clone(&self.url));
        tokio::spawn(async move {
            let came = receive(&api, &url, max, lease, wait_s).await;
            if let Err(Ok(came)) = tell.send(came) {
                let handles = came.into_iter().map(|incoming| (incoming.handle, 0));
                let shown = api.hide(&url, &handles.collect::<Vec<_>>()).await;
                if let Err(error) = shown {
                    tracing::debug!(%error, "messages stay hidden until their lease ends");
                }
            }
        });
        told
    }

    /// Keeps what is due, and hides the rest until it is.
    async fn sort(&self, came: Vec<Incoming>, end: Instant) -> Result<Vec<Delivery>, QueueError> {
        let now_ms = now_ms();
        let (early, due): (Vec<_>, Vec<_>) = came
            .into_iter()
            .partition(|incoming| incoming.due_ms > now_ms);
        // What is due first: should hiding fail, the early ones come again when their lease ends.
        let deliveries: Vec<Delivery> = {
            let mut held = self.lock();
            let due = due.into_iter();
            due.map(|incoming| held.add(incoming, end)).collect()
        };
        if !early.is_empty() {
            let handles = early.into_iter().map(|incoming| {
                let left = Duration::from_millis(incoming.due_ms - now_ms);
                (incoming.handle, whole_seconds(left.min(LONGEST)))
            });
            let hidden = self.api.hide(&self.url, &handles.collect::<Vec<_>>()).await;
            if let Err(error) = hidden {
                tracing::debug!(%error, "a delayed message is looked at again");
            }
        }
        Ok(deliveries)
    }

    /// Those whose time is not up, with their place among `receipts`; they are settled, or not, by
    /// whoever calls, so they are not held any more.
    fn take(&self, receipts: &[Receipt]) -> Vec<(usize, Lease)> {
        let now = Instant::now();
        let mut held = self.lock();
        held.leases.retain(|_, lease| lease.end > now);
        let found = receipts.iter().enumerate().filter_map(|(index, receipt)| {
            let lease = held.leases.remove(&receipt.token())?;
            Some((index, lease))
        });
        found.collect()
    }

    /// Settles those that are still held by `settle`, which is given their handles.
    async fn settle<F>(
        &self,
        receipts: &[Receipt],
        settle: impl FnOnce(Vec<(usize, String)>) -> F,
    ) -> Result<Settled, QueueError>
    where
        F: Future<Output = Result<Vec<Outcome>, QueueError>>,
    {
        self.check()?;
        let taken = self.take(receipts);
        let handles = taken
            .iter()
            .map(|(index, lease)| (*index, lease.handle.clone()));
        let outcomes = match settle(handles.collect()).await {
            Ok(outcomes) => outcomes,
            Err(error) => {
                // Nobody knows: they may be settled again until their time is up.
                let mut held = self.lock();
                for (index, lease) in taken {
                    held.leases.insert(receipts[index].token(), lease);
                }
                return Err(error);
            }
        };
        let done = taken.iter().zip(outcomes);
        let done = done.filter(|(_, outcome)| *outcome == Outcome::Done);
        let done: Vec<usize> = done.map(|((index, _), _)| *index).collect();
        let lost = receipts.iter().enumerate();
        let lost = lost.filter(|(index, _)| !done.contains(index));
        Ok(Settled {
            lost: lost.map(|(_, receipt)| receipt.clone()).collect(),
        })
    }
}

impl Held {
    fn add(&mut self, incoming: Incoming, end: Instant) -> Delivery {
        self.next += 1;
        let attempt = incoming.attempt();
        let delivery = Delivery {
            message: incoming.message.clone(),
            receipt: Receipt::new(0, self.next),
            attempt,
            first_enqueued_at: incoming.sent_at,
            redelivered: attempt > 1,
        };
        let lease = Lease {
            end,
            handle: incoming.handle.clone(),
            incoming: Arc::new(incoming),
        };
        self.leases.insert(self.next, lease);
        delivery
    }
}

/// As many requests as it takes; only the first one waits.
async fn receive(
    api: &Api,
    url: &str,
    max: usize,
    lease: Duration,
    wait_s: u64,
) -> Result<Vec<Incoming>, QueueError> {
    let mut came = api.receive(url, max, lease, wait_s).await?;
    let full = usize::try_from(api.address.batch).unwrap_or(1);
    let mut last = came.len();
    while last == full && came.len() < max {
        match api.receive(url, max - came.len(), lease, 0).await {
            Ok(more) => {
                last = more.len();
                came.extend(more);
            }
            // What has come is worth more than the reason why no more did.
            Err(_) => break,
        }
    }
    Ok(came)
}

fn check_lease(lease: Duration) -> Result<(), QueueError> {
    if lease.is_zero() || lease > LONGEST {
        return Err(QueueError::Invalid {
            what: format!("a lease of {lease:?}"),
            reason: "SQS takes from one second to twelve hours".to_owned(),
        });
    }
    Ok(())
}

/// Now, in milliseconds since 1970.
pub(super) fn now_ms() -> u64 {
    let since = SystemTime::now().duration_since(UNIX_EPOCH);
    since.map_or(0, |since| {
        u64::try_from(since.as_millis()).unwrap_or(u64::MAX)
    })
}

#[async_trait]
impl Consumer for SqsConsumer {
    async fn receive(
        &self,
        max: usize,
        lease: Duration,
        wait: Duration,
    ) -> Result<Vec<Delivery>, QueueError> {
        check_lease(lease)?;
        let end = Instant::now() + wait;
        loop {
            let stopped = self.stopped.notified();
            let closing = self.api.closing.notified();
            tokio::pin!(stopped, closing);
            stopped.as_mut().enable();
            closing.as_mut().enable();
            self.check()?;
            if max == 0 || self.deaf.load(Ordering::Acquire) {
                return Ok(Vec::new());
            }
            let left = end.saturating_duration_since(Instant::now());
            let wait_s = left.as_secs().min(self.api.address.long_poll_s);
            let asked = Instant::now();
            let came = tokio::select! {
                came = self.ask(max, lease, wait_s) => came,
                () = &mut stopped => continue,
                () = &mut closing => continue,
            };
            let came = came.map_err(|_| QueueError::Closed { what: "runtime" })??;
            // SQS rounds up, and this is what it was asked for.
            let whole = Duration::from_secs(u64::from(whole_seconds(lease).unsigned_abs()));
            let deliveries = self.sort(came, asked + whole).await?;
            if !deliveries.is_empty() || Instant::now() >= end {
                return Ok(deliveries);
            }
            // A request that waited is followed by the next at once; nothing wakes the others.
            if wait_s == 0 {
                let left = end.saturating_duration_since(Instant::now());
                tokio::select! {
                    () = tokio::time::sleep(left.min(self.poll_interval)) => {}
                    () = &mut stopped => {}
                    () = &mut closing => {}
                }
            }
        }
    }

    fn stop_receiving(&self) {
        self.deaf.store(true, Ordering::Release);
        self.stopped.notify_waiters();
    }

    async fn ack(&self, receipts: &[Receipt]) -> Result<Settled, QueueError> {
        self.settle(receipts, async |handles| {
            let handles: Vec<String> = handles.into_iter().map(|(_, handle)| handle).collect();
            self.api.delete(&self.url, &handles).await
        })
        .await
    }

    async fn nack(&self, nacks: &[Nack]) -> Result<Settled, QueueError> {
        if nacks.iter().any(|nack| nack.delay > LONGEST) {
            return Err(QueueError::Unsupported {
                broker: BROKER,
                what: format!("delay a message by more than {LONGEST:?}"),
            });
        }
        let receipts: Vec<Receipt> = nacks.iter().map(|nack| nack.receipt.clone()).collect();
        self.settle(&receipts, async |handles| {
            let handles = handles
                .into_iter()
                .map(|(index, handle)| (handle, whole_seconds(nacks[index].delay)));
            let handles: Vec<(String, i32)> = handles.collect();
            self.api.hide(&self.url, &handles).await
        })
        .await
    }

    async fn extend(&self, receipts: &[Receipt], lease: Duration) -> Result<Settled, QueueError> {
        check_lease(lease)?;
        self.check()?;
        let asked = Instant::now();
        let seconds = whole_seconds(lease);
        let taken: Vec<(usize, Lease)> = {
            let held = self.lock();
            let found = receipts.iter().enumerate().filter_map(|(index, receipt)| {
                let lease = held.leases.get(&receipt.token())?;
                (lease.end > asked).then(|| (index, lease.clone()))
            });
            found.collect()
        };
        // Shortening is not what was asked for.
        let end = asked + Duration::from_secs(u64::from(seconds.unsigned_abs()));
        let short: Vec<&(usize, Lease)> =
            taken.iter().filter(|(_, lease)| lease.end < end).collect();
        let handles = short
            .iter()
            .map(|(_, lease)| (lease.handle.clone(), seconds));
        let outcomes = self
            .api
            .hide(&self.url, &handles.collect::<Vec<_>>())
            .await?;
        let mut held = self.lock();
        let mut lost: Vec<usize> = Vec::new();
        for ((index, _), outcome) in short.into_iter().zip(outcomes) {
            let token = receipts[*index].token();
            match outcome {
                Outcome::Done => {
                    if let Some(lease) = held.leases.get_mut(&token) {
                        lease.end = end;
                    }
                }
                Outcome::Lost => {
                    held.leases.remove(&token);
                    lost.push(*index);
                }
            }
        }
        let known: Vec<usize> = taken.iter().map(|(index, _)| *index).collect();
        let all = receipts.iter().enumerate();
        let lost = all.filter(|(index, _)| !known.contains(index) || lost.contains(index));
        Ok(Settled {
            lost: lost.map(|(_, receipt)| receipt.clone()).collect(),
        })
    }

    async fn dead_letter(&self, reasons: &[(Receipt, String)]) -> Result<Settled, QueueError> {
        self.check()?;
        let mut letters = Vec::new();
        {
            let (held, now) = (self.lock(), Instant::now());
            for (receipt, reason) in reasons {
                let lease = held.leases.get(&receipt.token());
                let Some(lease) = lease.filter(|lease| lease.end > now) else {
                    continue;
                };
                let death = Death {
                    // Room is left for it beside the largest message.
                    reason: reason.chars().take(1_000).collect(),
                    attempts: lease.incoming.attempt(),
                };
                let incoming = &lease.incoming;
                letters.push(Outgoing::dead(
                    &incoming.message,
                    &incoming.message_id,
                    death,
                )?);
            }
        }
        // Sent first and then deleted: a crash in between repeats it, under the same id.
        self.api.send(&self.dead, &letters).await?;
        let receipts: Vec<Receipt> = reasons.iter().map(|(receipt, _)| receipt.clone()).collect();
        self.ack(&receipts).await
    }

    /// The attempt counts all the same: SQS counts receives, and takes none back.
    async fn release(&self, receipts: &[Receipt]) -> Result<Settled, QueueError> {
        self.settle(receipts, async |handles| {
            let handles = handles.into_iter().map(|(_, handle)| (handle, 0));
            let handles: Vec<(String, i32)> = handles.collect();
            self.api.hide(&self.url, &handles).await
        })
        .await
    }

    async fn close(&self) -> Result<(), QueueError> {
        if self.closed.swap(true, Ordering::AcqRel) {
            return Ok(());
        }
        self.stopped.notify_waiters();
        let left: Vec<(String, i32)> = {
            let mut held = self.lock();
            let left = held.leases.drain().map(|(_, lease)| (lease.handle, 0));
            left.collect()
        };
        self.api.hide(&self.url, &left).await?;
        Ok(())
    }
}
