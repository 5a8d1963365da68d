//! A consumer's hands: what it was sent, and how it is settled with the broker.

use std::sync::{Arc, Mutex, MutexGuard};
use std::time::{Duration, Instant};

use lapin::Channel;
use lapin::options::BasicAckOptions;
use tokio::sync::Notify;

use super::connection::failed;
use super::desk::{Desk, Held};
use super::publisher::{Outgoing, Unsent};
use super::topology::{SHORTEST_WAIT, Topology, lock};
use super::wire::Letter;
use super::{BROKER, Shared};
use crate::queue::QueueError;

/// How often, and after what time, something is sent again that the broker could not store.
const PATIENCE: u32 = 5;
const MOMENT: Duration = Duration::from_millis(20);

pub(super) struct Hands {
    pub(super) shared: Arc<Shared>,
    pub(super) topology: Arc<Topology>,
    pub(super) group: String,
    desk: Mutex<Desk>,
    /// The channels of the desk's generation, by source.
    channels: Mutex<Vec<Channel>>,
    /// Held from deciding what to tell the broker until it is told. A tag that stands for all up to
    /// it must not overtake a single one: the broker closes a channel that settles a tag twice.
    telling: Arc<tokio::sync::Mutex<()>>,
    /// Something may be there to be handed out, or the end has come.
    pub(super) news: Notify,
}

impl Hands {
    pub(super) fn new(shared: Arc<Shared>, topology: Arc<Topology>, group: &str) -> Self {
        Self {
            shared,
            topology,
            group: group.to_owned(),
            desk: Mutex::new(Desk::new(0)),
            channels: Mutex::default(),
            telling: Arc::default(),
            news: Notify::new(),
        }
    }

    pub(super) fn desk(&self) -> MutexGuard<'_, Desk> {
        lock(&self.desk)
    }

    /// Forgets everything: it came by channels that are gone. Gives the new generation.
    pub(super) fn begin(&self) -> u32 {
        let mut desk = self.desk();
        // 32 bits of generations at a reconnect a second last for a century.
        let generation = desk.generation().wrapping_add(1);
        *desk = Desk::new(generation);
        lock(&self.channels).clear();
        generation
    }

    /// The next source's channel.
    pub(super) fn add_channel(&self, channel: Channel) {
        lock(&self.channels).push(channel);
    }

    /// Works on the desk if it is still the one of this generation.
    pub(super) fn with<T>(&self, generation: u32, work: impl FnOnce(&mut Desk) -> T) -> Option<T> {
        let mut desk = self.desk();
        (desk.generation() == generation).then(|| work(&mut desk))
    }

    /// The broker sent something.
    pub(super) fn arrived(self: &Arc<Self>, generation: u32, source: u8, tag: u64, letter: Letter) {
        let held = Held::new(letter, source, tag);
        let now = Instant::now();
        let far = source == 0 && held.wait(now) >= SHORTEST_WAIT;
        let held = self.with(generation, |desk| {
            desk.received(source, tag);
            match far {
                true => Some(held),
                false => {
                    desk.put(held, now);
                    None
                }
            }
        });
        match held {
            Some(Some(early)) => {
                let hands = Arc::clone(self);
                tokio::spawn(async move { hands.forward(generation, early).await });
            }
            Some(None) => self.news.notify_waiters(),
            None => {}
        }
    }

    /// Tells the broker that these are settled.
    ///
    /// Goes on to its end if the future is dropped: what is told in part is never settled.
    pub(super) async fn tell(&self, generation: u32, settled: &[Held]) -> Result<(), QueueError> {
        let telling = Arc::clone(&self.telling).lock_owned().await;
        let mut by_source: Vec<(u8, Vec<u64>)> = Vec::new();
        for held in settled {
            match by_source
                .iter_mut()
                .find(|(source, _)| *source == held.source)
            {
                Some((_, tags)) => tags.push(held.tag),
                None => by_source.push((held.source, vec![held.tag])),
            }
        }
        let plan = self.with(generation, |desk| {
            let channels = lock(&self.channels);
            let plan = by_source.iter().filter_map(|(source, tags)| {
                let channel = channels.get(usize::from(*source))?.clone();
                Some((channel, desk.settle(*source, tags)))
            });
            plan.collect::<Vec<_>>()
        });
        let Some(plan) = plan else {
            return Err(QueueError::Unavailable {
                broker: BROKER,
                reason: "the connection broke, and what was out will come again".to_owned(),
            });
        };
        let told = tokio::spawn(async move {
            for (channel, tags) in plan {
                for (tag, multiple) in tags {
                    channel.basic_ack(tag, BasicAckOptions { multiple }).await?;
                }
            }
            drop(telling);
            lapin::Result::Ok(())
        });
        match told.await {
            Ok(told) => told.map_err(|error| failed(&error)),
            // Only a runtime that is shutting down does that.
            Err(_) => Err(QueueError::Closed { what: "consumer" }),
        }
    }

    /// Sends letters to our group: those that are not due to where they wait, the others to its
    /// queue. Confirmed when it returns.
    pub(super) async fn post(&self, letters: &[Letter]) -> Result<(), QueueError> {
        self.send(letters, false).await
    }

    /// Sends letters to our dead. Confirmed when it returns.
    pub(super) async fn bury(&self, letters: &[Letter]) -> Result<(), QueueError> {
        self.send(letters, true).await
    }

    async fn send(&self, letters: &[Letter], dead: bool) -> Result<(), QueueError> {
        let mut rest: Vec<&Letter> = letters.iter().collect();
        for attempt in 0.. {
            let mut all = Vec::with_capacity(rest.len());
            for letter in &rest {
                all.push(Outgoing {
                    exchange: String::new(),
                    key: self.queue_for(letter, dead).await?,
                    properties: letter.properties(),
                    payload: letter.message.payload.clone(),
                });
            }
            match self.shared.publisher.send(&all).await {
                Ok(()) => return Ok(()),
                // The queue in which it would wait has expired, for example.
                Err(Unsent::NoRoute(first)) if attempt == 0 => {
                    rest.drain(..first);
                    self.topology.forget();
                    self.topology.declare(&self.shared.link).await?;
                }
                // Somebody else is declaring the queue: it is there, and does not work yet.
                Err(Unsent::NotStored(left)) if attempt < PATIENCE => {
                    rest = left
                        .iter()
                        .filter_map(|at| rest.get(*at).copied())
                        .collect();
                    tokio::time::sleep(MOMENT * (attempt + 1)).await;
                }
                Err(unsent) => return Err(unsent.into()),
            }
        }
        Ok(())
    }

    async fn queue_for(&self, letter: &Letter, dead: bool) -> Result<String, QueueError> {
        let (group, link) = (self.group.as_str(), &self.shared.link);
        if dead {
            return self.topology.dead(link, group).await;
        }
        let left = letter
            .due
            .and_then(|due| due.duration_since(std::time::SystemTime::now()).ok())
            .unwrap_or_default();
        match left >= SHORTEST_WAIT {
            true => self.topology.wait(link, Some(group), left).await,
            false => Ok(self.topology.queue(group, 0)),
        }
    }

    /// Sends on what came too early.
    async fn forward(self: Arc<Self>, generation: u32, held: Held) {
        if self.post(std::slice::from_ref(&held.letter)).await.is_err() {
            // Then it waits here.
            self.with(generation, |desk| desk.put(held, Instant::now()));
            self.news.notify_waiters();
            return;
        }
        // If that fails the channel is gone, and the message comes a second time.
        let _ = self.tell(generation, &[held]).await;
    }
}
