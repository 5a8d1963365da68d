//! A member of a group: takes deliveries and settles them.

use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex as StdMutex, MutexGuard, Weak};
use std::time::{Duration, Instant, SystemTime};

use async_trait::async_trait;
use tokio::sync::Mutex;
use uuid::Uuid;

use super::desk::{Desk, Held};
use super::hands::Hands;
use super::publisher::Outgoing;
use super::session::Session;
use super::topology::lock;
use super::wire::{self, Death};
use super::{BROKER, LONGEST_KEYED_DELAY};
use crate::queue::{Consumer, ConsumerOptions, Delivery, Nack, QueueError, Receipt, Settled};

pub(super) struct RabbitConsumer {
    hands: Arc<Hands>,
    prefetch: u16,
    poll_interval: Duration,
    session: Mutex<Option<Session>>,
    presence: StdMutex<Presence>,
    stopped: AtomicBool,
    closed: AtomicBool,
}

/// Whether anybody receives.
#[derive(Debug)]
struct Presence {
    receiving: usize,
    last: Instant,
}

/// How long messages without a key stay in the hands of a consumer that does not receive, before
/// they are given back for others. Long beside the time between two calls of a worker that has room.
const GRACE: Duration = Duration::from_millis(250);

impl RabbitConsumer {
    /// Subscribes, so that a group's messages are shared from now on.
    pub(super) async fn open(
        hands: Hands,
        options: &ConsumerOptions,
    ) -> Result<Arc<Self>, QueueError> {
        let consumer = Arc::new(Self {
            hands: Arc::new(hands),
            prefetch: options.prefetch,
            poll_interval: options.poll_interval.max(Duration::from_millis(1)),
            session: Mutex::new(None),
            presence: StdMutex::new(Presence {
                receiving: 0,
                last: Instant::now(),
            }),
            stopped: AtomicBool::new(false),
            closed: AtomicBool::new(false),
        });
        let session = Session::open(&consumer.hands).await?;
        *consumer.session.lock().await = Some(session);
        tokio::spawn(give_back_when_idle(Arc::downgrade(&consumer)));
        Ok(consumer)
    }

    fn check_open(&self) -> Result<(), QueueError> {
        match self.closed.load(Ordering::Acquire) {
            true => Err(QueueError::Closed { what: "consumer" }),
            false => Ok(()),
        }
    }

    /// Subscribes again if the connection broke, or somebody deleted a queue, or if we had given our
    /// messages back.
    async fn subscribe(&self) -> Result<(), QueueError> {
        let mut session = self.session.lock().await;
        self.check_open()?;
        if session.as_ref().is_none_or(Session::is_broken) {
            if let Some(broken) = session.take() {
                broken.close().await;
            }
            self.hands.topology.declare(&self.hands.shared.link).await?;
            *session = Some(Session::open(&self.hands).await?);
        }
        let ours = {
            let desk = self.hands.desk();
            match desk.has_free() {
                true => 0,
                false => desk.free_unsettled(),
            }
        };
        if let Some(session) = session.as_mut() {
            session.want_free(&self.hands, self.prefetch, ours).await?;
        }
        Ok(())
    }

    fn presence(&self) -> MutexGuard<'_, Presence> {
        lock(&self.presence)
    }

    /// Gives messages without a key back if nobody has received for a while.
    ///
    /// They go as new copies, so that having been sent to us counts as no attempt.
    async fn give_back_if_idle(&self) -> Result<(), QueueError> {
        let idle =
            |presence: &Presence| presence.receiving == 0 && presence.last.elapsed() >= GRACE;
        if !idle(&self.presence()) || !self.hands.desk().has_free() {
            return Ok(());
        }
        let mut session = self.session.lock().await;
        // Whoever began to receive meanwhile waits for the session, and subscribes again.
        let Some(session) = session.as_mut().filter(|session| !session.is_broken()) else {
            return Ok(());
        };
        self.give_back(session).await
    }

    async fn give_back(&self, session: &mut Session) -> Result<(), QueueError> {
        session.stop_free().await;
        let kept = self.hands.with(session.generation, Desk::drain_free);
        match kept.filter(|kept| !kept.is_empty()) {
            Some(kept) => self.replace(session.generation, kept).await,
            None => Ok(()),
        }
    }

    /// Ends deliveries here; those that were worth nothing are lost.
    fn end<T>(
        &self,
        items: impl IntoIterator<Item = T>,
        receipt: impl Fn(&T) -> &Receipt,
    ) -> (u32, Vec<(Held, T)>, Settled) {
        let mut settled = Settled::default();
        let mut ended = Vec::new();
        let mut desk = self.hands.desk();
        for item in items {
            match desk.end(receipt(&item)) {
                Some(held) => ended.push((held, item)),
                None => settled.lost.push(receipt(&item).clone()),
            }
        }
        (desk.generation(), ended, settled)
    }

    /// Tells the broker, and lets the next of each key go.
    async fn finish(&self, generation: u32, ended: Vec<Held>) -> Result<(), QueueError> {
        if ended.is_empty() {
            return Ok(());
        }
        self.hands.tell(generation, &ended).await?;
        let now = Instant::now();
        self.hands.with(generation, |desk| {
            for held in &ended {
                desk.done(held.letter.message.key.as_deref(), now);
            }
        });
        self.hands.news.notify_waiters();
        Ok(())
    }

    /// They stay with us and are handed out again.
    fn put_back(&self, generation: u32, held: impl IntoIterator<Item = Held>) {
        let now = Instant::now();
        self.hands.with(generation, |desk| {
            held.into_iter().for_each(|held| desk.put_back(held, now));
        });
        self.hands.news.notify_waiters();
    }

    /// Sends new copies to the group's queue, and settles the old ones when those are stored.
    async fn replace(&self, generation: u32, held: Vec<Held>) -> Result<(), QueueError> {
        let letters: Vec<_> = held.iter().map(|held| &held.letter).collect();
        match self.hands.post(&letters).await {
            Ok(()) => self.finish(generation, held).await,
            Err(error) => {
                self.put_back(generation, held);
                Err(error)
            }
        }
    }
}

#[async_trait]
impl Consumer for RabbitConsumer {
    async fn receive(
        &self,
        max: usize,
        _lease: Duration,
        wait: Duration,
    ) -> Result<Vec<Delivery>, QueueError> {
        self.check_open()?;
        let _present = Present::new(self);
        let begun = Instant::now();
        while max > 0 && !self.stopped.load(Ordering::Acquire) {
            self.subscribe().await?;
            // Before looking: what comes in between wakes us.
            let mut news = std::pin::pin!(self.hands.news.notified());
            news.as_mut().enable();
            let now = Instant::now();
            let (taken, due) = {
                let mut desk = self.hands.desk();
                (desk.take(max, now), desk.next_due())
            };
            let left = wait.saturating_sub(begun.elapsed());
            if !taken.is_empty() || left.is_zero() {
                return Ok(taken);
            }
            if self.stopped.load(Ordering::Acquire) {
                break;
            }
            let nap = left.min(self.poll_interval);
            let nap = due.map_or(nap, |due| nap.min(due.saturating_duration_since(now)));
            let _ = tokio::time::timeout(nap.max(Duration::from_millis(1)), news).await;
        }
        Ok(Vec::new())
    }

    fn stop_receiving(&self) {
        self.stopped.store(true, Ordering::Release);
        self.hands.news.notify_waiters();
    }

    async fn ack(&self, receipts: &[Receipt]) -> Result<Settled, QueueError> {
        self.check_open()?;
        let (generation, ended, settled) = self.end(receipts, |receipt| receipt);
        let ended = ended.into_iter().map(|(held, _)| held).collect();
        self.finish(generation, ended).await?;
        Ok(settled)
    }

    async fn nack(&self, nacks: &[Nack]) -> Result<Settled, QueueError> {
        self.check_open()?;
        let (generation, ended, settled) = self.end(nacks, |nack| &nack.receipt);
        let too_long = |(held, nack): &(Held, &Nack)| {
            held.letter.message.key.is_some() && nack.delay > LONGEST_KEYED_DELAY
        };
        if ended.iter().any(too_long) {
            // As if nothing had been asked, receipts included, is not to be had: they are out again.
            self.put_back(generation, ended.into_iter().map(|(held, _)| held));
            return Err(too_late());
        }
        let (now, clock) = (Instant::now(), SystemTime::now());
        let (mut keyed, mut free) = (Vec::new(), Vec::new());
        for (mut held, nack) in ended {
            match held.letter.message.key.is_some() {
                // It stays here, to keep its place before the later ones of its key.
                true => {
                    held.try_again(nack.delay, nack.error.clone(), now);
                    keyed.push(held);
                }
                false => {
                    held.try_again(nack.delay, nack.error.clone(), now);
                    held.letter.due = wire::due(clock, nack.delay);
                    free.push(held);
                }
            }
        }
        self.put_back(generation, keyed);
        if !free.is_empty() {
            self.replace(generation, free).await?;
        }
        Ok(settled)
    }

    async fn extend(&self, receipts: &[Receipt], _lease: Duration) -> Result<Settled, QueueError> {
        self.check_open()?;
        let desk = self.hands.desk();
        let lost = receipts.iter().filter(|receipt| !desk.is_out(receipt));
        Ok(Settled {
            lost: lost.cloned().collect(),
        })
    }

    async fn dead_letter(&self, reasons: &[(Receipt, String)]) -> Result<Settled, QueueError> {
        self.check_open()?;
        if reasons.is_empty() {
            return Ok(Settled::default());
        }
        let hands = &self.hands;
        let dead = hands
            .topology
            .dead(&hands.shared.link, &hands.group)
            .await?;
        let (generation, ended, settled) = self.end(reasons, |(receipt, _)| receipt);
        let buried = ended.iter().map(|(held, (_, reason))| {
            let mut letter = held.letter.clone();
            letter.attempts = letter.attempts.saturating_add(1);
            letter.due = None;
            letter.death = Some(Death {
                id: Uuid::now_v7().to_string(),
                reason: reason.clone(),
                at: SystemTime::now(),
            });
            Outgoing {
                exchange: String::new(),
                key: dead.clone(),
                properties: letter.properties(),
                payload: letter.message.payload,
            }
        });
        let buried: Vec<_> = buried.collect();
        let ended: Vec<_> = ended.into_iter().map(|(held, _)| held).collect();
        match hands.shared.publisher.send(&buried).await {
            Ok(()) => self.finish(generation, ended).await?,
            Err(unsent) => {
                hands.topology.forget();
                self.put_back(generation, ended);
                return Err(unsent.into());
            }
        }
        Ok(settled)
    }

    async fn release(&self, receipts: &[Receipt]) -> Result<Settled, QueueError> {
        self.check_open()?;
        let (generation, ended, settled) = self.end(receipts, |receipt| receipt);
        let (keyed, mut free): (Vec<_>, Vec<_>) = ended
            .into_iter()
            .map(|(held, _)| held)
            .partition(|held| held.letter.message.key.is_some());
        // The last taken of a key first, though no more than one of each can be out.
        self.put_back(generation, keyed.into_iter().rev());
        if !free.is_empty() {
            for held in &mut free {
                held.letter.handed = true;
                held.letter.due = None;
            }
            self.replace(generation, free).await?;
        }
        Ok(settled)
    }

    async fn close(&self) -> Result<(), QueueError> {
        self.stop_receiving();
        let mut session = self.session.lock().await;
        if self.closed.swap(true, Ordering::AcqRel) {
            return Ok(());
        }
        let Some(mut session) = session.take() else {
            return Ok(());
        };
        if !session.is_broken() {
            // If it fails, closing gives them back all the same, with an attempt burnt.
            let _ = self.give_back(&mut session).await;
        }
        session.close().await;
        Ok(())
    }
}

/// That somebody receives, for as long as it lives.
struct Present<'a>(&'a RabbitConsumer);

impl<'a> Present<'a> {
    fn new(consumer: &'a RabbitConsumer) -> Self {
        consumer.presence().receiving += 1;
        Self(consumer)
    }
}

impl Drop for Present<'_> {
    fn drop(&mut self) {
        let mut presence = self.0.presence();
        presence.receiving -= 1;
        presence.last = Instant::now();
    }
}

/// Messages that were sent to a consumer that does not ask for any would wait for it, while others
/// ask in vain.
async fn give_back_when_idle(consumer: Weak<RabbitConsumer>) {
    loop {
        tokio::time::sleep(GRACE / 2).await;
        let Some(consumer) = consumer.upgrade() else {
            return;
        };
        if consumer.closed.load(Ordering::Acquire) {
            return;
        }
        if let Err(error) = consumer.give_back_if_idle().await {
            tracing::debug!(%error, "messages that nobody asked for could not be given back yet");
        }
    }
}

fn too_late() -> QueueError {
    let minutes = LONGEST_KEYED_DELAY.as_secs() / 60;
    QueueError::Unsupported {
        broker: BROKER,
        what: format!("let a message with a key wait for more than {minutes} minutes"),
    }
}
