//! Sending with confirmation: what is confirmed is in the log of most of the queue's nodes.

use std::time::Duration;

use bytes::Bytes;
use lapin::options::{BasicPublishOptions, ConfirmSelectOptions};
use lapin::{BasicProperties, Channel, Confirmation};
use tokio::sync::Mutex;

use super::BROKER;
use super::connection::{Link, failed, silent};
use crate::queue::QueueError;

/// Something to be sent.
pub(super) struct Outgoing {
    /// Empty for the exchange that knows every queue by its name.
    pub(super) exchange: String,
    pub(super) key: String,
    pub(super) properties: BasicProperties,
    pub(super) payload: Bytes,
}

/// Why something was not stored.
#[derive(Debug)]
pub(super) enum Unsent {
    /// No queue wanted the one with this number, from 0.
    NoRoute(usize),
    /// The broker could not store those with these numbers, and says so. A queue that somebody is
    /// declaring at the moment does that.
    NotStored(Vec<usize>),
    Failed(QueueError),
}

impl From<QueueError> for Unsent {
    fn from(error: QueueError) -> Self {
        Self::Failed(error)
    }
}

impl From<Unsent> for QueueError {
    fn from(unsent: Unsent) -> Self {
        match unsent {
            Unsent::Failed(error) => error,
            Unsent::NotStored(_) => Self::Unavailable {
                broker: BROKER,
                reason: "it could not store a message, and says so".to_owned(),
            },
            Unsent::NoRoute(_) => Self::Refused {
                broker: BROKER,
                reason: "a queue that was declared is not there: somebody deleted it".to_owned(),
            },
        }
    }
}

/// One channel on which everything is sent.
pub(super) struct Publisher {
    link: Link,
    channel: Mutex<Option<Channel>>,
}

/// So many are on their way before the first answer is waited for.
const AHEAD: usize = 1_000;

impl Publisher {
    pub(super) fn new(link: Link) -> Self {
        Self {
            link,
            channel: Mutex::new(None),
        }
    }

    /// Sends in this order, and returns when all are confirmed. After an error some may be stored.
    pub(super) async fn send(&self, all: &[Outgoing]) -> Result<(), Unsent> {
        for (number, chunk) in all.chunks(AHEAD).enumerate() {
            let work = self.send_some(chunk);
            let limit = self.limit(chunk);
            let sent = tokio::time::timeout(limit, work).await;
            if let Err(unsent) = sent.unwrap_or_else(|_| Err(silent(limit).into())) {
                return Err(match unsent {
                    Unsent::NoRoute(index) => Unsent::NoRoute(number * AHEAD + index),
                    Unsent::NotStored(indices) => {
                        let add = |index| number * AHEAD + index;
                        // What would have followed was not sent.
                        let rest = all.len().min((number + 1) * AHEAD)..all.len();
                        Unsent::NotStored(indices.into_iter().map(add).chain(rest).collect())
                    }
                    failed => {
                        // Whatever is wrong with the channel, the next call has another.
                        *self.channel.lock().await = None;
                        failed
                    }
                });
            }
        }
        Ok(())
    }

    pub(super) async fn close(&self) {
        *self.channel.lock().await = None;
        self.link.close().await;
    }

    async fn send_some(&self, chunk: &[Outgoing]) -> Result<(), Unsent> {
        let mut confirms = Vec::with_capacity(chunk.len());
        {
            // Held while sending, so that calls do not mix; not while waiting.
            let mut current = self.channel.lock().await;
            let channel = self.channel(&mut current).await?;
            let options = BasicPublishOptions {
                // What no queue wants comes back instead of vanishing.
                mandatory: true,
                ..BasicPublishOptions::default()
            };
            for one in chunk {
                let (exchange, key) = (one.exchange.as_str().into(), one.key.as_str().into());
                let properties = one.properties.clone();
                let sending =
                    channel.basic_publish(exchange, key, options, &one.payload, properties);
                confirms.push(sending.await.map_err(|error| failed(&error))?);
            }
        }
        let (mut unrouted, mut refused) = (None, Vec::new());
        for (number, confirm) in confirms.into_iter().enumerate() {
            match confirm.await.map_err(|error| failed(&error))? {
                Confirmation::Ack(None) => {}
                Confirmation::Ack(Some(_)) => {
                    unrouted.get_or_insert(number);
                }
                Confirmation::Nack(_) | Confirmation::NotRequested => refused.push(number),
            }
        }
        match unrouted {
            Some(number) => Err(Unsent::NoRoute(number)),
            None if !refused.is_empty() => Err(Unsent::NotStored(refused)),
            None => Ok(()),
        }
    }

    async fn channel<'a>(
        &self,
        current: &'a mut Option<Channel>,
    ) -> Result<&'a Channel, QueueError> {
        let usable = current.as_ref().is_some_and(|one| one.status().connected());
        if !usable {
            let channel = self.link.channel().await?;
            let confirm = channel.confirm_select(ConfirmSelectOptions::default());
            self.link.within(confirm).await?;
            *current = Some(channel);
        }
        current
            .as_ref()
            .ok_or(QueueError::Closed { what: "broker" })
    }

    /// A second more for each megabyte.
    fn limit(&self, chunk: &[Outgoing]) -> Duration {
        let bytes: usize = chunk.iter().map(|one| one.payload.len()).sum();
        let megabytes = u32::try_from(bytes / 1_000_000).unwrap_or(u32::MAX);
        self.link.timeout() + Duration::from_secs(1).saturating_mul(megabytes)
    }
}
