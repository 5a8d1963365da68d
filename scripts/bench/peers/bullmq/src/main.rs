//! bullmq-official 1.4.4 on Redis.
//!
//! A job is a hash and its id in a list; each step is a Lua script, so what Redis has logged of it
//! is all or nothing. How much of the log survives a crash of the machine is the server's
//! `appendfsync`.

use std::process::ExitCode;
use std::sync::Arc;

use bench_harness::{CHUNK, Contestant, Error, Flags, Meter, Payload, Stop};
use bullmq::options::RedisConnectionOptions;
use bullmq::types::RemoveOnFinish;
use bullmq::worker::CancellationToken;
use bullmq::{BulkJob, Job, Queue, QueueOptions, Worker, WorkerOptions};

const NAME: &str = "bench";
const STOP_LIMIT_MS: u64 = 5_000;

struct Bull {
    queue: Queue,
    connection: RedisConnectionOptions,
    meter: Meter,
    concurrency: usize,
    stop: Stop,
}

impl Contestant for Bull {
    async fn connect(flags: &Flags, meter: Meter) -> Result<Self, Error> {
        let connection = RedisConnectionOptions {
            url: flags.url.clone(),
            ..RedisConnectionOptions::default()
        };
        let options = QueueOptions {
            connection: connection.clone(),
            ..QueueOptions::default()
        };
        Ok(Self {
            queue: Queue::with_options(NAME, options).await?,
            connection,
            meter,
            concurrency: flags.concurrency,
            stop: Stop::new(),
        })
    }

    async fn publish_all(&self, jobs: Vec<Payload>) -> Result<(), Error> {
        for chunk in jobs.chunks(CHUNK) {
            let chunk = chunk.iter().map(|job| BulkJob::new("nothing", job));
            self.queue.add_bulk(chunk.collect()).await?;
        }
        Ok(())
    }

    async fn publish(&self, job: Payload) -> Result<(), Error> {
        self.queue.add("nothing", job).await?;
        Ok(())
    }

    async fn work(self: Arc<Self>) -> Result<(), Error> {
        let meter = self.meter.clone();
        let handle = move |job: Job, _: CancellationToken| {
            // A job without a sequence is none of ours, and shows as one too many.
            let sequence = job.data()["sequence"].as_u64().unwrap_or(u64::MAX);
            meter.done(sequence);
            async { Ok(serde_json::Value::Null) }
        };
        let options = WorkerOptions {
            connection: self.connection.clone(),
            concurrency: self.concurrency,
            // "true removes immediately" (`RemoveOnFinish`): less to write, and what its guide for
            // production advises against a Redis that fills up.
            remove_on_complete: Some(RemoveOnFinish::Bool(true)),
            ..WorkerOptions::default()
        };
        let worker = Worker::with_options(NAME, handle, options).await?;
        self.stop.asked().await;
        worker.close(STOP_LIMIT_MS).await?;
        Ok(())
    }

    async fn unfinished(&self) -> Result<u64, Error> {
        let counts = self.queue.get_job_counts().await?;
        Ok(counts.waiting + counts.active + counts.delayed + counts.prioritized)
    }

    async fn stop(&self) {
        self.stop.ask();
    }
}

fn main() -> ExitCode {
    bench_harness::run::<Bull>()
}
