//! A queue: its depth, its dead letters, its end.

use std::sync::Arc;
use std::time::Duration;

use async_trait::async_trait;
use redis::{Value, cmd};

use super::consumer::RedisConsumer;
use super::entry::Entry;
use super::link::Link;
use super::publish::Place;
use super::script::{self, CHUNK};
use crate::queue::{
    Consumer, ConsumerOptions, DeadLetter, Depth, Message, Queue, QueueError, check_name,
};

pub(super) struct RedisQueue {
    link: Arc<Link>,
    name: String,
    pub(super) place: Arc<Place>,
}

impl RedisQueue {
    pub(super) fn new(link: Arc<Link>, prefix: &str, name: &str, groups: &[&str]) -> Self {
        Self {
            link,
            name: name.to_owned(),
            place: Arc::new(Place::new(prefix, name, groups)),
        }
    }

    async fn clear(&self, groups_too: &str) -> Result<(), QueueError> {
        let mut command = script::call(&script::CLEAR, &self.place.base);
        command.arg(groups_too);
        Ok(self.link.run(&script::CLEAR, &command).await?)
    }
}

#[async_trait]
impl Queue for RedisQueue {
    fn name(&self) -> &str {
        &self.name
    }

    async fn publish(&self, messages: &[Message]) -> Result<(), QueueError> {
        self.place.publish(&self.link, messages).await
    }

    async fn consumer(
        &self,
        group: &str,
        options: &ConsumerOptions,
    ) -> Result<Arc<dyn Consumer>, QueueError> {
        check_name("group", group)?;
        self.place.add_group(&self.link, group).await?;
        let (link, place) = (Arc::clone(&self.link), Arc::clone(&self.place));
        Ok(Arc::new(RedisConsumer::new(link, place, group, options)))
    }

    async fn depth(&self, group: &str) -> Result<Depth, QueueError> {
        check_name("group", group)?;
        let mut command = script::call(&script::DEPTH, &self.place.base);
        command.arg(group);
        let numbers: [i64; 5] = self.place.run(&self.link, &script::DEPTH, &command).await?;
        let [ready, delayed, leased, dead, oldest] = numbers.map(|n| u64::try_from(n).ok());
        Ok(Depth {
            ready,
            delayed,
            leased,
            dead,
            oldest: oldest.map(Duration::from_millis),
        })
    }

    async fn dead_letters(
        &self,
        group: &str,
        after: Option<&str>,
        limit: usize,
    ) -> Result<Vec<DeadLetter>, QueueError> {
        check_name("group", group)?;
        let from = match after {
            Some(id) if !is_id(id) => {
                return Err(QueueError::Invalid {
                    what: format!("the dead letter {id:?}"),
                    reason: "take the id of one that was listed".to_owned(),
                });
            }
            Some(id) => format!("({id}"),
            None => "-".to_owned(),
        };
        if limit == 0 {
            return Ok(Vec::new());
        }
        let mut command = cmd("XRANGE");
        command
            .arg(self.place.key(group, "dead"))
            .arg(from)
            .arg("+")
            .arg("COUNT")
            .arg(limit);
        let found: Value = self.link.ask(&command).await?;
        let entries = Entry::read_all(found)?;
        entries.into_iter().map(Entry::dead_letter).collect()
    }

    async fn redrive(&self, group: &str, ids: &[String]) -> Result<usize, QueueError> {
        check_name("group", group)?;
        let known: Vec<&String> = ids.iter().filter(|id| is_id(id)).collect();
        let mut redriven = 0;
        for chunk in known.chunks(CHUNK) {
            let mut command = script::call(&script::REDRIVE, &self.place.base);
            command.arg(group).arg(chunk);
            redriven += self.link.run::<usize>(&script::REDRIVE, &command).await?;
        }
        Ok(redriven)
    }

    async fn discard(&self, group: &str, ids: &[String]) -> Result<usize, QueueError> {
        check_name("group", group)?;
        let known: Vec<&String> = ids.iter().filter(|id| is_id(id)).collect();
        let mut discarded = 0;
        for chunk in known.chunks(CHUNK) {
            let mut command = cmd("XDEL");
            command.arg(self.place.key(group, "dead")).arg(chunk);
            discarded += self.link.ask::<usize>(&command).await?;
        }
        Ok(discarded)
    }

    async fn purge(&self) -> Result<(), QueueError> {
        self.clear("0").await
    }

    async fn delete(&self) -> Result<(), QueueError> {
        self.clear("1").await
    }
}

/// Whether Redis would take it as the id of an entry.
fn is_id(text: &str) -> bool {
    let number = |text: &str| text.parse::<u64>().is_ok();
    matches!(text.split_once('-'), Some((ms, sequence)) if number(ms) && number(sequence))
}
