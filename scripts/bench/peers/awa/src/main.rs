//! awa 0.6.9 on PostgreSQL.
//!
//! A job is a row of an append-only partition; claims and completions are rows of others, and whole
//! partitions are emptied in turn, so little is updated or deleted. Claims and batched completions
//! are transactions of their own.

use std::process::ExitCode;
use std::sync::Arc;
use std::time::Duration;

use awa::{
    Client, InsertParams, JobArgs, JobResult, QueueConfig, QueueStorage, QueueStorageConfig,
};
use bench_harness::{CHUNK, CONNECTIONS, Contestant, Error, Flags, Meter, Payload, Stop};
use serde::{Deserialize, Serialize};
use sqlx::postgres::{PgPool, PgPoolOptions};

const STOP_LIMIT: Duration = Duration::from_secs(5);

#[derive(Debug, Clone, Serialize, Deserialize, JobArgs)]
struct Nothing {
    sequence: u64,
    body: String,
}

impl From<Payload> for Nothing {
    fn from(Payload { sequence, body }: Payload) -> Self {
        Self { sequence, body }
    }
}

struct Awa {
    pool: PgPool,
    client: Client,
    store: QueueStorage,
    stop: Stop,
}

fn client(pool: &PgPool, concurrency: usize, meter: Meter) -> Result<Client, Error> {
    let config = QueueConfig {
        max_workers: u32::try_from(concurrency)?,
        // Its default, and what its own benchmarks use; said here since the comparison names it.
        claim_batch_size: 512,
        // As in its `tests/benchmark_test.rs`; the default is 200 ms.
        poll_interval: Duration::from_millis(50),
        ..QueueConfig::default()
    };
    let client = Client::builder(pool.clone())
        .queue("default", config)
        .register::<Nothing, _, _>(move |job, _| {
            meter.done(job.sequence);
            async { Ok(JobResult::Completed) }
        })
        .build()?;
    Ok(client)
}

impl Contestant for Awa {
    async fn connect(flags: &Flags, meter: Meter) -> Result<Self, Error> {
        let pool = PgPoolOptions::new()
            .max_connections(CONNECTIONS)
            .connect(&flags.url)
            .await?;
        // On a thread of its own: the compiler cannot prove that this future may move between
        // threads.
        let migrated = pool.clone();
        tokio::task::spawn_blocking(move || {
            tokio::runtime::Handle::current().block_on(awa::migrations::run(&migrated))
        })
        .await??;
        // The first start on a new database switches it to the storage of version 0.6. Jobs that
        // were there before would keep it on the old one, and we enqueue first.
        let first = client(&pool, flags.concurrency, meter.clone())?;
        first.start().await?;
        first.shutdown(STOP_LIMIT).await;
        Ok(Self {
            client: client(&pool, flags.concurrency, meter)?,
            store: QueueStorage::new(QueueStorageConfig::default())?,
            pool,
            stop: Stop::new(),
        })
    }

    async fn publish_all(&self, jobs: Vec<Payload>) -> Result<(), Error> {
        for chunk in jobs.chunks(CHUNK) {
            let chunk: Result<Vec<InsertParams>, _> = chunk
                .iter()
                .map(|job| awa::insert::params(&Nothing::from(job.clone())))
                .collect();
            // What the docs of `insert_many_copy` prefer "for high-volume queue-storage producers".
            self.store.enqueue_params_copy(&self.pool, &chunk?).await?;
        }
        Ok(())
    }

    async fn publish(&self, job: Payload) -> Result<(), Error> {
        awa::insert(&self.pool, &Nothing::from(job)).await?;
        Ok(())
    }

    async fn work(self: Arc<Self>) -> Result<(), Error> {
        self.client.start().await?;
        self.stop.asked().await;
        self.client.shutdown(STOP_LIMIT).await;
        Ok(())
    }

    /// Not asked: with 20,000 jobs `awa::admin::state_counts` gave no answer within 5 s, and kept the
    /// server from its work. So its time ends with its last handler, whatever it has yet to write,
    /// which is in its favour.
    async fn unfinished(&self) -> Result<u64, Error> {
        Ok(0)
    }

    async fn stop(&self) {
        self.stop.ask();
    }
}

fn main() -> ExitCode {
    bench_harness::run::<Awa>()
}
