//! A consumer: a member of the group, and the waiting around it.

use std::sync::Arc;
use std::time::{Duration, Instant};

use async_trait::async_trait;
use tokio::sync::futures::Notified;

use super::cluster::Cluster;
use super::dead::{self, Burial};
use super::error::unavailable;
use super::member::Member;
use super::place::Place;
use super::record::now_ms;
use super::{BROKER, LONGEST_DELAY, poll};
use crate::queue::{Consumer, ConsumerOptions, Delivery, Nack, QueueError, Receipt, Settled};

/// How long a group may take to let a member in: it waits for others that leave, die or hand over.
const JOIN_LIMIT: Duration = Duration::from_secs(60);

pub(super) struct KafkaConsumer {
    cluster: Arc<Cluster>,
    member: Arc<Member>,
    dead: String,
    poll_interval: Duration,
}

impl KafkaConsumer {
    pub(super) async fn join(
        cluster: &Arc<Cluster>,
        queue: &str,
        group: &str,
        options: &ConsumerOptions,
    ) -> Result<Self, QueueError> {
        let session = cluster.address.session;
        let mut config = cluster.consumer_config(&group_id(queue, group));
        config
            .set("client.id", &options.name)
            .set("session.timeout.ms", session.as_millis().to_string())
            .set(
                "heartbeat.interval.ms",
                (session.as_millis() / 10).to_string(),
            )
            // Only what moves is interrupted when somebody comes or goes.
            .set("partition.assignment.strategy", "cooperative-sticky")
            // A broker answers as soon as there is something; one that waits the time out in any
            // case makes delays no less exact than is declared.
            .set("fetch.wait.max.ms", "100")
            .set("queued.max.messages.kbytes", "8192");
        let member = Member::new(queue, group, options.prefetch);
        poll::start(&config, &member, cluster.timeout())?;
        cluster.remember(&member);
        let consumer = Self {
            cluster: Arc::clone(cluster),
            member,
            dead: dead::topic(queue, group),
            poll_interval: options.poll_interval.max(Duration::from_millis(1)),
        };
        consumer.member.joined(JOIN_LIMIT).await?;
        Ok(consumer)
    }

    /// Settles each in memory, then commits all.
    async fn settle(
        &self,
        receipts: &[Receipt],
        mut one: impl FnMut(&Receipt) -> Option<Place>,
    ) -> Result<Settled, QueueError> {
        self.member.check()?;
        let places: Vec<Option<Place>> = receipts.iter().map(&mut one).collect();
        self.member.wake.notify_waiters();
        let gone = self
            .member
            .commit(places.iter().flatten().copied().collect());
        let gone = gone.await?;
        let lost = receipts.iter().zip(places).filter(|(_, place)| {
            // Not held any more, or held by an ownership that ended before the commit.
            place.is_none_or(|place| gone.contains(&place))
        });
        Ok(Settled {
            lost: lost.map(|(receipt, _)| receipt.clone()).collect(),
        })
    }

    /// Takes what is due and commits that it was taken.
    async fn take(&self, max: usize) -> Result<Vec<Delivery>, QueueError> {
        let taken = self.member.take(max);
        if taken.is_empty() {
            return Ok(Vec::new());
        }
        let mut taken = PutBack {
            member: &self.member,
            taken,
        };
        let places = taken.taken.iter().map(|(place, _)| *place).collect();
        let gone = self.member.commit(places).await?;
        let handed_out = std::mem::take(&mut taken.taken).into_iter();
        let still_ours = handed_out.filter(|(place, _)| !gone.contains(place));
        Ok(still_ours.map(|(_, delivery)| delivery).collect())
    }

    /// Until something may have changed, or until `end`.
    async fn wait(&self, woken: std::pin::Pin<&mut Notified<'_>>, end: Instant) {
        let due = self.member.next_due().unwrap_or(self.poll_interval);
        let left = end.saturating_duration_since(Instant::now());
        // At least a moment, lest one that is due but cannot be handed out yet make this spin.
        let limit = due
            .max(Duration::from_millis(1))
            .min(self.poll_interval)
            .min(left);
        let _ = tokio::time::timeout(limit, woken).await;
    }
}

/// The group's name in Kafka, where groups do not belong to a topic.
pub(super) fn group_id(queue: &str, group: &str) -> String {
    format!("{queue}.{group}")
}

/// What was taken and is on its way; back where it was if nobody gets it.
struct PutBack<'a> {
    member: &'a Member,
    taken: Vec<(Place, Delivery)>,
}

impl Drop for PutBack<'_> {
    fn drop(&mut self) {
        if !self.taken.is_empty() {
            let places = self.taken.iter().map(|(place, _)| *place);
            self.member.untake(places);
        }
    }
}

#[async_trait]
impl Consumer for KafkaConsumer {
    async fn receive(
        &self,
        max: usize,
        _lease: Duration,
        wait: Duration,
    ) -> Result<Vec<Delivery>, QueueError> {
        let end = Instant::now() + wait;
        loop {
            let woken = self.member.wake.notified();
            tokio::pin!(woken);
            woken.as_mut().enable();
            self.member.check()?;
            if max == 0 || self.member.is_deaf() {
                return Ok(Vec::new());
            }
            let taken = self.take(max).await?;
            if !taken.is_empty() {
                return Ok(taken);
            }
            if Instant::now() >= end {
                return match self.member.trouble() {
                    Some(trouble) => Err(unavailable(trouble)),
                    None => Ok(taken),
                };
            }
            self.wait(woken, end).await;
        }
    }

    fn stop_receiving(&self) {
        self.member.stop_receiving();
    }

    async fn ack(&self, receipts: &[Receipt]) -> Result<Settled, QueueError> {
        self.settle(receipts, |receipt| {
            self.member
                .settle(receipt, |window, offset, lease| window.done(offset, lease))
        })
        .await
    }

    async fn nack(&self, nacks: &[Nack]) -> Result<Settled, QueueError> {
        if nacks.iter().any(|nack| nack.delay > LONGEST_DELAY) {
            return Err(QueueError::Unsupported {
                broker: BROKER,
                what: format!("delay a message by more than {LONGEST_DELAY:?}"),
            });
        }
        let receipts: Vec<Receipt> = nacks.iter().map(|nack| nack.receipt.clone()).collect();
        let now_ms = now_ms();
        let mut delays = nacks.iter().map(|nack| nack.delay);
        self.settle(&receipts, |receipt| {
            let delay = delays.next().unwrap_or_default();
            let due_ms = match u64::try_from(delay.as_millis()) {
                Ok(0) => 0,
                Ok(delay_ms) => now_ms.saturating_add(delay_ms),
                Err(_) => u64::MAX,
            };
            self.member.settle(receipt, |window, offset, lease| {
                window.refuse(offset, lease, due_ms)
            })
        })
        .await
    }

    /// There is no time to extend: what is said is whether the membership still holds.
    async fn extend(&self, receipts: &[Receipt], _lease: Duration) -> Result<Settled, QueueError> {
        self.member.check()?;
        let lost = receipts
            .iter()
            .filter(|receipt| self.member.held(receipt).is_none());
        Ok(Settled {
            lost: lost.cloned().collect(),
        })
    }

    async fn dead_letter(&self, reasons: &[(Receipt, String)]) -> Result<Settled, QueueError> {
        self.member.check()?;
        let burials = reasons.iter().filter_map(|(receipt, reason)| {
            let (taken, attempts) = self.member.held(receipt)?;
            Some(Burial {
                receipt: receipt.clone(),
                message: taken.message,
                attempts,
                reason: reason.clone(),
            })
        });
        let burials: Vec<Burial> = burials.collect();
        // Written first and then done: a crash in between repeats it, under the same id.
        dead::bury(&self.cluster, &self.dead, &burials).await?;
        let receipts: Vec<Receipt> = reasons.iter().map(|(receipt, _)| receipt.clone()).collect();
        self.ack(&receipts).await
    }

    async fn release(&self, receipts: &[Receipt]) -> Result<Settled, QueueError> {
        self.settle(receipts, |receipt| {
            self.member.settle(receipt, |window, offset, lease| {
                window.release(offset, lease)
            })
        })
        .await
    }

    async fn close(&self) -> Result<(), QueueError> {
        self.member.leave().await;
        Ok(())
    }
}
