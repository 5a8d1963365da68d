//! A queue: publishing, looking, and what operators do.

use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use async_trait::async_trait;
use sqlx::{PgExecutor, Row};

use super::broker::Shared;
use super::consumer::PostgresConsumer;
use super::rows::{self, Columns};
use super::{LARGEST_BYTES, NAME, failed, sql};
use crate::db::{TxOptions, begin};
use crate::queue::{
    Consumer, ConsumerOptions, DeadLetter, Depth, Message, Queue, QueueError, check_name,
};

/// One statement takes so many messages, and about so many bytes: what is sent is held in memory a
/// few times on both sides.
const CHUNK_MESSAGES: usize = 5_000;
const CHUNK_BYTES: usize = 8 * 1024 * 1024;

/// A group that another process declares is seen by publishers after this time.
const GROUPS_KNOWN_FOR: Duration = Duration::from_secs(1);

pub(super) struct PostgresQueue {
    shared: Arc<Shared>,
    name: String,
    groups: Mutex<Groups>,
}

#[derive(Clone)]
struct Groups {
    ids: Arc<[(i32, String)]>,
    read_at: Instant,
}

impl PostgresQueue {
    pub(super) async fn open(
        shared: Arc<Shared>,
        name: &str,
        groups: &[&str],
    ) -> Result<Self, QueueError> {
        let known = read(&shared, name).await?;
        let queue = Self {
            shared,
            name: name.to_owned(),
            groups: Mutex::new(known),
        };
        for group in groups {
            queue.group(group, true).await?;
        }
        Ok(queue)
    }

    fn known(&self) -> Groups {
        let groups = self.groups.lock();
        groups.unwrap_or_else(PoisonError::into_inner).clone()
    }

    async fn read_again(&self) -> Result<Groups, QueueError> {
        let groups = read(&self.shared, &self.name).await?;
        *self.groups.lock().unwrap_or_else(PoisonError::into_inner) = groups.clone();
        Ok(groups)
    }

    /// The group's number.
    async fn group(&self, name: &str, declare: bool) -> Result<i32, QueueError> {
        let find = |groups: &Groups| {
            let mut ids = groups.ids.iter();
            ids.find(|(_, known)| known == name).map(|(id, _)| *id)
        };
        if let Some(id) = find(&self.known()) {
            return Ok(id);
        }
        if declare {
            sqlx::query(sql::DECLARE_GROUPS)
                .bind(&self.name)
                .bind([name].as_slice())
                .execute(&self.shared.pool)
                .await
                .map_err(failed)?;
        }
        find(&self.read_again().await?).ok_or_else(|| QueueError::Invalid {
            what: format!("the group {name:?} of queue {:?}", self.name),
            reason: "nobody has declared it".to_owned(),
        })
    }

    /// The numbers of all groups, not older than a moment.
    async fn all_groups(&self) -> Result<Vec<i32>, QueueError> {
        let mut groups = self.known();
        if groups.ids.is_empty() || groups.read_at.elapsed() > GROUPS_KNOWN_FOR {
            groups = self.read_again().await?;
        }
        Ok(groups.ids.iter().map(|(id, _)| *id).collect())
    }

    async fn execute(&self, sql: &'static str, groups: &[i32]) -> Result<(), QueueError> {
        let query = sqlx::query(sql).bind(groups);
        query.execute(&self.shared.pool).await.map_err(failed)?;
        Ok(())
    }
}

async fn read(shared: &Shared, queue: &str) -> Result<Groups, QueueError> {
    let read_at = Instant::now();
    let rows = sqlx::query(sql::FIND_GROUPS)
        .bind(queue)
        .fetch_all(&shared.pool)
        .await
        .map_err(failed)?;
    let ids = rows
        .iter()
        .map(|row| Ok((row.try_get(0)?, row.try_get(1)?)));
    Ok(Groups {
        ids: ids.collect::<Result<_, sqlx::Error>>().map_err(failed)?,
        read_at,
    })
}

/// Stores one chunk in one statement.
async fn insert(
    executor: impl PgExecutor<'_>,
    groups: &[i32],
    messages: &[Message],
) -> Result<(), sqlx::Error> {
    let columns = Columns::of(messages);
    let query = if columns.has_keys() {
        sqlx::query(sql::PUBLISH_KEYED)
            .bind(groups)
            .bind(columns.ids)
            .bind(columns.keys)
    } else {
        sqlx::query(sql::PUBLISH).bind(groups).bind(columns.ids)
    };
    query
        .bind(columns.headers)
        .bind(columns.delays_s)
        .bind(columns.payloads)
        .execute(executor)
        .await?;
    Ok(())
}

/// Cuts messages into what one statement takes.
fn chunks(mut messages: &[Message]) -> impl Iterator<Item = &[Message]> {
    std::iter::from_fn(move || {
        let mut bytes = 0;
        let fits = |message: &&Message| {
            bytes += message.size_bytes();
            bytes <= CHUNK_BYTES
        };
        let fitting = messages
            .iter()
            .take(CHUNK_MESSAGES)
            .take_while(fits)
            .count();
        // One that is too large for any chunk is a chunk of its own.
        let size = fitting.max(1).min(messages.len());
        let (chunk, rest) = messages.split_at(size);
        messages = rest;
        (!chunk.is_empty()).then_some(chunk)
    })
}

fn numbers(ids: &[String]) -> Vec<i64> {
    ids.iter().filter_map(|id| id.parse().ok()).collect()
}

#[async_trait]
impl Queue for PostgresQueue {
    fn name(&self) -> &str {
        &self.name
    }

    async fn publish(&self, messages: &[Message]) -> Result<(), QueueError> {
        for message in messages {
            message.check_fits(NAME, LARGEST_BYTES)?;
        }
        if messages.is_empty() {
            return Ok(());
        }
        let groups = self.all_groups().await?;
        if groups.is_empty() {
            return Err(QueueError::no_group(NAME, &self.name));
        }
        for chunk in chunks(messages) {
            let stored = insert(&self.shared.pool, &groups, chunk).await;
            // Also after a failure: it may have been stored, and who is woken for nothing looks
            // for nothing.
            self.shared.wake.tell(&groups, false);
            stored.map_err(failed)?;
        }
        Ok(())
    }

    async fn consumer(
        &self,
        group: &str,
        options: &ConsumerOptions,
    ) -> Result<Arc<dyn Consumer>, QueueError> {
        check_name("group", group)?;
        let group = self.group(group, true).await?;
        let consumer = PostgresConsumer::new(Arc::clone(&self.shared), group, options.clone());
        Ok(Arc::new(consumer))
    }

    async fn depth(&self, group: &str) -> Result<Depth, QueueError> {
        let group = self.group(group, false).await?;
        let row = sqlx::query(sql::DEPTH)
            .bind(group)
            .fetch_one(&self.shared.pool)
            .await
            .map_err(failed)?;
        let count = |column: usize| {
            let count: i64 = row.try_get(column)?;
            Ok::<_, sqlx::Error>(Some(u64::try_from(count).unwrap_or_default()))
        };
        let depth = || {
            let oldest: Option<f64> = row.try_get(4)?;
            Ok::<_, sqlx::Error>(Depth {
                ready: count(0)?,
                delayed: count(1)?,
                leased: count(2)?,
                dead: count(3)?,
                oldest: oldest.map(|age| Duration::try_from_secs_f64(age).unwrap_or_default()),
            })
        };
        depth().map_err(failed)
    }

    async fn dead_letters(
        &self,
        group: &str,
        after: Option<&str>,
        limit: usize,
    ) -> Result<Vec<DeadLetter>, QueueError> {
        let group = self.group(group, false).await?;
        let after = match after {
            None => 0,
            Some(id) => id.parse::<i64>().map_err(|_| QueueError::Invalid {
                what: format!("the dead letter {id:?}"),
                reason: "it is none of the ids that were listed".to_owned(),
            })?,
        };
        let rows = sqlx::query(sql::DEAD_LETTERS)
            .bind(group)
            .bind(after)
            .bind(i64::try_from(limit).unwrap_or(i64::MAX))
            .fetch_all(&self.shared.pool)
            .await
            .map_err(failed)?;
        let letters: Result<_, _> = rows.iter().map(rows::dead_letter).collect();
        letters.map_err(failed)
    }

    async fn redrive(&self, group: &str, ids: &[String]) -> Result<usize, QueueError> {
        let group = self.group(group, false).await?;
        let redriven = async {
            let mut tx = begin(&self.shared.pool, &TxOptions::default()).await?;
            let mut rows = sqlx::query(sql::TAKE_DEAD_LETTERS)
                .bind(group)
                .bind(numbers(ids))
                .fetch_all(&mut *tx)
                .await?;
            // In the order in which they died, which for a key is that of its messages.
            rows.sort_by_key(|row| row.try_get::<i64, _>("number").unwrap_or_default());
            let messages: Result<Vec<_>, _> = rows.iter().map(rows::message).collect();
            let messages = messages?;
            for chunk in chunks(&messages) {
                insert(&mut *tx, &[group], chunk).await?;
            }
            tx.commit().await?;
            Ok::<_, sqlx::Error>(messages.len())
        };
        let redriven = redriven.await.map_err(failed)?;
        self.shared.wake.tell(&[group], false);
        Ok(redriven)
    }

    async fn discard(&self, group: &str, ids: &[String]) -> Result<usize, QueueError> {
        let group = self.group(group, false).await?;
        let done = sqlx::query(sql::DISCARD)
            .bind(group)
            .bind(numbers(ids))
            .execute(&self.shared.pool)
            .await
            .map_err(failed)?;
        Ok(usize::try_from(done.rows_affected()).unwrap_or(usize::MAX))
    }

    async fn purge(&self) -> Result<(), QueueError> {
        let groups: Vec<i32> = self.read_again().await?.ids.iter().map(|g| g.0).collect();
        self.execute(sql::PURGE, &groups).await?;
        self.execute(sql::PURGE_DEAD_LETTERS, &groups).await
    }

    async fn delete(&self) -> Result<(), QueueError> {
        self.purge().await?;
        sqlx::query(sql::DELETE_GROUPS)
            .bind(&self.name)
            .execute(&self.shared.pool)
            .await
            .map_err(failed)?;
        self.read_again().await?;
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn chunks_hold_all_in_order_and_never_too_much() {
        let small = || Message::new("x");
        let large = || Message::new(vec![0_u8; CHUNK_BYTES + 1]);
        let mut messages = vec![large(), small(), large()];
        messages.extend((0..CHUNK_MESSAGES + 1).map(|_| small()));
        let sizes: Vec<_> = chunks(&messages).map(<[_]>::len).collect();
        assert_eq!(sizes, [1, 1, 1, CHUNK_MESSAGES, 1]);
        let all: Vec<_> = chunks(&messages).flatten().map(|m| m.id).collect();
        let sent: Vec<_> = messages.iter().map(|m| m.id).collect();
        assert_eq!(all, sent);
        assert_eq!(chunks(&[]).count(), 0);
    }
}
