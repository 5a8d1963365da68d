//! A queue: one topic for all groups, and one more for each group's dead letters.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use async_trait::async_trait;
use rdkafka::admin::{AdminOptions, NewTopic};
use rdkafka::{Offset, TopicPartitionList};

use super::cluster::{Cluster, Outgoing};
use super::consumer::{KafkaConsumer, group_id};
use super::error::sorted;
use super::record::{self, now_ms};
use super::{BROKER, LARGEST_BYTES, LONGEST_DELAY, dead, depth};
use crate::queue::{
    Consumer, ConsumerOptions, DeadLetter, Depth, Message, Queue, QueueError, check_name,
};

pub(super) struct KafkaQueue {
    cluster: Arc<Cluster>,
    name: String,
    partitions: i32,
    /// Whether somebody has declared a group.
    has_groups: AtomicBool,
}

impl KafkaQueue {
    pub(super) async fn open(
        cluster: &Arc<Cluster>,
        name: &str,
        groups: &[&str],
    ) -> Result<Self, QueueError> {
        let partitions = cluster.address.partitions;
        // The broker's clock, so that the age of a message does not depend on its publisher's.
        let topic = NewTopic::new(name, partitions, cluster.replication())
            .set("message.timestamp.type", "LogAppendTime");
        cluster.create_topics(&[topic]).await?;
        let queue = Self {
            cluster: Arc::clone(cluster),
            name: name.to_owned(),
            partitions: cluster.partitions(name).await?,
            has_groups: AtomicBool::new(false),
        };
        queue.declare(groups).await?;
        Ok(queue)
    }

    async fn declare(&self, groups: &[&str]) -> Result<(), QueueError> {
        if groups.is_empty() {
            return Ok(());
        }
        let names: Vec<String> = groups.iter().map(|group| self.dead(group)).collect();
        let topics = names
            .iter()
            .map(|name| dead::new_topic(&self.cluster, name));
        self.cluster
            .create_topics(&topics.collect::<Vec<_>>())
            .await?;
        self.has_groups.store(true, Ordering::Release);
        Ok(())
    }

    async fn groups(&self) -> Result<Vec<String>, QueueError> {
        let topics = self.cluster.topics().await?;
        let groups = topics
            .iter()
            .filter_map(|topic| dead::group_of(&self.name, topic));
        Ok(groups.map(str::to_owned).collect())
    }

    fn dead(&self, group: &str) -> String {
        dead::topic(&self.name, group)
    }

    async fn check(&self, messages: &[Message]) -> Result<(), QueueError> {
        for message in messages {
            message.check_fits(BROKER, LARGEST_BYTES)?;
            if message.delay > LONGEST_DELAY {
                return Err(QueueError::Unsupported {
                    broker: BROKER,
                    what: format!("delay a message by more than {LONGEST_DELAY:?}"),
                });
            }
        }
        if !self.has_groups.load(Ordering::Acquire) {
            if self.groups().await?.is_empty() {
                return Err(QueueError::no_group(BROKER, &self.name));
            }
            self.has_groups.store(true, Ordering::Release);
        }
        Ok(())
    }

    /// Those of a group's dead letters that are named.
    async fn named(&self, group: &str, ids: &[String]) -> Result<Vec<DeadLetter>, QueueError> {
        check_name("group", group)?;
        if ids.is_empty() {
            return Ok(Vec::new());
        }
        let mut letters = dead::all(&self.cluster, group, &self.dead(group)).await?;
        letters.retain(|letter| ids.contains(&letter.id));
        Ok(letters)
    }
}

#[async_trait]
impl Queue for KafkaQueue {
    fn name(&self) -> &str {
        &self.name
    }

    async fn publish(&self, messages: &[Message]) -> Result<(), QueueError> {
        if messages.is_empty() {
            return Ok(());
        }
        self.check(messages).await?;
        let now_ms = now_ms();
        let outgoing = messages.iter().map(|message| Outgoing {
            topic: &self.name,
            partition: None,
            key: message.key.as_deref(),
            payload: Some(&message.payload),
            headers: record::headers(message, now_ms, None),
        });
        self.cluster.publish(outgoing.collect()).await
    }

    async fn consumer(
        &self,
        group: &str,
        options: &ConsumerOptions,
    ) -> Result<Arc<dyn Consumer>, QueueError> {
        check_name("group", group)?;
        self.cluster.check_open()?;
        self.declare(&[group]).await?;
        let consumer = KafkaConsumer::join(&self.cluster, &self.name, group, options).await?;
        Ok(Arc::new(consumer))
    }

    async fn depth(&self, group: &str) -> Result<Depth, QueueError> {
        check_name("group", group)?;
        self.cluster.check_open()?;
        let depth = depth::measure(&self.cluster, &self.name, group, self.partitions).await?;
        let dead = dead::all(&self.cluster, group, &self.dead(group)).await?;
        Ok(Depth {
            dead: Some(dead.len() as u64),
            ..depth
        })
    }

    async fn dead_letters(
        &self,
        group: &str,
        after: Option<&str>,
        limit: usize,
    ) -> Result<Vec<DeadLetter>, QueueError> {
        check_name("group", group)?;
        self.cluster.check_open()?;
        let letters = dead::all(&self.cluster, group, &self.dead(group)).await?;
        Ok(DeadLetter::page(letters, after, limit))
    }

    async fn redrive(&self, group: &str, ids: &[String]) -> Result<usize, QueueError> {
        let letters = self.named(group, ids).await?;
        let now_ms = now_ms();
        // Published first and then taken away: a crash in between leaves one too many, not too few.
        let outgoing = letters.iter().map(|letter| Outgoing {
            topic: &self.name,
            partition: None,
            key: letter.message.key.as_deref(),
            payload: Some(&letter.message.payload),
            headers: record::headers(&letter.message, now_ms, Some(group)),
        });
        self.cluster.publish(outgoing.collect()).await?;
        let ids = letters.iter().map(|letter| letter.id.as_str());
        dead::dig_up(&self.cluster, &self.dead(group), ids).await?;
        Ok(letters.len())
    }

    async fn discard(&self, group: &str, ids: &[String]) -> Result<usize, QueueError> {
        let letters = self.named(group, ids).await?;
        let ids = letters.iter().map(|letter| letter.id.as_str());
        dead::dig_up(&self.cluster, &self.dead(group), ids).await?;
        Ok(letters.len())
    }

    /// What consumers of other processes have read ahead is not reached, and still handed out.
    async fn purge(&self) -> Result<(), QueueError> {
        self.cluster.check_open()?;
        let mut list = TopicPartitionList::new();
        let mut add = |topic: &str, partition| {
            let added = list.add_partition_offset(topic, partition, Offset::End);
            added.map_err(|error| sorted(&error))
        };
        for partition in 0..self.partitions {
            add(&self.name, partition)?;
        }
        for group in self.groups().await? {
            add(&self.dead(&group), 0)?;
        }
        let options = AdminOptions::new().operation_timeout(Some(self.cluster.timeout()));
        let admin = self.cluster.admin("delete messages")?;
        let deleted = admin.delete_records(&list, &options).await;
        let deleted = deleted.map_err(|error| sorted(&error))?;
        for element in deleted.elements() {
            element.error().map_err(|error| sorted(&error))?;
        }
        for member in self.cluster.members_of(&self.name) {
            member.purge();
        }
        Ok(())
    }

    async fn delete(&self) -> Result<(), QueueError> {
        let admin = self.cluster.admin("delete topics")?;
        let groups = self.groups().await?;
        for member in self.cluster.members_of(&self.name) {
            member.leave().await;
        }
        // What a group has committed is of no use without the topic. A member in another process
        // keeps its group from being deleted; the cluster then forgets it some time later.
        let ids: Vec<String> = groups
            .iter()
            .map(|group| group_id(&self.name, group))
            .collect();
        let ids: Vec<&str> = ids.iter().map(String::as_str).collect();
        let forgotten = admin.delete_groups(&ids, &AdminOptions::new());
        if let Err(error) = forgotten.await {
            tracing::debug!(%error, queue = self.name, "its groups stay");
        }
        let dead: Vec<String> = groups.iter().map(|group| self.dead(group)).collect();
        let mut topics: Vec<&str> = dead.iter().map(String::as_str).collect();
        topics.push(&self.name);
        let options = AdminOptions::new().operation_timeout(Some(self.cluster.timeout()));
        let deleted = admin.delete_topics(&topics, &options).await;
        for deleted in deleted.map_err(|error| sorted(&error))? {
            match deleted {
                Ok(_) | Err((_, rdkafka::types::RDKafkaErrorCode::UnknownTopicOrPartition)) => {}
                Err((_, code)) => {
                    return Err(sorted(&rdkafka::error::KafkaError::AdminOp(code)));
                }
            }
        }
        Ok(())
    }
}
