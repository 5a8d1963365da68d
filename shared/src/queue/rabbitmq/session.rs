//! The channels of a consumer: one for messages without a key, one for each lane.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use futures::StreamExt;
use lapin::Channel;
use lapin::options::{BasicCancelOptions, BasicConsumeOptions, BasicQosOptions};
use lapin::types::FieldTable;
use tokio::task::JoinHandle;

use super::hands::Hands;
use super::topology::{LANE_AHEAD, LANES};
use super::wire::Letter;
use crate::queue::QueueError;

pub(super) struct Session {
    pub(super) generation: u32,
    channels: Vec<Channel>,
    /// Subscriptions for messages without a key.
    free: Vec<Subscription>,
    /// How many there were: their names differ.
    number: u32,
    broken: Arc<AtomicBool>,
    /// See `Topology::purges`.
    purges: u64,
    timeout: Duration,
}

/// A subscription that may end before its channel does.
struct Subscription {
    tag: String,
    /// Set when we end it, so that its end is not taken for a failure.
    ends: Arc<AtomicBool>,
    pump: JoinHandle<()>,
}

/// A worker that is slow takes all that was sent to it in the end; but no more than so many times
/// what is to be sent ahead.
const SUBSCRIPTIONS: usize = 64;

impl Session {
    /// Subscribes to the group's lanes. What comes is put into the hands.
    pub(super) async fn open(hands: &Arc<Hands>) -> Result<Self, QueueError> {
        let mut session = Self {
            generation: hands.begin(),
            channels: Vec::new(),
            free: Vec::new(),
            number: 0,
            broken: Arc::default(),
            purges: hands.topology.purges(),
            timeout: hands.shared.link.timeout(),
        };
        for source in 0..=LANES {
            let channel = hands.shared.link.channel().await?;
            session.channels.push(channel.clone());
            hands.add_channel(channel);
            if source > 0 {
                session.subscribe(hands, source, LANE_AHEAD).await?;
            }
        }
        Ok(session)
    }

    /// Has messages without a key sent ahead. The broker counts those that are out as sent ahead, so
    /// when so many are out there is another subscription.
    pub(super) async fn want_free(
        &mut self,
        hands: &Arc<Hands>,
        prefetch: u16,
        ours: usize,
    ) -> Result<(), QueueError> {
        // 0 would be without limit.
        let prefetch = prefetch.max(1);
        if ours < self.free.len() * usize::from(prefetch) || self.free.len() >= SUBSCRIPTIONS {
            return Ok(());
        }
        let subscription = self.subscribe(hands, 0, prefetch).await?;
        self.free.push(subscription);
        Ok(())
    }

    async fn subscribe(
        &mut self,
        hands: &Arc<Hands>,
        source: u8,
        ahead: u16,
    ) -> Result<Subscription, QueueError> {
        let link = &hands.shared.link;
        let Some(channel) = self.channels.get(usize::from(source)) else {
            return Err(QueueError::Closed { what: "consumer" });
        };
        // For the subscriptions of this channel that follow.
        let qos = channel.basic_qos(ahead, BasicQosOptions::default());
        link.within(qos).await?;
        self.number += 1;
        let tag = format!("member-{}", self.number);
        let consuming = channel.basic_consume(
            hands.topology.queue(&hands.group, source).as_str().into(),
            tag.as_str().into(),
            BasicConsumeOptions::default(),
            FieldTable::default(),
        );
        let mut stream = link.within(consuming).await?;
        let (hands, broken) = (Arc::clone(hands), Arc::clone(&self.broken));
        let (generation, ends) = (self.generation, Arc::new(AtomicBool::new(false)));
        let is_over = Arc::clone(&ends);
        let pump = tokio::spawn(async move {
            while let Some(Ok(delivery)) = stream.next().await {
                let tag = delivery.delivery_tag;
                hands.arrived(generation, source, tag, Letter::read(delivery));
            }
            if !is_over.load(Ordering::Acquire) {
                broken.store(true, Ordering::Release);
                hands.news.notify_waiters();
            }
        });
        Ok(Subscription { tag, ends, pump })
    }

    /// Whether a channel ended, for whatever reason, or the queues were purged. Then all of them have
    /// to be opened anew.
    pub(super) fn is_broken(&self, hands: &Hands) -> bool {
        self.broken.load(Ordering::Acquire) || self.purges != hands.topology.purges()
    }

    /// No more messages without a key from now on; those that were sent are in the hands when it
    /// returns.
    ///
    /// Not for lanes: the next consumer would get one while ours still has messages of it.
    pub(super) async fn stop_free(&mut self) {
        let Some(channel) = self.channels.first() else {
            return;
        };
        for subscription in self.free.drain(..) {
            subscription.ends.store(true, Ordering::Release);
            let tag = subscription.tag.as_str().into();
            let cancelling = channel.basic_cancel(tag, BasicCancelOptions::default());
            let cancelled = tokio::time::timeout(self.timeout, cancelling).await;
            let pumped = tokio::time::timeout(self.timeout, subscription.pump).await;
            if !matches!(cancelled, Ok(Ok(()))) || pumped.is_err() {
                self.broken.store(true, Ordering::Release);
            }
        }
    }

    /// Closes the channels: the broker takes back what is out, at once, and each lane's in its order.
    pub(super) async fn close(mut self) {
        close(std::mem::take(&mut self.channels), self.timeout).await;
    }
}

/// A consumer that is dropped must not keep its messages for as long as the process lives.
///
/// Its channels are closed before its subscriptions are dropped: those would be cancelled, and a lane
/// given to the next consumer while the messages that were sent to us are not back.
impl Drop for Session {
    fn drop(&mut self) {
        let channels = std::mem::take(&mut self.channels);
        if channels.is_empty() {
            return;
        }
        if let Ok(runtime) = tokio::runtime::Handle::try_current() {
            runtime.spawn(close(channels, self.timeout));
        }
    }
}

async fn close(channels: Vec<Channel>, timeout: Duration) {
    for channel in channels {
        if channel.status().connected() {
            let closing = channel.close(200, "done".into());
            let _ = tokio::time::timeout(timeout, closing).await;
        }
    }
}
