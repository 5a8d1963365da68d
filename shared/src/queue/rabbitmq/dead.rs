//! Dead letters: a queue that people look into.
//!
//! AMQP knows no looking: messages are taken, and what was only looked at is given back. Meanwhile
//! somebody else who looks does not see it. Whoever looks reads the whole queue, since what is given
//! back lies behind what was not taken.

use std::collections::{BTreeMap, HashSet};
use std::sync::Arc;
use std::time::SystemTime;

use lapin::Channel;
use lapin::options::{BasicAckOptions, BasicGetOptions, BasicNackOptions};
use tokio::sync::Mutex;

use super::Shared;
use super::publisher::Outgoing;
use super::topology::{Topology, source_of};
use super::wire::Letter;
use crate::queue::{DeadLetter, QueueError};

pub(super) struct Dead {
    shared: Arc<Shared>,
    topology: Arc<Topology>,
    /// One channel for all looks, one at a time: what is given back on another channel may come
    /// late.
    channel: Mutex<Option<Channel>>,
}

impl Dead {
    pub(super) fn new(shared: Arc<Shared>, topology: Arc<Topology>) -> Self {
        Self {
            shared,
            topology,
            channel: Mutex::new(None),
        }
    }

    pub(super) async fn list(
        &self,
        group: &str,
        after: Option<&str>,
        limit: usize,
    ) -> Result<Vec<DeadLetter>, QueueError> {
        let queue = self.topology.dead(&self.shared.link, group).await?;
        let mut look = Look::begin(self, queue).await?;
        // The ids sort by time; what was looked at before lies in the queue in another order.
        let mut listed = BTreeMap::new();
        while let Some((_, letter)) = look.next().await? {
            let Some(death) = letter.death else { continue };
            if after.is_some_and(|after| death.id.as_str() <= after) {
                continue;
            }
            let dead = DeadLetter {
                message: letter.message,
                attempts: Some(letter.attempts),
                reason: death.reason,
                died_at: Some(death.at),
                id: death.id,
            };
            listed.insert(dead.id.clone(), dead);
            if listed.len() > limit {
                listed.pop_last();
            }
        }
        look.end().await?;
        Ok(listed.into_values().collect())
    }

    pub(super) async fn redrive(&self, group: &str, ids: &[String]) -> Result<usize, QueueError> {
        self.remove(group, ids, Fate::Redriven).await
    }

    pub(super) async fn discard(&self, group: &str, ids: &[String]) -> Result<usize, QueueError> {
        self.remove(group, ids, Fate::Discarded).await
    }

    /// Takes these out of the queue.
    async fn remove(&self, group: &str, ids: &[String], fate: Fate) -> Result<usize, QueueError> {
        let mut wanted: HashSet<&str> = ids.iter().map(String::as_str).collect();
        let queue = self.topology.dead(&self.shared.link, group).await?;
        let mut look = Look::begin(self, queue).await?;
        let mut removed = 0;
        while !wanted.is_empty() {
            let Some((tag, letter)) = look.next().await? else {
                break;
            };
            let id = letter.death.as_ref().map(|death| death.id.clone());
            if id.is_some_and(|id| wanted.remove(id.as_str())) {
                if fate == Fate::Redriven {
                    self.send_again(group, letter).await?;
                }
                look.remove(tag).await?;
                removed += 1;
            }
        }
        look.end().await?;
        Ok(removed)
    }

    /// As if it were published now, to this group alone.
    async fn send_again(&self, group: &str, mut letter: Letter) -> Result<(), QueueError> {
        let source = source_of(letter.message.key.as_deref());
        (letter.attempts, letter.handed) = (0, true);
        (letter.death, letter.due, letter.error) = (None, None, None);
        letter.at = SystemTime::now();
        let outgoing = Outgoing {
            exchange: String::new(),
            key: self.topology.queue(group, source),
            properties: letter.properties(),
            payload: letter.message.payload,
        };
        Ok(self.shared.publisher.send(&[outgoing]).await?)
    }
}

/// What becomes of a dead letter that is taken out.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Fate {
    Redriven,
    Discarded,
}

/// One look through a queue. If it is not ended its channel is closed, which ends it too.
struct Look<'a> {
    dead: &'a Dead,
    kept: tokio::sync::MutexGuard<'a, Option<Channel>>,
    channel: Channel,
    queue: String,
    left: Option<u64>,
}

impl<'a> Look<'a> {
    async fn begin(dead: &'a Dead, queue: String) -> Result<Self, QueueError> {
        let mut kept = dead.channel.lock().await;
        let usable = kept.take().filter(|channel| channel.status().connected());
        let channel = match usable {
            Some(channel) => channel,
            None => dead.shared.link.channel().await?,
        };
        Ok(Self {
            dead,
            kept,
            channel,
            queue,
            left: None,
        })
    }

    async fn next(&mut self) -> Result<Option<(u64, Letter)>, QueueError> {
        let options = BasicGetOptions::default();
        let getting = self.channel.basic_get(self.queue.as_str().into(), options);
        let Some(got) = self.dead.shared.link.within(getting).await? else {
            return Ok(None);
        };
        let tag = got.delivery.delivery_tag;
        self.left = Some(tag);
        let mut letter = Letter::read(got.delivery);
        // Looks are no attempts.
        letter.attempts = letter.attempts.saturating_sub(letter.counted);
        Ok(Some((tag, letter)))
    }

    async fn remove(&mut self, tag: u64) -> Result<(), QueueError> {
        let options = BasicAckOptions::default();
        self.dead
            .shared
            .link
            .within(self.channel.basic_ack(tag, options))
            .await?;
        if self.left == Some(tag) {
            self.left = tag.checked_sub(1).filter(|left| *left > 0);
        }
        Ok(())
    }

    /// Gives back what was only looked at.
    async fn end(mut self) -> Result<(), QueueError> {
        if self.left.is_some() {
            // Tag 0 stands for everything that is out on this channel.
            let options = BasicNackOptions {
                multiple: true,
                requeue: true,
            };
            let giving = self.channel.basic_nack(0, options);
            self.dead.shared.link.within(giving).await?;
        }
        *self.kept = Some(self.channel.clone());
        Ok(())
    }
}
