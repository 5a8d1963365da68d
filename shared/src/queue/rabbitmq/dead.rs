//! Dead letters: a queue that people look into.
//!
//! AMQP knows no looking: messages are taken, and what was only looked at is given back to its place.
//! Meanwhile somebody else who looks does not see it. A look costs what lies before it in the queue.

use std::collections::HashSet;
use std::sync::Arc;

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
        let mut listed = Vec::new();
        let mut seen = after.is_none();
        while listed.len() < limit {
            let Some((_, letter)) = look.next().await? else {
                break;
            };
            let Some(death) = letter.death else { continue };
            if seen {
                listed.push(DeadLetter {
                    message: letter.message,
                    attempts: Some(letter.attempts),
                    reason: death.reason,
                    died_at: Some(death.at),
                    id: death.id,
                });
            } else {
                seen = Some(death.id.as_str()) == after;
            }
        }
        look.end().await?;
        Ok(listed)
    }

    pub(super) async fn redrive(&self, group: &str, ids: &[String]) -> Result<usize, QueueError> {
        let send = async |mut letter: Letter| {
            let source = source_of(letter.message.key.as_deref());
            (letter.attempts, letter.handed) = (0, true);
            (letter.death, letter.due, letter.error) = (None, None, None);
            letter.at = std::time::SystemTime::now();
            let outgoing = Outgoing {
                // To this group alone.
                exchange: String::new(),
                key: self.topology.queue(group, source),
                properties: letter.properties(),
                payload: letter.message.payload,
            };
            self.shared.publisher.send(&[outgoing]).await?;
            Ok(())
        };
        self.remove(group, ids, send).await
    }

    pub(super) async fn discard(&self, group: &str, ids: &[String]) -> Result<usize, QueueError> {
        self.remove(group, ids, async |_| Ok(())).await
    }

    /// Takes these out of the queue, each after something was done with it.
    async fn remove(
        &self,
        group: &str,
        ids: &[String],
        work: impl AsyncFn(Letter) -> Result<(), QueueError>,
    ) -> Result<usize, QueueError> {
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
                work(letter).await?;
                look.remove(tag).await?;
                removed += 1;
            }
        }
        look.end().await?;
        Ok(removed)
    }
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
