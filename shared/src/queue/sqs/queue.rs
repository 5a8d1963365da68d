//! A queue: as many SQS queues as it has groups, and one more for each one's dead letters.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use async_trait::async_trait;

use super::api::Api;
use super::consumer::SqsConsumer;
use super::envelope::{Incoming, Outgoing};
use super::{BROKER, LARGEST_BYTES, LIMIT_BYTES, LONGEST, dead, names};
use crate::queue::{
    Consumer, ConsumerOptions, DeadLetter, Depth, Message, Queue, QueueError, check_name,
};

/// How long the list of groups is believed. Listing queues is a request that SQS allows seldom.
const GROUPS_FOR: Duration = Duration::from_secs(5);

pub(super) struct SqsQueue {
    api: Arc<Api>,
    name: String,
    groups: Mutex<Groups>,
    /// One look at the dead letters at a time, since each hides them from the other.
    looking: tokio::sync::Mutex<()>,
}

#[derive(Default)]
struct Groups {
    /// Where each group's messages are.
    urls: BTreeMap<String, String>,
    listed: Option<Instant>,
}

impl SqsQueue {
    pub(super) async fn open(
        api: &Arc<Api>,
        name: &str,
        groups: &[&str],
    ) -> Result<Self, QueueError> {
        let queue = Self {
            api: Arc::clone(api),
            name: name.to_owned(),
            groups: Mutex::default(),
            looking: tokio::sync::Mutex::default(),
        };
        for group in groups {
            queue.declare(group).await?;
        }
        Ok(queue)
    }

    async fn declare(&self, group: &str) -> Result<String, QueueError> {
        check_name("group", group)?;
        self.api.check_open()?;
        let known = self.lock().urls.get(group).cloned();
        if let Some(url) = known {
            return Ok(url);
        }
        let url = self.api.declare(&self.name, group).await?;
        self.lock().urls.insert(group.to_owned(), url.clone());
        Ok(url)
    }

    fn lock(&self) -> std::sync::MutexGuard<'_, Groups> {
        self.groups.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Where the messages of each group are, those declared elsewhere included.
    async fn urls(&self) -> Result<Vec<String>, QueueError> {
        let listed = self.lock().listed;
        if listed.is_none_or(|listed| listed.elapsed() > GROUPS_FOR) {
            let found = self.api.list(&names::prefix(&self.name)).await?;
            let mut groups = self.lock();
            for url in found {
                if let Some(group) = names::group_at(&self.name, &url) {
                    groups.urls.insert(group, url);
                }
            }
            groups.listed = Some(Instant::now());
        }
        Ok(self.lock().urls.values().cloned().collect())
    }

    /// Where a group's dead letters are.
    async fn dead(&self, group: &str) -> Result<String, QueueError> {
        self.declare(group).await?;
        let name = names::dead(&self.name, group);
        let found = self.api.find(&name).await?;
        found.ok_or_else(|| QueueError::Refused {
            broker: BROKER,
            reason: format!("there is no queue {name}"),
        })
    }

    fn outgoing(&self, messages: &[Message]) -> Result<Vec<Outgoing>, QueueError> {
        let now_ms = super::consumer::now_ms();
        let outgoing = messages.iter().map(|message| {
            message.check()?;
            if message.delay > LONGEST {
                return Err(QueueError::Unsupported {
                    broker: BROKER,
                    what: format!("delay a message by more than {LONGEST:?}"),
                });
            }
            let outgoing = Outgoing::new(message, now_ms)?;
            if message.size_bytes() > LARGEST_BYTES || outgoing.bytes > LIMIT_BYTES {
                return Err(QueueError::TooLarge {
                    broker: BROKER,
                    bytes: message.size_bytes(),
                    limit: LARGEST_BYTES,
                });
            }
            Ok(outgoing)
        });
        outgoing.collect()
    }

    /// Takes those of a group's dead letters that are named, hands them to `deal`, deletes them and
    /// shows the others again. How many there were.
    async fn deal<F>(
        &self,
        group: &str,
        ids: &[String],
        deal: impl FnOnce(Vec<Incoming>) -> F,
    ) -> Result<usize, QueueError>
    where
        F: Future<Output = Result<(), QueueError>>,
    {
        let url = self.dead(group).await?;
        if ids.is_empty() {
            return Ok(0);
        }
        let _turn = self.looking.lock().await;
        let all = dead::look(&self.api, &url).await?;
        let (named, others): (Vec<_>, Vec<_>) = all
            .into_iter()
            .partition(|incoming| ids.contains(&incoming.message_id));
        let shown = dead::show(&self.api, &url, &others).await;
        if let Err(error) = deal(named.clone()).await.and(shown) {
            dead::show(&self.api, &url, &named).await?;
            return Err(error);
        }
        let handles: Vec<String> = named.into_iter().map(|incoming| incoming.handle).collect();
        self.api.delete(&url, &handles).await?;
        Ok(handles.len())
    }
}

#[async_trait]
impl Queue for SqsQueue {
    fn name(&self) -> &str {
        &self.name
    }

    async fn publish(&self, messages: &[Message]) -> Result<(), QueueError> {
        self.api.check_open()?;
        if messages.is_empty() {
            return Ok(());
        }
        let outgoing = self.outgoing(messages)?;
        let urls = self.urls().await?;
        if urls.is_empty() {
            return Err(QueueError::no_group(BROKER, &self.name));
        }
        // One group after the other: after an error some have them. Published again with the same
        // ids, those refuse them for five minutes.
        for url in urls {
            self.api.send(&url, &outgoing).await?;
        }
        Ok(())
    }

    async fn consumer(
        &self,
        group: &str,
        options: &ConsumerOptions,
    ) -> Result<Arc<dyn Consumer>, QueueError> {
        let url = self.declare(group).await?;
        let dead = self.dead(group).await?;
        let consumer = SqsConsumer::new(&self.api, url, dead, options);
        Ok(Arc::new(consumer))
    }

    /// Only the dead letters. SQS counts what can be seen and what is hidden, and both are mixed: a
    /// delayed message can be seen until somebody comes across it, and what is leased is hidden like
    /// what waits for another attempt.
    async fn depth(&self, group: &str) -> Result<Depth, QueueError> {
        let (dead, looked_at) = self.api.counts(&self.dead(group).await?).await?;
        Ok(Depth {
            dead: Some(dead + looked_at),
            ..Depth::default()
        })
    }

    async fn dead_letters(
        &self,
        group: &str,
        after: Option<&str>,
        limit: usize,
    ) -> Result<Vec<DeadLetter>, QueueError> {
        let url = self.dead(group).await?;
        let _turn = self.looking.lock().await;
        let all = dead::look(&self.api, &url).await?;
        dead::show(&self.api, &url, &all).await?;
        let letters = all.into_iter().map(dead::letter).collect();
        Ok(DeadLetter::page(letters, after, limit))
    }

    async fn redrive(&self, group: &str, ids: &[String]) -> Result<usize, QueueError> {
        let url = self.declare(group).await?;
        self.deal(group, ids, async |named| {
            let messages: Vec<Message> = named
                .iter()
                .map(|incoming| incoming.message.clone())
                .collect();
            let mut outgoing = self.outgoing(&messages)?;
            for (outgoing, incoming) in outgoing.iter_mut().zip(&named) {
                // Its own id would be refused as a double of the one that died.
                outgoing.deduplication_id = format!("again-{}", incoming.message_id);
            }
            self.api.send(&url, &outgoing).await
        })
        .await
    }

    async fn discard(&self, group: &str, ids: &[String]) -> Result<usize, QueueError> {
        self.deal(group, ids, async |_| Ok(())).await
    }

    /// SQS takes up to a minute for it, and allows it once a minute.
    async fn purge(&self) -> Result<(), QueueError> {
        for url in self.api.list(&names::prefix(&self.name)).await? {
            self.api.purge(&url).await?;
        }
        Ok(())
    }

    async fn delete(&self) -> Result<(), QueueError> {
        for url in self.api.list(&names::prefix(&self.name)).await? {
            self.api.delete_queue(&url).await?;
        }
        *self.lock() = Groups::default();
        Ok(())
    }
}
