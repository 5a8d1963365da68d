//! apalis-postgres 1.0.0.
//!
//! A job is a row; done is a state of the row, which stays. Claims and collected results are
//! transactions of their own. It needs the extension `hstore`, which its migrations create.

use std::process::ExitCode;
use std::sync::Arc;
use std::time::Duration;

use apalis::prelude::*;
use apalis_postgres::{Config, PostgresStorage};
use bench_harness::{CHUNK, CONNECTIONS, Contestant, Error, Flags, Meter, Payload, Stop};
use sqlx::postgres::{PgPool, PgPoolOptions};

/// Results are written when the worker is next polled, and a wake-up can be lost. The documents
/// pair notifications with a poll every 5 or 10 s; a tenth of a second is in its favour.
const POLL: Duration = Duration::from_millis(100);

struct Apalis {
    pool: PgPool,
    storage: PostgresStorage<Payload>,
    meter: Meter,
    concurrency: usize,
    stop: Stop,
}

async fn handle(job: Payload, meter: Data<Meter>) -> Result<(), BoxDynError> {
    meter.done(job.sequence);
    Ok(())
}

impl Contestant for Apalis {
    async fn connect(flags: &Flags, meter: Meter) -> Result<Self, Error> {
        let pool = PgPoolOptions::new()
            .max_connections(CONNECTIONS)
            .connect(&flags.url)
            .await?;
        PostgresStorage::setup(&pool).await?;
        // As in its `examples/basic.rs`: a hundred at a time, and no second update of each row for
        // a lock (the claim has one already) that short jobs have no use for.
        let config = Config::default()
            .queue("bench")
            .batch_size(100)
            .lock_tasks(false);
        Ok(Self {
            storage: PostgresStorage::new(&pool).with_config(config),
            pool,
            meter,
            concurrency: flags.concurrency,
            stop: Stop::new(),
        })
    }

    async fn publish_all(&self, jobs: Vec<Payload>) -> Result<(), Error> {
        let mut storage = self.storage.clone();
        for chunk in jobs.chunks(CHUNK) {
            storage.push_bulk(chunk.to_vec()).await?;
        }
        Ok(())
    }

    async fn publish(&self, job: Payload) -> Result<(), Error> {
        Ok(self.storage.clone().push(job).await?)
    }

    async fn work(self: Arc<Self>) -> Result<(), Error> {
        // On a thread of its own, as in the `main` of its examples: the compiler cannot prove that
        // a parallel worker's future may move between threads.
        let run = tokio::task::spawn_blocking(move || {
            let asked = self.stop.asked();
            let worker = WorkerBuilder::new("bench")
                .backend(self.storage.clone().with_pubsub().poll_with_interval(POLL))
                .concurrency(self.concurrency)
                .parallelize(tokio::spawn)
                .data(self.meter.clone())
                .build(handle)
                .run_until(async move {
                    asked.await;
                    Ok::<_, WorkerError>(())
                });
            tokio::runtime::Handle::current().block_on(worker)
        });
        Ok(run.await??)
    }

    async fn unfinished(&self) -> Result<u64, Error> {
        let sql =
            "select count(*) from apalis.jobs where status in ('Pending', 'Queued', 'Running')";
        let left: i64 = sqlx::query_scalar(sql).fetch_one(&self.pool).await?;
        Ok(left.unsigned_abs())
    }

    async fn stop(&self) {
        self.stop.ask();
    }
}

fn main() -> ExitCode {
    bench_harness::run::<Apalis>()
}
