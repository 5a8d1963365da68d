//! apalis-redis 1.0.0.
//!
//! A job is an entry of a hash, another hash for its metadata, and its id in a list or a sorted
//! set; each step is a Lua script, so what Redis has logged of it is all or nothing. How much of
//! the log survives a crash of the machine is the server's `appendfsync`.

use std::process::ExitCode;
use std::sync::Arc;
use std::time::Duration;

use apalis::prelude::*;
use apalis_redis::{Config, ConnectionManager, RedisStorage};
use bench_harness::{Contestant, Error, Flags, Meter, Payload, Stop};

/// Its only way to learn of new jobs is to look. The tests in its source look every second; the
/// latency is this interval's, so a short one is in its favour. Not shorter: its timer is set anew
/// without being polled when it fires, and if a claim that found nothing returns in that very moment
/// the worker never wakes again. With 10 ms that happened within seconds on a busy machine.
const POLL: Duration = Duration::from_millis(25);

/// One Lua script takes them all, and Lua's stack ends at some 8,000 values, 7 for each job.
const CHUNK: usize = 1_000;

/// What its own script does with jobs that are due, before each claim: it moves them from the set of
/// those that are scheduled, where every job begins, to the list that claims are taken from. It
/// moves all of them with one `unpack`, and with more than some 8,000 its worker dies of "too many
/// results to unpack". So the burn-down moves each chunk; otherwise there would be no figure at all.
const PROMOTE: &str = "\
local ids = redis.call('zrange', KEYS[1], 0, -1)
if #ids > 0 then
    redis.call('rpush', KEYS[2], unpack(ids))
    redis.call('zrem', KEYS[1], unpack(ids))
end
return #ids";

struct Apalis {
    connection: ConnectionManager,
    config: Config,
    storage: RedisStorage<Payload>,
    meter: Meter,
    concurrency: usize,
    jobs: u64,
    stop: Stop,
}

async fn handle(job: Payload, meter: Data<Meter>) -> Result<(), BoxDynError> {
    meter.done(job.sequence);
    Ok(())
}

impl Contestant for Apalis {
    async fn connect(flags: &Flags, meter: Meter) -> Result<Self, Error> {
        let connection = apalis_redis::connect(flags.url.as_str()).await?;
        // `lock_tasks(false)` is advised "for tasks that last shorter than a worker heartbeat".
        let config = Config::default()
            .queue("bench")
            .batch_size(100)
            .lock_tasks(false);
        Ok(Self {
            storage: RedisStorage::new(connection.clone()).with_config(config.clone()),
            connection,
            config,
            meter,
            concurrency: flags.concurrency,
            jobs: flags.all_jobs() as u64,
            stop: Stop::new(),
        })
    }

    async fn publish_all(&self, jobs: Vec<Payload>) -> Result<(), Error> {
        let mut storage = self.storage.clone();
        for chunk in jobs.chunks(CHUNK) {
            storage.push_bulk(chunk.to_vec()).await?;
            let _: u64 = redis::cmd("EVAL")
                .arg(PROMOTE)
                .arg(2)
                .arg(self.config.scheduled_jobs_set())
                .arg(self.config.active_jobs_list())
                .query_async(&mut self.connection.clone())
                .await?;
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
                .backend(self.storage.clone().poll_with_interval(POLL))
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
        // Ids that are waiting leave one set after the other; only "done" holds each exactly once.
        let done: u64 = redis::cmd("SCARD")
            .arg(self.config.done_jobs_set())
            .query_async(&mut self.connection.clone())
            .await?;
        Ok(self.jobs.saturating_sub(done))
    }

    async fn stop(&self) {
        self.stop.ask();
    }
}

fn main() -> ExitCode {
    bench_harness::run::<Apalis>()
}
