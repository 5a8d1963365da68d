//! riverqueue 0.5.0 on PostgreSQL.
//!
//! A job is a row; done is a state of the row, which stays for a day. Every claim and every batch
//! of completions is a transaction of its own: what the server's `synchronous_commit` promises
//! holds for both.

use std::process::ExitCode;
use std::sync::Arc;

use bench_harness::{CHUNK, CONNECTIONS, Contestant, Error, Flags, Meter, Payload, Stop};
use riverqueue::migrate::PostgresMigrator;
use riverqueue::sqlx::postgres::{PgPool, PgPoolOptions};
use riverqueue::{
    Client, FETCH_COOLDOWN_MIN, Job, JobArgs, QueueConfig, WorkContext, WorkOutcome, Workers,
};
use serde::{Deserialize, Serialize};

#[derive(Debug, Clone, Serialize, Deserialize, JobArgs)]
#[river(kind = "nothing")]
struct Nothing {
    sequence: u64,
    body: String,
}

impl From<Payload> for Nothing {
    fn from(Payload { sequence, body }: Payload) -> Self {
        Self { sequence, body }
    }
}

struct River {
    pool: PgPool,
    client: Client,
    stop: Stop,
}

impl Contestant for River {
    async fn connect(flags: &Flags, meter: Meter) -> Result<Self, Error> {
        let pool = PgPoolOptions::new()
            .max_connections(CONNECTIONS)
            .connect(&flags.url)
            .await?;
        PostgresMigrator::new(pool.clone()).migrate_up().await?;
        let mut workers = Workers::new();
        workers.add_fn(move |_: WorkContext, job: Job<Nothing>| {
            let meter = meter.clone();
            async move {
                meter.done(job.args.sequence);
                Ok::<_, Error>(WorkOutcome::Complete)
            }
        })?;
        let client = Client::builder(pool.clone())
            .workers(workers)
            .queue("default", QueueConfig::new(flags.concurrency))
            // "Throughput is limited by this value" (`ClientBuilder::fetch_cooldown`): the least
            // that is allowed, 1 ms, instead of 100. It paces the notifications of inserts, too.
            .fetch_cooldown(FETCH_COOLDOWN_MIN)
            .build()?;
        Ok(Self {
            pool,
            client,
            stop: Stop::new(),
        })
    }

    async fn publish_all(&self, jobs: Vec<Payload>) -> Result<(), Error> {
        let mut jobs = jobs.into_iter().map(Nothing::from).peekable();
        while jobs.peek().is_some() {
            let chunk: Vec<Nothing> = jobs.by_ref().take(CHUNK).collect();
            self.client.insert_many(chunk).await?;
        }
        Ok(())
    }

    async fn publish(&self, job: Payload) -> Result<(), Error> {
        self.client.insert(Nothing::from(job)).await?;
        Ok(())
    }

    async fn work(self: Arc<Self>) -> Result<(), Error> {
        let mut run = self.client.start_with_graceful_stop(self.stop.asked())?;
        Ok(run.wait().await?)
    }

    async fn unfinished(&self) -> Result<u64, Error> {
        let sql = "select count(*) from river_job \
                   where state in ('available', 'running', 'retryable', 'scheduled', 'pending')";
        let left: i64 = riverqueue::sqlx::query_scalar(sql)
            .fetch_one(&self.pool)
            .await?;
        Ok(left.unsigned_abs())
    }

    async fn stop(&self) {
        self.stop.ask();
    }
}

fn main() -> ExitCode {
    bench_harness::run::<River>()
}
