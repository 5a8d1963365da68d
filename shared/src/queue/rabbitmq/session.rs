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

/// How the broker calls a subscription, within its channel.
const TAG: &str = "member";

pub(super) struct Session {
    pub(super) generation: u32,
    channels: Vec<Channel>,
    pumps: Vec<JoinHandle<()>>,
    broken: Arc<AtomicBool>,
    timeout: Duration,
}

impl Session {
    /// Subscribes to the group's queues. What comes is put into the hands.
    pub(super) async fn open(hands: &Arc<Hands>, prefetch: u16) -> Result<Self, QueueError> {
        let link = &hands.shared.link;
        let mut session = Self {
            generation: hands.begin(),
            channels: Vec::new(),
            pumps: Vec::new(),
            broken: Arc::default(),
            timeout: link.timeout(),
        };
        for source in 0..=LANES {
            let channel = link.channel().await?;
            session.channels.push(channel.clone());
            let ahead = match source {
                // 0 would be without limit.
                0 => prefetch.max(1),
                _ => LANE_AHEAD,
            };
            let qos = channel.basic_qos(ahead, BasicQosOptions::default());
            link.within(qos).await?;
            hands.add_channel(channel.clone());
            let queue = hands.topology.queue(&hands.group, source);
            let consuming = channel.basic_consume(
                queue.as_str().into(),
                TAG.into(),
                BasicConsumeOptions::default(),
                FieldTable::default(),
            );
            let mut stream = link.within(consuming).await?;
            let (hands, broken) = (Arc::clone(hands), Arc::clone(&session.broken));
            let generation = session.generation;
            session.pumps.push(tokio::spawn(async move {
                while let Some(Ok(delivery)) = stream.next().await {
                    let tag = delivery.delivery_tag;
                    hands.arrived(generation, source, tag, Letter::read(delivery));
                }
                broken.store(true, Ordering::Release);
                hands.news.notify_waiters();
            }));
        }
        Ok(session)
    }

    /// Whether a channel ended, for whatever reason. Then all of them have to be opened anew.
    pub(super) fn is_broken(&self) -> bool {
        self.broken.load(Ordering::Acquire)
    }

    /// No more messages without a key from now on; those that were sent are in the hands when it
    /// returns.
    ///
    /// Not for lanes: the next consumer would get one while ours still has messages of it.
    pub(super) async fn stop_free(&mut self) {
        let Some(channel) = self.channels.first() else {
            return;
        };
        let cancelling = channel.basic_cancel(TAG.into(), BasicCancelOptions::default());
        let _ = tokio::time::timeout(self.timeout, cancelling).await;
        if let Some(pump) = self.pumps.first_mut() {
            let _ = tokio::time::timeout(self.timeout, pump).await;
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
