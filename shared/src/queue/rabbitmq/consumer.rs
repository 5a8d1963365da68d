//! A member of a group: takes deliveries and settles them.

use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex as StdMutex, MutexGuard, Weak};
use std::time::{Duration, Instant, SystemTime};

use async_trait::async_trait;
use tokio::sync::Mutex;
use uuid::Uuid;

use super::desk::{Desk, Held};
use super::hands::Hands;
use super::session::Session;
use super::topology::lock;
use super::wire::{self, Death, Letter};
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
        match self.try_to_subscribe().await {
            Err(error) if error.is_transient() => {
                // Channels that are closing, as after a purge, do not say so at once.
                if let Some(doubtful) = self.session.lock().await.take() {
                    doubtful.close().await;
                }
                self.try_to_subscribe().await
            }
            answer => answer,
        }
    }

    async fn try_to_subscribe(&self) -> Result<(), QueueError> {
        let mut session = self.session.lock().await;
        self.check_open()?;
        if session
            .as_ref()
            .is_none_or(|session| session.is_broken(&self.hands))
        {
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
        let Some(session) = session
            .as_mut()
            .filter(|session| !session.is_broken(&self.hands))
        else {
            return Ok(());
        };
        self.give_back(session).await
    }

    async fn give_back(&self, session: &mut Session) -> Result<(), QueueError> {
        session.stop_free().await;
        let kept = self.hands.with(session.generation, Desk::drain_free);
        let Some(kept) = kept.filter(|kept| !kept.is_empty()) else {
            return Ok(());
        };
        let copies: Vec<_> = kept.iter().map(|held| held.letter.clone()).collect();
        match self.hands.post(&copies).await {
            Ok(()) => self.finish(session.generation, kept).await,
            Err(error) => {
                self.put_back(session.generation, kept);
                Err(error)
            }
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

    /// They are out as before, so that the caller may try again.
    fn restore(&self, generation: u32, held: impl IntoIterator<Item = Held>) {
        self.hands.with(generation, |desk| {
            held.into_iter().for_each(|held| desk.restore(held));
        });
    }

    /// Sends new copies to the group's queue, and settles the old ones when those are stored.
    async fn replace(
        &self,
        generation: u32,
        held: Vec<Held>,
        copies: &[Letter],
    ) -> Result<(), QueueError> {
        match self.hands.post(copies).await {
            Ok(()) => self.finish(generation, held).await,
            Err(error) => {
                self.restore(generation, held);
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
            self.restore(generation, ended.into_iter().map(|(held, _)| held));
            return Err(too_late());
        }
        let (now, clock) = (Instant::now(), SystemTime::now());
        let (mut keyed, mut free, mut copies) = (Vec::new(), Vec::new(), Vec::new());
        for (mut held, nack) in ended {
            if held.letter.message.key.is_some() {
                // It stays here, to keep its place before the later ones of its key.
                held.try_again(nack.delay, nack.error.clone(), now);
                keyed.push(held);
            } else {
                let mut copy = held.letter.clone();
                copy.failed(nack.error.clone());
                copy.due = wire::due(clock, nack.delay);
                copies.push(copy);
                free.push(held);
            }
        }
        self.put_back(generation, keyed);
        if !free.is_empty() {
            self.replace(generation, free, &copies).await?;
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
        let (generation, ended, settled) = self.end(reasons, |(receipt, _)| receipt);
        if ended.is_empty() {
            return Ok(settled);
        }
        let buried = ended.iter().map(|(held, (_, reason))| {
            let mut letter = held.letter.clone();
            letter.attempts = letter.attempts.saturating_add(1);
            letter.due = None;
            letter.death = Some(Death {
                id: Uuid::now_v7().to_string(),
                reason: reason.clone(),
                at: SystemTime::now(),
            });
            letter
        });
        let buried: Vec<_> = buried.collect();
        let ended: Vec<_> = ended.into_iter().map(|(held, _)| held).collect();
        match self.hands.bury(&buried).await {
            Ok(()) => self.finish(generation, ended).await?,
            Err(error) => {
                self.restore(generation, ended);
                return Err(error);
            }
        }
        Ok(settled)
    }

    async fn release(&self, receipts: &[Receipt]) -> Result<Settled, QueueError> {
        self.check_open()?;
        let (generation, ended, settled) = self.end(receipts, |receipt| receipt);
        let (keyed, free): (Vec<_>, Vec<_>) = ended
            .into_iter()
            .map(|(held, _)| held)
            .partition(|held| held.letter.message.key.is_some());
        self.put_back(generation, keyed);
        if !free.is_empty() {
            let copy = |held: &Held| {
                let mut copy = held.letter.clone();
                copy.handed = true;
                copy.due = None;
                copy
            };
            let copies: Vec<_> = free.iter().map(copy).collect();
            self.replace(generation, free, &copies).await?;
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
        if !session.is_broken(&self.hands) {
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
