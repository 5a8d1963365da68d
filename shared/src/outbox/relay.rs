//! The relay: takes what waits in the outbox to its queue.
//!
//! ```text
//! claim free lanes → read the heads → publish → mark and give the lanes back → claim …
//!       │ nothing waits, for a few milliseconds
//!       └→ say that we sleep → look once more → sleep until woken or `poll` has passed
//! ```
//!
//! As many as you like may run, in one program or in several. They share the lanes as they come:
//! with each batch a relay takes some that are free and have work.

use std::collections::BTreeMap;
use std::future::Future;
use std::pin::pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use sqlx::PgPool;
use tokio::time::Instant;

use super::lanes::{self, LANES, Settlement, Staged};
use super::outlet::{Outlet, Patience};
use super::wake::Bell;
use super::{OutboxError, clean_up};
use crate::queue::{Backoff, Queue};

/// How long a relay goes on looking by itself before it says that it sleeps. Events that come
/// closer together than this cost nobody a notification; a commit that was under way when the relay
/// fell asleep is found after the same time.
const LINGER: Duration = Duration::from_millis(10);

/// How often a relay looks for parked events that are due, and cleans up.
const HOUSEKEEPING: Duration = Duration::from_millis(500);

/// How many rows housekeeping touches at a time.
const HOUSEKEEPING_ROWS: u16 = 1_000;

/// How a relay works.
#[derive(Debug, Clone)]
#[non_exhaustive]
pub struct RelayOptions {
    /// At most so many events in one batch; default 500.
    pub batch: u16,
    /// At most so many bytes of payload in one batch, but for a single event that is larger;
    /// default 8 MiB.
    pub batch_bytes: u32,
    /// At most so many of the 64 lanes at a time; default 16. With fewer, more relays can work side
    /// by side; with more, batches are fuller.
    pub lanes: u16,
    /// How long lanes are ours; default 10 s. Those of a relay that dies wait so long. Half of it is
    /// for publishing a batch, which is then given up.
    pub lease: Duration,
    /// How often an idle relay looks without being woken; default 1 s.
    pub poll: Duration,
    /// After so many failures, while other events of its queue went through, an event is stuck;
    /// default 5. One that the broker can never take is stuck at once.
    pub max_attempts: u32,
    /// How long such an event is left alone; default from 1 s to 1 minute.
    pub retry: Backoff,
    /// How long a queue is left alone through which nothing goes; default from 100 ms to 5 s.
    pub broker_down: Backoff,
    /// How long published events stay in the table, for people who look for one; default: not at
    /// all.
    pub keep: Duration,
}

impl Default for RelayOptions {
    fn default() -> Self {
        let exponential = |base, cap| {
            Backoff::exponential(Duration::from_millis(base), Duration::from_millis(cap))
        };
        Self {
            batch: 500,
            batch_bytes: 8 << 20,
            lanes: 16,
            lease: Duration::from_secs(10),
            poll: Duration::from_secs(1),
            max_attempts: 5,
            retry: exponential(1_000, 60_000),
            broker_down: exponential(100, 5_000),
            keep: Duration::ZERO,
        }
    }
}

/// What a relay has done since it was made, for a metric. Numbers only grow.
#[derive(Debug, Default)]
pub struct Progress {
    published: AtomicU64,
    failed: AtomicU64,
    lost: AtomicU64,
    broker_errors: AtomicU64,
}

impl Progress {
    /// Events that a broker took from us, repetitions included.
    pub fn published(&self) -> u64 {
        self.published.load(Ordering::Relaxed)
    }

    /// Failures that counted against an event.
    pub fn failed(&self) -> u64 {
        self.failed.load(Ordering::Relaxed)
    }

    /// Batches after which some lanes were not ours any more: what was published of them is
    /// published again.
    pub fn lost(&self) -> u64 {
        self.lost.load(Ordering::Relaxed)
    }

    /// Batches of which nothing went through.
    pub fn broker_errors(&self) -> u64 {
        self.broker_errors.load(Ordering::Relaxed)
    }
}

/// What one step did.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Step {
    /// Events that the broker has now.
    pub published: usize,
    /// Events that are parked or stuck now.
    pub failed: usize,
    /// Whether there was nothing to do: no free lane with an event for a queue that is open.
    pub is_idle: bool,
    /// Whether the lanes were lost before what was done could be written down.
    pub is_lost: bool,
}

/// Publishes what is waiting for some queues.
pub struct Relay {
    pool: PgPool,
    outlets: BTreeMap<String, Outlet>,
    options: RelayOptions,
    progress: Arc<Progress>,
    next_housekeeping: Instant,
}

impl Relay {
    /// A relay for events of these queues, by their names. Those of other queues wait for another
    /// relay. Queues may belong to different brokers.
    ///
    /// `pool` is where the outbox's tables are; one connection for the work and one to be woken by
    /// are enough.
    pub fn new(pool: PgPool, queues: impl IntoIterator<Item = Arc<dyn Queue>>) -> Self {
        let options = RelayOptions::default();
        let outlet = |queue: Arc<dyn Queue>| {
            let name = queue.name().to_owned();
            (name, Outlet::new(queue, options.broker_down))
        };
        Self {
            outlets: queues.into_iter().map(outlet).collect(),
            pool,
            progress: Arc::default(),
            next_housekeeping: Instant::now(),
            options,
        }
    }

    /// Works so.
    #[must_use]
    pub fn options(mut self, options: RelayOptions) -> Self {
        for outlet in self.outlets.values_mut() {
            outlet.set_backoff(options.broker_down);
        }
        self.options = options;
        self
    }

    /// Counters that may be read while it runs.
    pub fn progress(&self) -> Arc<Progress> {
        Arc::clone(&self.progress)
    }

    /// Works until `shutdown` completes, then finishes the batch in hand. A database or a broker
    /// that is away is waited for.
    ///
    /// # Cancel safety
    /// Nothing is lost, but not free: lanes in hand wait until their lease ends, and what was being
    /// published may be published again. Complete `shutdown` instead.
    pub async fn run(mut self, shutdown: impl Future<Output = ()>) {
        let mut bell = Bell::hang(self.pool.clone());
        let mut shutdown = pin!(shutdown);
        let (mut idle, mut database_errors) = (0_u32, 0_u32);
        loop {
            let went = match self.step().await {
                Ok(step) if step.is_idle => {
                    idle = idle.saturating_add(1);
                    self.nap(&mut bell, idle).await
                }
                Ok(_) => {
                    idle = 0;
                    bell.awake(&self.pool).await.map(|()| Duration::ZERO)
                }
                Err(OutboxError::Sql(error)) => Err(error),
                // Nothing that is read can be invalid.
                Err(OutboxError::Invalid(reason)) => Err(sqlx::Error::Protocol(reason)),
            };
            let wait = match went {
                Ok(wait) => {
                    database_errors = 0;
                    wait
                }
                Err(error) => {
                    database_errors = database_errors.saturating_add(1);
                    tracing::warn!(%error, "the outbox cannot be read, trying again");
                    self.options.broker_down.after(database_errors)
                }
            };
            tokio::select! {
                biased;
                () = &mut shutdown => break,
                () = tokio::time::sleep(wait) => {}
                () = bell.rung(), if !wait.is_zero() && database_errors == 0 => {}
            }
        }
        if let Err(error) = bell.awake(&self.pool).await {
            tracing::debug!(%error, "the relay stays listed as asleep until its time has passed");
        }
    }

    /// How long to sleep, having said that we do if it is for longer.
    async fn nap(&self, bell: &mut Bell, idle: u32) -> Result<Duration, sqlx::Error> {
        let poll = self.options.poll;
        let wait = match idle {
            1 | 3 => LINGER.min(poll),
            2 => Duration::ZERO,
            _ => poll,
        };
        if idle > 1 {
            bell.announce(&self.pool, poll).await?;
        }
        let reopens = self.outlets.values().filter_map(Outlet::closed_until).min();
        let reopens = reopens.map(|at| at.saturating_duration_since(Instant::now()));
        Ok(reopens.map_or(wait, |reopens| wait.min(reopens)))
    }

    /// One batch: `run` without waiting and without an end.
    ///
    /// # Errors
    /// `Sql`. A broker that fails is no error: its queue is left alone for a while.
    ///
    /// # Cancel safety
    /// As `run`.
    pub async fn step(&mut self) -> Result<Step, OutboxError> {
        self.keep_house().await?;
        let open: Vec<String> = self
            .outlets
            .iter()
            .filter(|(_, outlet)| outlet.closed_until().is_none())
            .map(|(name, _)| name.clone())
            .collect();
        let lanes = self.options.lanes.clamp(1, LANES);
        // Before the database grants the lease, so that we think it over before the database does.
        let deadline = Instant::now() + self.options.lease / 2;
        let claim = lanes::claim(&self.pool, lanes, self.options.lease, &open).await?;
        let Some(claim) = claim else {
            return Ok(Step {
                is_idle: true,
                ..Step::default()
            });
        };
        let (batch, bytes) = (self.options.batch, self.options.batch_bytes);
        let events = claim.read(&self.pool, batch, bytes, &open).await?;
        let settlement = self.publish(events, deadline).await;
        let is_kept = !self.options.keep.is_zero();
        let is_ours = claim.settle(&self.pool, &settlement, is_kept).await?;
        let step = Step {
            published: settlement.published.len(),
            failed: settlement.failed.len(),
            is_idle: false,
            is_lost: !is_ours,
        };
        self.count(step);
        for failure in &settlement.failed {
            let (event, error) = (failure.id, &failure.error);
            match failure.retry_in {
                Some(wait) => tracing::warn!(event, error, ?wait, "an event is parked"),
                None => tracing::error!(event, error, "an event is stuck"),
            }
        }
        Ok(step)
    }

    /// To each queue its events, in order.
    async fn publish(&mut self, events: Vec<Staged>, deadline: Instant) -> Settlement {
        let mut by_queue: BTreeMap<String, Vec<Staged>> = BTreeMap::new();
        for event in events {
            by_queue.entry(event.queue.clone()).or_default().push(event);
        }
        let mut settlement = Settlement::default();
        let patience = Patience {
            max_attempts: self.options.max_attempts,
            retry: self.options.retry,
        };
        for (name, events) in by_queue {
            let Some(outlet) = self.outlets.get_mut(&name) else {
                continue;
            };
            let published = outlet.publish(&events, deadline, patience, &mut settlement);
            if let Err(error) = published.await {
                self.progress.broker_errors.fetch_add(1, Ordering::Relaxed);
                tracing::warn!(
                    queue = name,
                    error,
                    "nothing can be published, trying again"
                );
            }
        }
        settlement
    }

    /// Lets parked events go on whose time has come, and removes what was kept long enough.
    async fn keep_house(&mut self) -> Result<(), OutboxError> {
        if Instant::now() < self.next_housekeeping {
            return Ok(());
        }
        lanes::release_due(&self.pool, HOUSEKEEPING_ROWS).await?;
        let removed = match self.options.keep {
            Duration::ZERO => 0,
            keep => clean_up(&self.pool, keep, HOUSEKEEPING_ROWS).await?,
        };
        // There is more: go on with the next batch, without ever making events wait for long.
        if removed < u64::from(HOUSEKEEPING_ROWS) {
            self.next_housekeeping = Instant::now() + HOUSEKEEPING;
        }
        Ok(())
    }

    fn count(&self, step: Step) {
        let add = |counter: &AtomicU64, n: usize| counter.fetch_add(n as u64, Ordering::Relaxed);
        add(&self.progress.published, step.published);
        add(&self.progress.failed, step.failed);
        add(&self.progress.lost, usize::from(step.is_lost));
    }
}
