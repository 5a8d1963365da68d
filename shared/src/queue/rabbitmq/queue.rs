//! A queue: publishing, depth, its end.

use std::sync::Arc;
use std::time::SystemTime;

use async_trait::async_trait;
use lapin::options::QueueDeclareOptions;
use lapin::types::FieldTable;

use super::consumer::RabbitConsumer;
use super::dead::Dead;
use super::hands::Hands;
use super::publisher::{Outgoing, Unsent};
use super::topology::{SHORTEST_WAIT, Topology, routing_key, source_of};
use super::wire::Letter;
use super::{BROKER, LARGEST_BYTES, LONGEST_KEYED_DELAY, Shared};
use crate::queue::{
    Consumer, ConsumerOptions, DeadLetter, Depth, Message, Queue, QueueError, check_name,
};

pub(super) struct RabbitQueue {
    shared: Arc<Shared>,
    name: String,
    topology: Arc<Topology>,
    dead: Dead,
}

impl RabbitQueue {
    pub(super) fn new(shared: Arc<Shared>, name: &str, topology: Topology) -> Self {
        let topology = Arc::new(topology);
        Self {
            dead: Dead::new(Arc::clone(&shared), Arc::clone(&topology)),
            shared,
            name: name.to_owned(),
            topology,
        }
    }

    fn check(message: &Message) -> Result<(), QueueError> {
        message.check_fits(BROKER, LARGEST_BYTES)?;
        if message.key.is_some() && message.delay > LONGEST_KEYED_DELAY {
            let minutes = LONGEST_KEYED_DELAY.as_secs() / 60;
            return Err(QueueError::Unsupported {
                broker: BROKER,
                what: format!("let a message with a key wait for more than {minutes} minutes"),
            });
        }
        Ok(())
    }

    async fn addressed(&self, message: &Message) -> Result<Outgoing, QueueError> {
        let source = source_of(message.key.as_deref());
        let letter = Letter::new(message, SystemTime::now());
        let properties = letter.properties();
        let payload = letter.message.payload;
        // What has a key keeps its place in its lane, and waits with its consumer.
        if source > 0 || message.delay < SHORTEST_WAIT {
            return Ok(Outgoing {
                exchange: self.topology.exchange.clone(),
                key: routing_key(source),
                properties,
                payload,
            });
        }
        let link = &self.shared.link;
        Ok(Outgoing {
            exchange: String::new(),
            key: self.topology.wait(link, None, message.delay).await?,
            properties,
            payload,
        })
    }
}

#[async_trait]
impl Queue for RabbitQueue {
    fn name(&self) -> &str {
        &self.name
    }

    async fn publish(&self, messages: &[Message]) -> Result<(), QueueError> {
        messages.iter().try_for_each(Self::check)?;
        let mut rest = messages;
        for attempt in 0.. {
            let mut all = Vec::with_capacity(rest.len());
            for message in rest {
                all.push(self.addressed(message).await?);
            }
            match self.shared.publisher.send(&all).await {
                Ok(()) => return Ok(()),
                Err(Unsent::NoRoute(first)) if attempt == 0 => {
                    // Somebody deleted it, or it expired. Those before it are stored, and so may be
                    // some after it.
                    self.topology.forget();
                    self.topology.declare(&self.shared.link).await?;
                    rest = &rest[first..];
                }
                Err(Unsent::NoRoute(_)) => {
                    return Err(QueueError::no_group(BROKER, &self.name));
                }
                // Not again in another order: whoever publishes decides.
                Err(unsent) => return Err(unsent.into()),
            }
        }
        Ok(())
    }

    async fn consumer(
        &self,
        group: &str,
        options: &ConsumerOptions,
    ) -> Result<Arc<dyn Consumer>, QueueError> {
        check_name("group", group)?;
        self.topology.add_group(&self.shared.link, group).await?;
        let (shared, topology) = (Arc::clone(&self.shared), Arc::clone(&self.topology));
        let hands = Hands::new(shared, topology, group);
        Ok(RabbitConsumer::open(hands, options).await?)
    }

    /// The dead letters alone: of the rest AMQP tells only what was not sent ahead to a consumer yet.
    async fn depth(&self, group: &str) -> Result<Depth, QueueError> {
        check_name("group", group)?;
        let link = &self.shared.link;
        let queue = self.topology.dead(link, group).await?;
        let channel = link.channel().await?;
        let options = QueueDeclareOptions::durable().passive();
        let asking = channel.queue_declare(queue.as_str().into(), options, FieldTable::default());
        Ok(Depth {
            dead: Some(u64::from(link.within(asking).await?.message_count())),
            ..Depth::default()
        })
    }

    async fn dead_letters(
        &self,
        group: &str,
        after: Option<&str>,
        limit: usize,
    ) -> Result<Vec<DeadLetter>, QueueError> {
        check_name("group", group)?;
        self.dead.list(group, after, limit).await
    }

    async fn redrive(&self, group: &str, ids: &[String]) -> Result<usize, QueueError> {
        check_name("group", group)?;
        self.dead.redrive(group, ids).await
    }

    async fn discard(&self, group: &str, ids: &[String]) -> Result<usize, QueueError> {
        check_name("group", group)?;
        self.dead.discard(group, ids).await
    }

    /// Of the groups that this handle knows of; consumers subscribe anew. Those of other handles may
    /// hand out what they had in hand, until the broker has told them.
    async fn purge(&self) -> Result<(), QueueError> {
        self.topology.purge(&self.shared.link).await
    }

    /// With the groups that this handle knows of.
    async fn delete(&self) -> Result<(), QueueError> {
        self.topology.delete(&self.shared.link, true).await
    }
}
