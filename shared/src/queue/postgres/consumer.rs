//! A member of a group: claiming, waiting, settling.

use std::collections::HashSet;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use async_trait::async_trait;
use sqlx::postgres::{PgArguments, PgRow};
use sqlx::query::Query;
use sqlx::{Postgres, Row};
use tokio::sync::watch;

use super::broker::Shared;
use super::cursor::Cursor;
use super::line::Line;
use super::rows::{self, Places, seconds};
use super::{failed, sql};
use crate::queue::{Consumer, ConsumerOptions, Delivery, Nack, QueueError, Receipt, Settled};

/// One statement claims or settles so many.
const BATCH: usize = 5_000;

pub(super) struct PostgresConsumer {
    shared: Arc<Shared>,
    /// Claims, which may wait for locks on rows, are in nobody's way on a line of their own.
    claims: Line,
    settles: Line,
    group: i32,
    options: ConsumerOptions,
    /// Held for no await: where to look, and when the next delayed message is due.
    state: Mutex<State>,
    stopped: watch::Sender<bool>,
}

struct State {
    cursor: Cursor,
    due: Instant,
}

impl PostgresConsumer {
    pub(super) fn new(shared: Arc<Shared>, group: i32, options: ConsumerOptions) -> Self {
        let now = Instant::now();
        Self {
            claims: shared.line(),
            settles: shared.line(),
            shared,
            group,
            options,
            state: Mutex::new(State {
                cursor: Cursor::new(now),
                due: now,
            }),
            stopped: watch::Sender::new(false),
        }
    }

    fn check_open(&self) -> Result<(), QueueError> {
        match self.shared.is_closed() {
            true => Err(QueueError::Closed { what: "broker" }),
            false => Ok(()),
        }
    }

    fn with_state<T>(&self, work: impl FnOnce(&mut State) -> T) -> T {
        work(&mut self.state.lock().unwrap_or_else(PoisonError::into_inner))
    }

    /// One look, in one statement: from the cursor, or as a sweep if one is due.
    async fn look(&self, max: usize, lease: Duration) -> Result<Vec<Delivery>, QueueError> {
        let now = Instant::now();
        if self.with_state(|state| state.due <= now) {
            self.wake_delayed().await?;
        }
        let interval = self.options.poll_interval;
        if !self.with_state(|state| state.cursor.must_sweep(now, interval)) {
            let from = self.with_state(|state| state.cursor.claim_from(now));
            return self.claim(max, lease, from).await;
        }
        let from = self.with_state(|state| state.cursor.sweep_from(now));
        let got = self.claim(max, lease, from).await?;
        self.look_for_the_lowest(from).await?;
        Ok(got)
    }

    async fn claim(
        &self,
        max: usize,
        lease: Duration,
        from: i64,
    ) -> Result<Vec<Delivery>, QueueError> {
        // Random, so that it is nobody else's, even after the server has forgotten the last second
        // in a crash. 0 means none.
        let token = rand::random_range(1..=i64::MAX);
        let query = sqlx::query(sql::CLAIM)
            .bind(self.group)
            .bind(from)
            .bind(i64::try_from(max.min(BATCH)).unwrap_or(i64::MAX))
            .bind(token)
            .bind(seconds(lease));
        let rows = self.claims.fetch(query).await?;
        let deliveries: Result<Vec<_>, _> =
            rows.iter().map(|row| rows::delivery(row, token)).collect();
        let mut deliveries = deliveries.map_err(failed)?;
        // An update returns its rows as it comes upon them.
        deliveries.sort_unstable_by_key(|delivery| delivery.receipt.place());
        if let Some(last) = deliveries.last() {
            let (highest, now) = (last.receipt.place(), Instant::now());
            self.with_state(|state| state.cursor.claimed(highest, now));
        }
        Ok(deliveries)
    }

    async fn look_for_the_lowest(&self, floor: i64) -> Result<(), QueueError> {
        let query = sqlx::query(sql::LOWEST).bind(self.group).bind(floor);
        let rows = self.claims.fetch(query).await?;
        let Some(row) = rows.first() else {
            return Ok(());
        };
        let read = || Ok::<_, sqlx::Error>((row.try_get(0)?, row.try_get(1)?, row.try_get(2)?));
        let (lowest, oldest, next) = read().map_err(failed)?;
        self.with_state(|state| state.cursor.looked(lowest, oldest, next));
        Ok(())
    }

    async fn wake_delayed(&self) -> Result<(), QueueError> {
        let query = sqlx::query(sql::WAKE_DELAYED).bind(self.group);
        let rows = self.claims.fetch(query).await?;
        let next = rows.first().map(|row| row.try_get(1)).transpose();
        let next: Option<f64> = next.map_err(failed)?.flatten();
        // Another consumer may be told of an earlier one.
        let next = next.and_then(|wait| Duration::try_from_secs_f64(wait).ok());
        let next = next.map_or(self.options.poll_interval, |wait| {
            wait.min(self.options.poll_interval)
        });
        self.with_state(|state| state.due = Instant::now() + next);
        Ok(())
    }

    /// Something becomes due in this time.
    fn due_in(&self, delay: Duration) {
        let due = Instant::now() + delay.min(Duration::from_secs(3_600));
        self.with_state(|state| state.due = state.due.min(due));
    }

    /// Runs a statement that returns the positions of those that still had their lease.
    async fn settle(
        &self,
        receipts: &[&Receipt],
        query: Query<'_, Postgres, PgArguments>,
    ) -> Result<Settled, QueueError> {
        self.check_open()?;
        let rows = self.settles.fetch(query).await?;
        if rows.len() == receipts.len() {
            return Ok(Settled::default());
        }
        let position = |row: &PgRow| row.try_get::<i64, _>(0);
        let settled: Result<HashSet<_>, _> = rows.iter().map(position).collect();
        let settled = settled.map_err(failed)?;
        let lost = |receipt: &&&Receipt| !settled.contains(&receipt.place());
        let lost = receipts
            .iter()
            .filter(lost)
            .map(|receipt| (*receipt).clone());
        Ok(Settled {
            lost: lost.collect(),
        })
    }
}

#[async_trait]
impl Consumer for PostgresConsumer {
    async fn receive(
        &self,
        max: usize,
        lease: Duration,
        wait: Duration,
    ) -> Result<Vec<Delivery>, QueueError> {
        if lease.is_zero() {
            return Err(QueueError::Invalid {
                what: "a lease of no time".to_owned(),
                reason: "it would be over before the message is there".to_owned(),
            });
        }
        self.check_open()?;
        let deadline = Instant::now().checked_add(wait);
        let mut stopped = self.stopped.subscribe();
        let mut signs = self.shared.wake.watch(self.group);
        let mut put_back = signs.borrow().put_back;
        loop {
            if *stopped.borrow_and_update() || max == 0 {
                return Ok(Vec::new());
            }
            // Before the look: what comes after it wakes us.
            let seen = *signs.borrow_and_update();
            if seen.put_back != put_back {
                put_back = seen.put_back;
                self.with_state(|state| state.cursor.put_back());
            }
            let got = self.look(max, lease).await?;
            let now = Instant::now();
            if !got.is_empty() || deadline.is_some_and(|deadline| deadline <= now) {
                return Ok(got);
            }
            let next = self.with_state(|state| state.due.min(now + self.options.poll_interval));
            let next = deadline.map_or(next, |deadline| deadline.min(next));
            tokio::select! {
                _ = stopped.changed() => {}
                _ = signs.changed() => {}
                () = tokio::time::sleep_until(next.into()) => {}
            }
        }
    }

    fn stop_receiving(&self) {
        self.stopped.send_replace(true);
    }

    async fn ack(&self, receipts: &[Receipt]) -> Result<Settled, QueueError> {
        let mut all = Settled::default();
        for receipts in receipts.chunks(BATCH) {
            let receipts: Vec<_> = receipts.iter().collect();
            let places = Places::of(receipts.iter().copied());
            let query = match places.keys.is_empty() {
                true => sqlx::query(sql::ACK),
                false => sqlx::query(sql::ACK_KEYED),
            };
            let query = query
                .bind(self.group)
                .bind(places.positions)
                .bind(places.leases);
            let has_keys = !places.keys.is_empty();
            let query = match has_keys {
                true => query.bind(places.keys),
                false => query,
            };
            all.lost.extend(self.settle(&receipts, query).await?.lost);
            if has_keys {
                // The next of a key may have become ready.
                self.shared.wake.tell(&[self.group], false);
            }
        }
        Ok(all)
    }

    async fn nack(&self, nacks: &[Nack]) -> Result<Settled, QueueError> {
        let mut all = Settled::default();
        for nacks in nacks.chunks(BATCH) {
            let receipts: Vec<_> = nacks.iter().map(|nack| &nack.receipt).collect();
            let places = Places::of(receipts.iter().copied());
            let delays: Vec<_> = nacks.iter().map(|nack| seconds(nack.delay)).collect();
            let errors: Vec<_> = nacks.iter().map(|nack| clean(&nack.error)).collect();
            let query = sqlx::query(sql::NACK)
                .bind(self.group)
                .bind(places.positions)
                .bind(places.leases)
                .bind(delays)
                .bind(errors);
            all.lost.extend(self.settle(&receipts, query).await?.lost);
            if let Some(soonest) = nacks.iter().map(|nack| nack.delay).min() {
                self.due_in(soonest);
            }
            if nacks.iter().any(|nack| nack.delay.is_zero()) {
                self.shared.wake.tell(&[self.group], false);
            }
        }
        Ok(all)
    }

    async fn extend(&self, receipts: &[Receipt], lease: Duration) -> Result<Settled, QueueError> {
        let mut all = Settled::default();
        for receipts in receipts.chunks(BATCH) {
            let receipts: Vec<_> = receipts.iter().collect();
            let places = Places::of(receipts.iter().copied());
            let query = sqlx::query(sql::EXTEND)
                .bind(self.group)
                .bind(places.positions)
                .bind(places.leases)
                .bind(seconds(lease));
            all.lost.extend(self.settle(&receipts, query).await?.lost);
        }
        Ok(all)
    }

    async fn dead_letter(&self, reasons: &[(Receipt, String)]) -> Result<Settled, QueueError> {
        let mut all = Settled::default();
        for reasons in reasons.chunks(BATCH) {
            let receipts: Vec<_> = reasons.iter().map(|(receipt, _)| receipt).collect();
            let places = Places::of(receipts.iter().copied());
            let texts: Vec<_> = reasons.iter().map(|(_, reason)| clean(reason)).collect();
            let query = sqlx::query(sql::BURY)
                .bind(self.group)
                .bind(places.positions)
                .bind(places.leases)
                .bind(texts)
                .bind(places.keys);
            all.lost.extend(self.settle(&receipts, query).await?.lost);
            self.shared.wake.tell(&[self.group], false);
        }
        Ok(all)
    }

    async fn release(&self, receipts: &[Receipt]) -> Result<Settled, QueueError> {
        let mut all = Settled::default();
        for receipts in receipts.chunks(BATCH) {
            let receipts: Vec<_> = receipts.iter().collect();
            let places = Places::of(receipts.iter().copied());
            let query = sqlx::query(sql::RELEASE)
                .bind(self.group)
                .bind(places.positions)
                .bind(places.leases);
            all.lost.extend(self.settle(&receipts, query).await?.lost);
            self.with_state(|state| state.cursor.put_back());
            self.shared.wake.tell(&[self.group], true);
        }
        Ok(all)
    }

    async fn close(&self) -> Result<(), QueueError> {
        self.stop_receiving();
        self.claims.close().await;
        self.settles.close().await;
        Ok(())
    }
}

/// What a text of PostgreSQL cannot hold.
fn clean(text: &str) -> String {
    text.replace('\0', "\u{fffd}")
}
