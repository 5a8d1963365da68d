//! Where a queue is, its groups, and how messages get into them.

use std::collections::BTreeSet;
use std::sync::{Mutex, PoisonError};

use super::entry;
use super::link::{Failure, Link};
use super::script::{self, CHUNK};
use super::{BROKER, LARGEST_BYTES};
use crate::queue::{Message, QueueError};

/// A call takes no more than so many bytes, since the server does nothing else meanwhile.
const CHUNK_BYTES: usize = 1024 * 1024;

/// A queue's keys, and the groups that this handle knows of.
#[derive(Debug)]
pub(super) struct Place {
    /// What all keys begin with.
    pub(super) base: String,
    groups: Mutex<BTreeSet<String>>,
}

impl Place {
    pub(super) fn new(prefix: &str, name: &str, groups: &[&str]) -> Self {
        Self {
            base: format!("{{{prefix}{name}}}"),
            groups: Mutex::new(groups.iter().map(|&group| group.to_owned()).collect()),
        }
    }

    /// One of a group's keys.
    pub(super) fn key(&self, group: &str, part: &str) -> String {
        format!("{}:{group}:{part}", self.base)
    }

    /// Declares one more group.
    pub(super) async fn add_group(&self, link: &Link, group: &str) -> Result<(), QueueError> {
        lock(&self.groups).insert(group.to_owned());
        self.declare(link).await
    }

    /// Declares the groups that we know of, again if the server lost them.
    pub(super) async fn declare(&self, link: &Link) -> Result<(), QueueError> {
        let groups: Vec<String> = lock(&self.groups).iter().cloned().collect();
        if groups.is_empty() {
            return Ok(());
        }
        let mut command = script::call(&script::DECLARE, &self.base);
        command.arg(&groups);
        Ok(link.run(&script::DECLARE, &command).await?)
    }

    /// Runs a script that needs the group's streams, and makes them first if they are missing.
    pub(super) async fn run<T: redis::FromRedisValue>(
        &self,
        link: &Link,
        script: &redis::Script,
        command: &redis::Cmd,
    ) -> Result<T, QueueError> {
        match link.run(script, command).await {
            Err(failure) if failure.is_missing_group() => {
                self.declare(link).await?;
                Ok(link.run(script, command).await?)
            }
            answer => Ok(answer?),
        }
    }

    pub(super) async fn publish(
        &self,
        link: &Link,
        messages: &[Message],
    ) -> Result<(), QueueError> {
        for message in messages {
            message.check_fits(BROKER, LARGEST_BYTES)?;
        }
        let mut rest = messages;
        while !rest.is_empty() {
            let mut command = script::call(&script::PUBLISH, &self.base);
            let (mut taken, mut bytes) = (0, 0);
            for message in rest.iter().take(CHUNK) {
                if taken > 0 && bytes + message.size_bytes() > CHUNK_BYTES {
                    break;
                }
                bytes += message.size_bytes();
                taken += 1;
                entry::push(&mut command, message)?;
            }
            if self.publish_some(link, &command).await? == 0 {
                self.declare(link).await?;
                if self.publish_some(link, &command).await? == 0 {
                    return Err(QueueError::no_group(BROKER, &self.base));
                }
            }
            rest = &rest[taken..];
        }
        Ok(())
    }

    async fn publish_some(&self, link: &Link, command: &redis::Cmd) -> Result<u64, Failure> {
        link.run(&script::PUBLISH, command).await
    }
}

/// Locks; a set of names is sound whatever panicked.
pub(super) fn lock<T>(mutex: &Mutex<T>) -> std::sync::MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}
