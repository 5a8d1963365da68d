//! How much there is for a group: what its coordinator knows, and what stands in the log.

use std::sync::Arc;
use std::time::{Duration, SystemTime};

use rdkafka::consumer::{BaseConsumer, Consumer as _};
use rdkafka::{Message as _, Offset, TopicPartitionList};

use super::blocking;
use super::cluster::Cluster;
use super::consumer::group_id;
use super::error::asked;
use super::marks::{Mark, Marks};
use super::record::{self, now_ms};
use super::scan::{Stretch, bounds, reader, scan};
use crate::queue::{Depth, QueueError};

/// More than so many messages are not read to be told apart: delayed ones that no consumer has
/// seen then count as ready, and the oldest is not known.
const READ_AT_MOST: i64 = 10_000;

/// All but the dead letters.
pub(super) async fn measure(
    cluster: &Arc<Cluster>,
    queue: &str,
    group: &str,
    partitions: i32,
) -> Result<Depth, QueueError> {
    let (cluster, topic, group) = (Arc::clone(cluster), queue.to_owned(), group.to_owned());
    blocking(move || {
        let timeout = cluster.timeout();
        let reader = reader(&cluster, &group_id(&topic, &group))?;
        let known = known(&reader, &topic, partitions, timeout)?;
        let mut count = Count::default();
        let mut stretches = Vec::new();
        for (partition, marks) in known {
            let (first, next) = bounds(&reader, &topic, partition, timeout)?;
            let marks = marks.unwrap_or_else(|| Marks::plain(first));
            // Messages below the first were deleted by age.
            let open = marks.open.iter().filter(|mark| mark.offset >= first);
            for mark in open {
                count.add(state(mark, count.now_ms));
            }
            let from = marks.touched.max(first);
            count.untouched += next.saturating_sub(from).max(0);
            stretches.push((
                marks.clone(),
                Stretch {
                    partition,
                    from: marks.base.max(first),
                    to: next,
                },
            ));
        }
        let all: Vec<Stretch> = stretches.iter().map(|(_, stretch)| *stretch).collect();
        if all
            .iter()
            .map(|stretch| stretch.to - stretch.from)
            .sum::<i64>()
            > READ_AT_MOST
        {
            return Ok(Depth {
                ready: Some(count.ready + u64::try_from(count.untouched).unwrap_or(0)),
                delayed: Some(count.delayed),
                leased: Some(count.leased),
                dead: None,
                oldest: None,
            });
        }
        let mut oldest: Option<SystemTime> = None;
        scan(&reader, &topic, &all, timeout, |record| {
            let found = stretches
                .iter()
                .find(|(_, stretch)| stretch.partition == record.partition());
            let Some((marks, _)) = found else { return };
            let taken = record::read(record);
            let state = if record.offset() < marks.touched {
                let mark = marks
                    .open
                    .iter()
                    .find(|mark| mark.offset == record.offset());
                let Some(mark) = mark else { return };
                state(mark, count.now_ms)
            } else {
                if taken.only.as_ref().is_some_and(|only| *only != group) {
                    return;
                }
                let mark = Mark {
                    offset: record.offset(),
                    attempts: 0,
                    leased: false,
                    due_ms: taken.due_ms,
                };
                let state = state(&mark, count.now_ms);
                count.add(state);
                state
            };
            if state == State::Ready && oldest.is_none_or(|oldest| taken.enqueued_at < oldest) {
                oldest = Some(taken.enqueued_at);
            }
        })?;
        Ok(Depth {
            ready: Some(count.ready),
            delayed: Some(count.delayed),
            leased: Some(count.leased),
            dead: None,
            oldest: oldest.map(|oldest| oldest.elapsed().unwrap_or(Duration::ZERO)),
        })
    })
    .await
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum State {
    Ready,
    Delayed,
    Leased,
}

fn state(mark: &Mark, now_ms: u64) -> State {
    match (mark.leased, mark.due_ms > now_ms) {
        (true, _) => State::Leased,
        (false, true) => State::Delayed,
        (false, false) => State::Ready,
    }
}

struct Count {
    now_ms: u64,
    ready: u64,
    delayed: u64,
    leased: u64,
    untouched: i64,
}

impl Default for Count {
    fn default() -> Self {
        Self {
            now_ms: now_ms(),
            ready: 0,
            delayed: 0,
            leased: 0,
            untouched: 0,
        }
    }
}

impl Count {
    fn add(&mut self, state: State) {
        match state {
            State::Ready => self.ready += 1,
            State::Delayed => self.delayed += 1,
            State::Leased => self.leased += 1,
        }
    }
}

/// What the group's coordinator holds of each partition.
fn known(
    reader: &BaseConsumer,
    topic: &str,
    partitions: i32,
    timeout: Duration,
) -> Result<Vec<(i32, Option<Marks>)>, QueueError> {
    let mut list = TopicPartitionList::new();
    list.add_partition_range(topic, 0, partitions - 1);
    let committed = asked(timeout, |left| reader.committed_offsets(list.clone(), left))?;
    let known = committed.elements().into_iter().map(|element| {
        let marks = match element.offset() {
            Offset::Offset(base) => Some(Marks::read(base, element.metadata())),
            _ => None,
        };
        (element.partition(), marks)
    });
    Ok(known.collect())
}
