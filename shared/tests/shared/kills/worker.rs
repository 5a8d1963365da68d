//! The processes that are killed: the worker runtime as everybody uses it, with a handler whose
//! effect is in PostgreSQL; and a relay.

use std::io::Read;
use std::process::ExitCode;
use std::sync::Arc;
use std::time::Duration;

use rand::RngExt;
use shared::outbox::{Relay, RelayOptions};
use shared::queue::worker::{Failure, Worker};
use shared::queue::{
    Backoff, ConnectOptions, ConsumerOptions, Delivery, Queue, QueueError, connect,
};

use super::ledger::Ledger;
use super::scene::{GROUP, Job};
use crate::role::Role;

/// The roles' names, for `role::play`.
pub(crate) const WORKER: &str = "kills-worker";
pub(crate) const RELAY: &str = "kills-relay";

/// How long the lanes of a relay that was killed wait.
const RELAY_LEASE: Duration = Duration::from_secs(1);

/// How long the jobs of a worker that was killed wait.
pub(super) const LEASE: Duration = Duration::from_secs(2);

/// More than the faults of a run can burn: each death counts as an attempt of all that the worker
/// had taken. So a good job is never given up, and the judge finds it if one is.
const ATTEMPTS: u32 = 10_000;

/// After so many attempts a bad job is given up by its handler.
const ATTEMPTS_OF_A_BAD_JOB: u32 = 3;

/// What a worker is told.
#[derive(Debug, Clone)]
pub(super) struct Orders {
    pub(super) queue_url: String,
    pub(super) queue: String,
    pub(super) ledger_url: String,
    /// Without an inbox.
    pub(super) naive: bool,
}

impl Orders {
    /// Starts the process. It may not be at work yet.
    pub(super) fn spawn(&self, role: &str) -> Role {
        let naive = if self.naive { "1" } else { "0" };
        let env = [
            ("KILLS_QUEUE_URL", &*self.queue_url),
            ("KILLS_QUEUE", &self.queue),
            ("KILLS_LEDGER_URL", &self.ledger_url),
            ("KILLS_NAIVE", naive),
        ];
        Role::start(role, &env, None)
    }

    fn from_env() -> Self {
        let get = |name| std::env::var(name).unwrap();
        Self {
            queue_url: get("KILLS_QUEUE_URL"),
            queue: get("KILLS_QUEUE"),
            ledger_url: get("KILLS_LEDGER_URL"),
            naive: get("KILLS_NAIVE") == "1",
        }
    }
}

/// Works until it is killed, or until the test that started it is gone.
pub(crate) fn play(role: &str) -> ExitCode {
    std::thread::spawn(|| {
        // Ends with the other end of the pipe.
        let _ = std::io::stdin().read(&mut [0]);
        std::process::exit(0);
    });
    let runtime = tokio::runtime::Builder::new_multi_thread()
        .worker_threads(2)
        .enable_all()
        .build()
        .unwrap();
    let orders = Orders::from_env();
    match role {
        RELAY => runtime.block_on(relay(orders)),
        _ => runtime.block_on(work(orders)),
    }
    ExitCode::SUCCESS
}

async fn work(orders: Orders) {
    let ledger = Ledger::open(&orders.ledger_url);
    let options = ConsumerOptions::default().poll_interval(Duration::from_millis(200));
    let consumer = opened(async || {
        let queue = open(&orders).await?;
        queue.consumer(GROUP, &options).await
    });
    let consumer = consumer.await;
    let naive = orders.naive;
    let handler = move |delivery: Delivery| {
        let ledger = ledger.clone();
        async move { handle(&ledger, &delivery, naive).await }
    };
    Worker::new(consumer)
        .concurrency(8)
        .prefetch(16)
        .lease(LEASE)
        .max_attempts(ATTEMPTS)
        .backoff(Backoff::exponential(
            Duration::from_millis(10),
            Duration::from_millis(50),
        ))
        .settle(100, Duration::from_millis(2))
        .run(handler, std::future::pending())
        .await;
}

async fn relay(orders: Orders) {
    let queue = opened(async || open(&orders).await).await;
    let mut options = RelayOptions::default();
    options.lease = RELAY_LEASE;
    options.poll = Duration::from_millis(100);
    options.batch = 50;
    let pool = Ledger::open(&orders.ledger_url).pool();
    let relay = Relay::new(pool, [queue]).options(options);
    relay.run(std::future::pending()).await;
}

/// The broker may be down at this moment: that is what the test is about.
async fn opened<T>(open: impl AsyncFn() -> Result<T, QueueError>) -> T {
    loop {
        match open().await {
            Ok(opened) => return opened,
            Err(error) => tracing::debug!(%error, "the broker is not there yet"),
        }
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
}

/// The queue, with its one group.
pub(super) async fn open(orders: &Orders) -> Result<Arc<dyn Queue>, QueueError> {
    let options = ConnectOptions::default().max_connections(3);
    let broker = connect(&orders.queue_url, &options).await?;
    broker.queue(&orders.queue, &[GROUP]).await
}

async fn handle(ledger: &Ledger, delivery: &Delivery, naive: bool) -> Result<(), Failure> {
    let message = &delivery.message;
    let job: Job = message.read_json().map_err(Failure::dead)?;
    let start = ledger
        .start(message.id, std::process::id(), delivery.attempt)
        .await?;
    // The work: what takes time, and may be cut off at any point.
    let work = Duration::from_micros(rand::rng().random_range(500..8_000));
    tokio::time::sleep(work).await;
    if job.is_bad {
        ledger.fail(start).await?;
        return Err(match delivery.attempt >= ATTEMPTS_OF_A_BAD_JOB {
            true => Failure::dead("a bad job"),
            false => Failure::retry("a bad job"),
        });
    }
    let key = message.key.as_deref().unwrap_or_default();
    ledger.act(start, message.id, key, job.seq, naive).await?;
    Ok(())
}
