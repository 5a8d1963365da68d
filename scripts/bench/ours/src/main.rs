//! `shared::queue` with its worker, on whichever broker the URL names.
//!
//! PostgreSQL: claims and batches of acknowledgements are transactions of their own, so the server's
//! `synchronous_commit` holds for both. Redis: as durable as the server's `appendfsync`.

use std::process::ExitCode;
use std::sync::Arc;

use bench_harness::{CHUNK, CONNECTIONS, Contestant, Error, Flags, Meter, Payload, Stop};
use shared::queue::worker::{Failure, Worker};
use shared::queue::{ConnectOptions, ConsumerOptions, Delivery, Message, Queue, connect};

const NAME: &str = "bench";

/// Taken ahead, as many as the largest of the peers' batches (apart from their own defaults, all
/// peers are given theirs): handlers that do nothing are worth a prefetch that real ones are not.
const PREFETCH: usize = 500;

struct Ours {
    queue: Arc<dyn Queue>,
    meter: Meter,
    concurrency: usize,
    stop: Stop,
}

impl Contestant for Ours {
    async fn connect(flags: &Flags, meter: Meter) -> Result<Self, Error> {
        let options = ConnectOptions::default().max_connections(CONNECTIONS);
        let broker = connect(&flags.url, &options).await?;
        Ok(Self {
            queue: broker.queue(NAME, &[NAME]).await?,
            meter,
            concurrency: flags.concurrency,
            stop: Stop::new(),
        })
    }

    async fn publish_all(&self, jobs: Vec<Payload>) -> Result<(), Error> {
        for chunk in jobs.chunks(CHUNK) {
            let messages: Result<Vec<Message>, _> = chunk.iter().map(Message::json).collect();
            self.queue.publish(&messages?).await?;
        }
        Ok(())
    }

    async fn publish(&self, job: Payload) -> Result<(), Error> {
        self.queue.publish(&[Message::json(&job)?]).await?;
        Ok(())
    }

    async fn work(self: Arc<Self>) -> Result<(), Error> {
        let options = ConsumerOptions::default();
        let consumer = self.queue.consumer(NAME, &options).await?;
        let meter = self.meter.clone();
        let handler = move |delivery: Delivery| {
            let meter = meter.clone();
            async move {
                let job: Payload = delivery.message.read_json().map_err(Failure::dead)?;
                meter.done(job.sequence);
                Ok(())
            }
        };
        Worker::new(consumer)
            .concurrency(self.concurrency)
            .prefetch(PREFETCH)
            .run(handler, self.stop.asked())
            .await;
        Ok(())
    }

    async fn unfinished(&self) -> Result<u64, Error> {
        let depth = self.queue.depth(NAME).await?;
        // What a broker cannot tell is `None`, and must not pass for nothing.
        let parts = [depth.ready, depth.delayed, depth.leased];
        let sum = parts.into_iter().sum::<Option<u64>>();
        sum.ok_or_else(|| "this broker cannot tell how much is left".into())
    }

    async fn stop(&self) {
        self.stop.ask();
    }
}

fn main() -> ExitCode {
    bench_harness::run::<Ours>()
}
