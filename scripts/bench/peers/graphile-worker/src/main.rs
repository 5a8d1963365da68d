//! graphile_worker 0.14.1 on PostgreSQL.
//!
//! A job is a row; done is the row's deletion. Claims and batched completions are transactions of
//! their own; a job that is done but whose completion waits in the batch is done again after a
//! crash.

use std::process::ExitCode;
use std::sync::Arc;
use std::time::Duration;

use bench_harness::{CHUNK, CONNECTIONS, Contestant, Error, Flags, Meter, Payload};
use graphile_worker::{
    IntoTaskHandlerResult, JobSpec, LocalQueueConfig, TaskHandler, Worker, WorkerContext,
    WorkerOptions, WorkerUtils,
};
use serde::{Deserialize, Serialize};
use sqlx::postgres::{PgPool, PgPoolOptions};

#[derive(Debug, Clone, Serialize, Deserialize)]
struct Nothing(Payload);

impl TaskHandler for Nothing {
    const IDENTIFIER: &'static str = "nothing";

    async fn run(self, context: WorkerContext) -> impl IntoTaskHandlerResult {
        match context.get_ext::<Meter>() {
            Some(meter) => {
                meter.done(self.0.sequence);
                Ok(())
            }
            None => Err("the meter was not passed to the worker".to_owned()),
        }
    }
}

struct Graphile {
    pool: PgPool,
    worker: Worker,
    utils: WorkerUtils,
}

impl Contestant for Graphile {
    async fn connect(flags: &Flags, meter: Meter) -> Result<Self, Error> {
        let pool = PgPoolOptions::new()
            .max_connections(CONNECTIONS)
            .connect(&flags.url)
            .await?;
        let worker = WorkerOptions::default()
            .pg_pool(pool.clone())
            .concurrency(flags.concurrency)
            .add_extension(meter)
            .define_job::<Nothing>()
            // "When many small jobs make database fetch overhead noticeable" (guides/local-queue).
            .local_queue(LocalQueueConfig::default().with_size(500))
            // "Can significantly improve throughput", 1 to 5 ms (builder/batching, configuration).
            .complete_job_batch_delay(Duration::from_millis(5))
            .listen_os_shutdown_signals(false)
            .init()
            .await?;
        let utils = worker.create_utils();
        Ok(Self {
            pool,
            worker,
            utils,
        })
    }

    async fn publish_all(&self, jobs: Vec<Payload>) -> Result<(), Error> {
        let spec = JobSpec::default();
        for chunk in jobs.chunks(CHUNK) {
            let chunk: Vec<_> = chunk
                .iter()
                .map(|job| (Nothing(job.clone()), &spec))
                .collect();
            self.utils.add_jobs(&chunk).await?;
        }
        Ok(())
    }

    async fn publish(&self, job: Payload) -> Result<(), Error> {
        self.utils.add_job(Nothing(job), JobSpec::default()).await?;
        Ok(())
    }

    async fn work(self: Arc<Self>) -> Result<(), Error> {
        Ok(self.worker.run().await?)
    }

    async fn unfinished(&self) -> Result<u64, Error> {
        let left: i64 = sqlx::query_scalar("select count(*) from graphile_worker._private_jobs")
            .fetch_one(&self.pool)
            .await?;
        Ok(left.unsigned_abs())
    }

    async fn stop(&self) {
        self.worker.request_shutdown();
    }
}

fn main() -> ExitCode {
    bench_harness::run::<Graphile>()
}
