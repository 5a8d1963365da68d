//! A member of a group: takes deliveries and settles them.

use std::collections::{BTreeSet, HashSet};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use async_trait::async_trait;
use redis::{Cmd, Script, Value, cmd};
use uuid::Uuid;

use super::SHORTEST_LEASE;
use super::entry::{self, Entry, Stream, milliseconds};
use super::link::Link;
use super::publish::{Place, lock};
use super::script::{self, CHUNK};
use super::waiting::Waiting;
use crate::queue::{Consumer, ConsumerOptions, Delivery, Nack, QueueError, Receipt, Settled};

/// The consumer group in each stream; `common.lua` says the same.
const MEMBERS: &str = "members";

pub(super) struct RedisConsumer {
    link: Arc<Link>,
    place: Arc<Place>,
    group: String,
    again: String,
    ready: String,
    tick: String,
    name: String,
    poll_interval: Duration,
    /// Our names in the streams: one for each lease that we took, which is part of the name.
    members: Mutex<BTreeSet<String>>,
    /// When we last looked for expired leases.
    looked: Mutex<Option<Instant>>,
    waiting: Arc<Waiting>,
    stopped: AtomicBool,
    closed: AtomicBool,
}

impl RedisConsumer {
    pub(super) fn new(
        link: Arc<Link>,
        place: Arc<Place>,
        group: &str,
        options: &ConsumerOptions,
    ) -> Self {
        Self {
            again: place.key(group, "again"),
            ready: place.key(group, "ready"),
            tick: place.key(group, "tick"),
            link,
            place,
            group: group.to_owned(),
            // Never the name of one that died: its deliveries are not ours.
            name: format!("{}-{}", options.name, Uuid::new_v4().simple()),
            poll_interval: options.poll_interval.max(Duration::from_millis(1)),
            members: Mutex::default(),
            looked: Mutex::default(),
            waiting: Arc::default(),
            stopped: AtomicBool::new(false),
            closed: AtomicBool::new(false),
        }
    }

    fn check_open(&self) -> Result<(), QueueError> {
        match self.closed.load(Ordering::Acquire) {
            true => Err(QueueError::Closed { what: "consumer" }),
            false => Ok(()),
        }
    }

    /// Our name for leases of this length.
    fn member(&self, lease: Duration) -> Result<String, QueueError> {
        if lease.is_zero() {
            return Err(QueueError::Invalid {
                what: "a lease of no time".to_owned(),
                reason: "it would have run out before the message is here".to_owned(),
            });
        }
        let lease_ms = milliseconds(lease.max(SHORTEST_LEASE));
        let member = format!("{}/{lease_ms}", self.name);
        lock(&self.members).insert(member.clone());
        Ok(member)
    }

    /// Takes what is there, and tells in what time the next delayed message is due.
    async fn claim(
        &self,
        member: &str,
        max: usize,
    ) -> Result<(Vec<Delivery>, Option<Duration>), QueueError> {
        let look = {
            let mut looked = lock(&self.looked);
            let due = looked.is_none_or(|at| at.elapsed() >= self.poll_interval);
            if due {
                *looked = Some(Instant::now());
            }
            due
        };
        let mut command = script::call(&script::CLAIM, &self.place.base);
        command
            .arg(&self.group)
            .arg(member)
            .arg(max)
            .arg(u8::from(look));
        let (again, ready, due_in): (Value, Value, i64) =
            self.place.run(&self.link, &script::CLAIM, &command).await?;
        let mut deliveries = deliveries(again, Stream::Again)?;
        deliveries.extend(self::deliveries(ready, Stream::Ready)?);
        let due_in = u64::try_from(due_in).ok().map(Duration::from_millis);
        Ok((deliveries, due_in))
    }

    /// Waits until something comes. It is looked for and waited for in one command, so nothing can
    /// slip in between.
    async fn wait(
        &self,
        member: &str,
        max: usize,
        nap: Duration,
    ) -> Result<Vec<Delivery>, QueueError> {
        let mut command = cmd("XREADGROUP");
        command.arg("GROUP").arg(MEMBERS).arg(member);
        command.arg("COUNT").arg(max);
        // 0 would be for ever.
        command.arg("BLOCK").arg(milliseconds(nap).max(1));
        command.arg("STREAMS").arg(&self.again).arg(&self.ready);
        command.arg(&self.tick).arg(">").arg(">").arg(">");
        let streams = match self.waiting.ask(&self.link, &command, nap).await {
            Err(failure) if failure.is_missing_group() => {
                self.place.declare(&self.link).await?;
                return Ok(Vec::new());
            }
            Ok(Value::Array(streams)) => streams,
            Ok(_) => return Ok(Vec::new()),
            Err(failure) => return Err(failure.into()),
        };
        let mut came = Vec::new();
        for stream in streams {
            let (name, entries): (String, Value) =
                redis::from_redis_value(stream).map_err(|_| entry::unreadable("an answer"))?;
            if name == self.again {
                came.extend(deliveries(entries, Stream::Again)?);
            } else if name == self.ready {
                came.extend(deliveries(entries, Stream::Ready)?);
            } else {
                self.forget_ticks(entries).await?;
            }
        }
        // The limit holds for each stream, and both may have had something.
        if came.len() > max {
            let surplus: Vec<_> = came.drain(max..).map(|one| one.receipt).collect();
            let _ = self.release(&surplus).await?;
        }
        Ok(came)
    }

    /// Whoever got a tick looks when the next message is due; it has done its work.
    async fn forget_ticks(&self, entries: Value) -> Result<(), QueueError> {
        let ids: Vec<String> = Entry::read_all(entries)?
            .into_iter()
            .map(|e| e.id)
            .collect();
        let mut command = cmd("XACK");
        command.arg(&self.tick).arg(MEMBERS).arg(ids);
        self.link.ask::<Value>(&command).await?;
        Ok(())
    }

    /// Sends receipts to a script in pieces; it answers with the numbers of those that were lost.
    async fn settle<T>(
        &self,
        script: &Script,
        items: &[T],
        receipt: impl Fn(&T) -> &Receipt,
        arguments: impl Fn(&mut Cmd, Stream, &str, &T),
    ) -> Result<Settled, QueueError> {
        self.check_open()?;
        let mut settled = Settled::default();
        for chunk in items.chunks(CHUNK) {
            let mut command = script::call(script, &self.place.base);
            command.arg(&self.group);
            for item in chunk {
                let (stream, id) = entry::place(receipt(item));
                arguments(&mut command, stream, &id, item);
            }
            let lost: Vec<usize> = self.link.run(script, &command).await?;
            let lost = lost.into_iter().filter_map(|number| chunk.get(number - 1));
            settled.lost.extend(lost.map(|item| receipt(item).clone()));
        }
        Ok(settled)
    }
}

#[async_trait]
impl Consumer for RedisConsumer {
    async fn receive(
        &self,
        max: usize,
        lease: Duration,
        wait: Duration,
    ) -> Result<Vec<Delivery>, QueueError> {
        self.check_open()?;
        let member = self.member(lease)?;
        let begun = Instant::now();
        while max > 0 && !self.stopped.load(Ordering::Acquire) {
            let (came, due_in) = self.claim(&member, max).await?;
            let left = wait.saturating_sub(begun.elapsed());
            if !came.is_empty() || left.is_zero() {
                return Ok(came);
            }
            let nap = left.min(self.poll_interval);
            let nap = due_in.map_or(nap, |due_in| nap.min(due_in));
            let came = self.wait(&member, max, nap).await?;
            if !came.is_empty() {
                return Ok(came);
            }
            self.check_open()?;
        }
        Ok(Vec::new())
    }

    fn stop_receiving(&self) {
        self.stopped.store(true, Ordering::Release);
        self.waiting.end(&self.link);
    }

    async fn ack(&self, receipts: &[Receipt]) -> Result<Settled, QueueError> {
        self.check_open()?;
        let mut settled = Settled::default();
        for chunk in receipts.chunks(CHUNK) {
            let mut placed: Vec<_> = chunk.iter().map(|one| (entry::place(one), one)).collect();
            placed.sort_by_key(|((stream, _), _)| *stream != Stream::Again);
            let again = placed
                .iter()
                .filter(|((stream, _), _)| *stream == Stream::Again);
            let again = again.count();
            let mut command = script::call(&script::ACK, &self.place.base);
            command
                .arg(&self.group)
                .arg(again)
                .arg(placed.len() - again);
            for ((_, id), _) in &placed {
                command.arg(id);
            }
            for (_, receipt) in &placed {
                command.arg(receipt.text());
            }
            let lost: Vec<usize> = self.link.run(&script::ACK, &command).await?;
            let lost = lost.into_iter().filter_map(|number| placed.get(number - 1));
            settled
                .lost
                .extend(lost.map(|(_, receipt)| (*receipt).clone()));
        }
        Ok(settled)
    }

    async fn nack(&self, nacks: &[Nack]) -> Result<Settled, QueueError> {
        let arguments = |command: &mut Cmd, stream: Stream, id: &str, nack: &Nack| {
            command.arg(stream.flag()).arg(id);
            command.arg(milliseconds(nack.delay)).arg(&nack.error);
        };
        self.settle(&script::NACK, nacks, |nack| &nack.receipt, arguments)
            .await
    }

    async fn extend(&self, receipts: &[Receipt], lease: Duration) -> Result<Settled, QueueError> {
        self.check_open()?;
        let member = self.member(lease)?;
        let mut settled = Settled::default();
        for (stream, key) in [(Stream::Again, &self.again), (Stream::Ready, &self.ready)] {
            let ours = receipts
                .iter()
                .map(|receipt| (entry::place(receipt), receipt));
            let ours: Vec<_> = ours.filter(|((place, _), _)| *place == stream).collect();
            for chunk in ours.chunks(CHUNK) {
                let mut command = cmd("XCLAIM");
                command.arg(key).arg(MEMBERS).arg(&member).arg(0);
                for ((_, id), _) in chunk {
                    command.arg(id);
                }
                // Only what is out is claimed, and what is out under this id is ours.
                command.arg("JUSTID");
                let held: HashSet<String> = match self.link.ask(&command).await {
                    Err(failure) if failure.is_missing_group() => HashSet::new(),
                    answer => answer?,
                };
                let lost = chunk.iter().filter(|((_, id), _)| !held.contains(id));
                settled
                    .lost
                    .extend(lost.map(|(_, receipt)| (*receipt).clone()));
            }
        }
        Ok(settled)
    }

    async fn dead_letter(&self, reasons: &[(Receipt, String)]) -> Result<Settled, QueueError> {
        let arguments = |command: &mut Cmd, stream: Stream, id: &str, item: &(Receipt, String)| {
            command.arg(stream.flag()).arg(id);
            command.arg(item.0.text()).arg(&item.1);
        };
        self.settle(&script::BURY, reasons, |item| &item.0, arguments)
            .await
    }

    async fn release(&self, receipts: &[Receipt]) -> Result<Settled, QueueError> {
        let arguments = |command: &mut Cmd, stream: Stream, id: &str, _: &Receipt| {
            command.arg(stream.flag()).arg(id);
        };
        self.settle(&script::RELEASE, receipts, |receipt| receipt, arguments)
            .await
    }

    async fn close(&self) -> Result<(), QueueError> {
        self.stop_receiving();
        if self.closed.swap(true, Ordering::AcqRel) {
            return Ok(());
        }
        let members: Vec<String> = lock(&self.members).iter().cloned().collect();
        let mut command = script::call(&script::LEAVE, &self.place.base);
        command.arg(&self.group).arg(&members);
        loop {
            match self.link.run::<u64>(&script::LEAVE, &command).await {
                Ok(0) => return Ok(()),
                Ok(_) => {}
                // The queue is gone, and what we held with it.
                Err(failure) if failure.is_missing_group() => return Ok(()),
                Err(failure) => return Err(failure.into()),
            }
        }
    }
}

fn deliveries(entries: Value, stream: Stream) -> Result<Vec<Delivery>, QueueError> {
    let entries = Entry::read_all(entries)?.into_iter();
    entries.map(|entry| entry.delivery(stream)).collect()
}
