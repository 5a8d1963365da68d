//! How fast the queue is on PostgreSQL, on this machine: a burn-down, then latency at a fixed rate.
//!
//! ```sh
//! cargo run -p shared --example queue_speed -- --jobs 100000 --rate 1000 --seconds 10
//! ```
//!
//! It starts a private server with durable settings, or uses `DATABASE_URL`. For comparisons with
//! other queues, and with an optimised build, there is `scripts/bench`; this is for whoever changes
//! a statement and wants to know in a minute whether that was good.

use std::collections::HashMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::{Duration, Instant};

use shared::queue::worker::Worker;
use shared::queue::{ConnectOptions, Consumer, ConsumerOptions, Delivery, Message, Queue, connect};
use shared::services::{Options, Postgres};
use sqlx::{PgPool, Row};
use tokio::sync::Notify;

type Error = Box<dyn std::error::Error>;

#[tokio::main]
async fn main() -> Result<(), Error> {
    let given = arguments()?;
    let number = |name: &str, default: usize| given.get(name).copied().unwrap_or(default);
    let options = Options::from_env()
        .setting("fsync", "on")
        .setting("synchronous_commit", "on")
        .setting("full_page_writes", "on")
        .setting("max_wal_size", "4GB")
        .setting("shared_buffers", "256MB");
    let postgres = Postgres::find_or_start(&options).await?;
    println!("{}", postgres.describe());
    let schema = postgres.fresh_schema().await?;
    let admin = PgPool::connect_lazy_with(postgres.admin_options());
    let broker = connect(
        &schema.url(&postgres.upstream()),
        &ConnectOptions::default(),
    )
    .await?;
    println!("{}", broker.capabilities().durability);
    let queue = broker.queue("speed", &["workers"]).await?;

    let bench = Bench {
        queue,
        admin,
        role: schema.role().to_owned(),
        payload: vec![b'x'; number("bytes", 100)],
        concurrency: number("concurrency", 64),
        prefetch: number("prefetch", 1_000),
        linger: Duration::from_millis(number("linger-ms", 2) as u64),
    };
    let jobs = number("jobs", 100_000);
    if jobs > 0 {
        bench.burn_down(jobs).await?;
    }
    let rate = number("rate", 1_000);
    if rate > 0 {
        bench.latency(rate, number("seconds", 10)).await?;
    }
    broker.close().await;
    bench.admin.close().await;
    schema.drop().await?;
    postgres.close().await?;
    Ok(())
}

struct Bench {
    queue: Arc<dyn Queue>,
    admin: PgPool,
    role: String,
    payload: Vec<u8>,
    concurrency: usize,
    prefetch: usize,
    linger: Duration,
}

impl Bench {
    async fn burn_down(&self, jobs: usize) -> Result<(), Error> {
        let before = self.wal().await?;
        let began = Instant::now();
        let messages: Vec<_> = (0..jobs)
            .map(|_| Message::new(self.payload.clone()))
            .collect();
        self.queue.publish(&messages).await?;
        let published = began.elapsed();
        let stored = self.wal().await?;
        let done = Arc::new(AtomicUsize::new(0));
        let all = Arc::new(Notify::new());
        let began = Instant::now();
        let handler = {
            let (done, all) = (Arc::clone(&done), Arc::clone(&all));
            move |_: Delivery| {
                if done.fetch_add(1, Ordering::Relaxed) + 1 == jobs {
                    all.notify_one();
                }
                std::future::ready(Ok(()))
            }
        };
        // Until the last acknowledgement, and not until the last handler.
        let worker = self.worker(self.consumer().await?);
        let report = worker.run(handler, all.notified()).await;
        let burnt = began.elapsed();
        let after = self.wal().await?;
        println!(
            "burn-down: {jobs} jobs at {}: {:.0} jobs/s; published {:.0} a second",
            self.concurrency,
            jobs as f64 / burnt.as_secs_f64(),
            jobs as f64 / published.as_secs_f64(),
        );
        println!(
            "  WAL {:.0} bytes a job ({:.0} to publish, {:.0} to claim and acknowledge)",
            (after - before) / jobs as f64,
            (stored - before) / jobs as f64,
            (after - stored) / jobs as f64,
        );
        println!("  dead rows {}; {report:?}", self.dead_rows().await?);
        Ok(())
    }

    /// From the time at which a message should have been sent, so that a queue that makes its
    /// publisher wait does not look fast ("coordinated omission").
    async fn latency(&self, rate: usize, seconds: usize) -> Result<(), Error> {
        let jobs = rate * seconds;
        let (stop, stopped) = tokio::sync::oneshot::channel::<()>();
        let (tell, mut told) = tokio::sync::mpsc::unbounded_channel();
        let epoch = Instant::now() + Duration::from_millis(500);
        let handler = move |delivery: Delivery| {
            let number: usize = String::from_utf8_lossy(&delivery.message.payload)
                .parse()
                .unwrap_or_default();
            let intended = epoch + Duration::from_secs_f64(number as f64 / rate as f64);
            let _ = tell.send(intended.elapsed());
            std::future::ready(Ok(()))
        };
        let worker = self
            .worker(self.consumer().await?)
            .settle(500, Duration::ZERO);
        let working = tokio::spawn(worker.run(handler, async {
            let _ = stopped.await;
        }));
        let before = self.wal().await?;
        for publisher in 0..8 {
            let queue = Arc::clone(&self.queue);
            tokio::spawn(async move {
                for number in (publisher..jobs).step_by(8) {
                    let at = epoch + Duration::from_secs_f64(number as f64 / rate as f64);
                    tokio::time::sleep_until(at.into()).await;
                    if let Err(error) = queue.publish(&[Message::new(number.to_string())]).await {
                        eprintln!("{error}");
                    }
                }
            });
        }
        let mut latencies = Vec::with_capacity(jobs);
        while latencies.len() < jobs {
            let latency = tokio::time::timeout(Duration::from_secs(30), told.recv()).await?;
            latencies.push(latency.ok_or("the worker ended")?);
        }
        let wal = (self.wal().await? - before) / jobs as f64;
        let _ = stop.send(());
        let report = working.await?;
        latencies.sort_unstable();
        let ms = |share: f64| {
            let at = ((latencies.len() - 1) as f64 * share) as usize;
            latencies[at].as_secs_f64() * 1e3
        };
        println!(
            "latency: {rate} jobs/s for {seconds} s: p50 {:.1} ms, p95 {:.1}, p99 {:.1}, max {:.1}; \
             WAL {wal:.0} bytes a job; {report:?}",
            ms(0.5),
            ms(0.95),
            ms(0.99),
            ms(1.0),
        );
        Ok(())
    }

    async fn consumer(&self) -> Result<Arc<dyn Consumer>, Error> {
        let options = ConsumerOptions::default();
        Ok(self.queue.consumer("workers", &options).await?)
    }

    fn worker(&self, consumer: Arc<dyn Consumer>) -> Worker {
        Worker::new(consumer)
            .concurrency(self.concurrency)
            .prefetch(self.prefetch)
            .settle(1_000, self.linger)
    }

    /// Bytes of the log so far.
    async fn wal(&self) -> Result<f64, Error> {
        let sql = "select (pg_current_wal_lsn() - '0/0')::float8";
        Ok(sqlx::query_scalar(sql).fetch_one(&self.admin).await?)
    }

    async fn dead_rows(&self) -> Result<i64, Error> {
        let sql = "select coalesce(sum(n_dead_tup), 0)::int8 from pg_stat_all_tables \
                   where schemaname = $1 and relname like 'queue%'";
        let row = sqlx::query(sql)
            .bind(&self.role)
            .fetch_one(&self.admin)
            .await?;
        Ok(row.try_get(0)?)
    }
}

/// `--name number` pairs.
fn arguments() -> Result<HashMap<String, usize>, Error> {
    let words: Vec<_> = std::env::args().skip(1).collect();
    let mut given = HashMap::new();
    for pair in words.chunks(2) {
        let [name, value] = pair else {
            return Err(format!("{} needs a number", pair[0]).into());
        };
        let name = name.strip_prefix("--").ok_or("options begin with --")?;
        let known = [
            "jobs",
            "rate",
            "seconds",
            "bytes",
            "concurrency",
            "prefetch",
            "linger-ms",
        ];
        if !known.contains(&name) {
            return Err(format!("there is no option {name}; there are {known:?}").into());
        }
        given.insert(name.to_owned(), value.parse()?);
    }
    Ok(given)
}
