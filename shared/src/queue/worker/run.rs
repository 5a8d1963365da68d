//! The worker's own task, which alone knows what is held, what runs and what waits.

use std::collections::HashMap;
use std::future::Future;
use std::pin::pin;
use std::sync::Arc;
use std::time::{Duration, Instant};

use tokio::sync::mpsc;
use tokio::task::{AbortHandle, Id, JoinError, JoinSet};
use tracing::Instrument;

use super::super::{Delivery, Nack, Receipt};
use super::fetch::{Batch, fetch};
use super::lanes::Lanes;
use super::observer::{JobInfo, Outcome};
use super::settle::{Sender, Settler, Verdict};
use super::{Failure, Handler, Report, Worker};

/// A message that was taken and not begun.
struct Taken {
    delivery: Delivery,
    until: Instant,
}

/// A handler that runs.
struct Running {
    receipt: Receipt,
    key: Option<String>,
    job: JobInfo,
    began: Instant,
    until: Instant,
    abort: AbortHandle,
}

struct Core<H> {
    handler: Arc<H>,
    worker: Worker,
    lanes: Lanes<Taken>,
    handlers: JoinSet<Result<(), Failure>>,
    running: HashMap<Id, Running>,
    verdicts: Sender,
    report: Report,
}

pub(super) async fn run<H: Handler>(
    worker: Worker,
    handler: Arc<H>,
    shutdown: impl Future<Output = ()>,
) -> Report {
    let (verdicts, to_settle) = mpsc::unbounded_channel();
    let settler = Settler {
        consumer: Arc::clone(&worker.consumer),
        observer: Arc::clone(&worker.observer),
        batch: worker.settle_batch,
        linger: worker.settle_linger,
    };
    let settling = Guarded(tokio::spawn(settler.run(to_settle)));
    let (room, wanted) = mpsc::channel(1);
    let (deliver, mut batches) = mpsc::channel(1);
    let fetching = Guarded(tokio::spawn(fetch(
        Arc::clone(&worker.consumer),
        Arc::clone(&worker.observer),
        worker.lease,
        wanted,
        deliver,
    )));
    let prefetch = worker.prefetch.unwrap_or(worker.concurrency);
    let mut heartbeat = tokio::time::interval(worker.lease / 3);
    heartbeat.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
    let mut core = Core {
        handler,
        lanes: Lanes::default(),
        handlers: JoinSet::new(),
        running: HashMap::new(),
        verdicts,
        report: Report::default(),
        worker,
    };
    let mut is_fetching = false;
    let mut shutdown = pin!(shutdown);
    loop {
        core.begin();
        // Half of the room at least: many small claims cost more than one large one.
        if !is_fetching && core.lanes.len() * 2 <= prefetch {
            let _ = room.try_send(prefetch - core.lanes.len() + core.free());
            is_fetching = true;
        }
        tokio::select! {
            () = &mut shutdown => break,
            Some(ended) = core.handlers.join_next_with_id(), if !core.running.is_empty() => {
                core.ended(ended);
                // Whatever else has ended by now, without a turn through everything for each.
                while let Some(ended) = core.handlers.try_join_next_with_id() {
                    core.ended(ended);
                }
            }
            Some(batch) = batches.recv() => {
                is_fetching = false;
                core.take(batch);
            }
            _ = heartbeat.tick() => core.heartbeat().await,
        }
    }
    // No longer asked for, but what is on its way was taken in our name.
    drop(room);
    core.worker.consumer.stop_receiving();
    core.release_taken();
    let drain = tokio::time::sleep(core.worker.drain);
    let mut drain = pin!(drain);
    let mut is_open = true;
    while !core.running.is_empty() || is_open {
        tokio::select! {
            Some(ended) = core.handlers.join_next_with_id(), if !core.running.is_empty() => {
                core.ended(ended);
                core.release_taken();
            }
            batch = batches.recv(), if is_open => match batch {
                Some(batch) => {
                    core.take(batch);
                    core.release_taken();
                }
                None => is_open = false,
            },
            _ = heartbeat.tick() => core.heartbeat().await,
            () = &mut drain, if !core.running.is_empty() => core.cut_off().await,
        }
    }
    let (consumer, observer, report) = (
        Arc::clone(&core.worker.consumer),
        Arc::clone(&core.worker.observer),
        core.report,
    );
    drop(core);
    fetching.join().await;
    settling.join().await;
    if let Err(error) = consumer.close().await {
        observer.broker_failed(&error);
    }
    report
}

impl<H: Handler> Core<H> {
    fn free(&self) -> usize {
        self.worker.concurrency.saturating_sub(self.running.len())
    }

    fn take(&mut self, (deliveries, until): Batch) {
        self.worker.observer.received(deliveries.len());
        for delivery in deliveries {
            let key = delivery.message.key.clone();
            let taken = Taken { delivery, until };
            self.lanes.push(key.as_deref(), taken);
        }
    }

    /// Begins as many as may run.
    fn begin(&mut self) {
        while self.free() > 0 {
            let Some(Taken { delivery, until }) = self.lanes.begin() else {
                return;
            };
            let job = JobInfo {
                id: delivery.message.id,
                attempt: delivery.attempt,
                first_enqueued_at: delivery.first_enqueued_at,
            };
            let (receipt, key) = (delivery.receipt.clone(), delivery.message.key.clone());
            if delivery.attempt > self.worker.max_attempts {
                let reason = format!(
                    "given up before attempt {} of {}: whoever made the last one ended without a \
                     verdict",
                    delivery.attempt, self.worker.max_attempts
                );
                self.verdict(Verdict::Dead(receipt, reason), until);
                self.count(&job, Outcome::Dead, Duration::ZERO);
                self.next_of(key.as_deref());
                continue;
            }
            let span = self.worker.observer.span(&delivery);
            let handler = Arc::clone(&self.handler);
            let work = async move { handler.handle(delivery).await };
            let abort = self.handlers.spawn(work.instrument(span));
            let running = Running {
                receipt,
                key,
                job,
                began: Instant::now(),
                until,
                abort: abort.clone(),
            };
            self.running.insert(abort.id(), running);
        }
    }

    /// A handler has come to its end, in whatever way.
    fn ended(&mut self, ended: Result<(Id, Result<(), Failure>), JoinError>) {
        let (id, result) = match ended {
            Ok((id, result)) => (id, result),
            Err(error) => {
                let id = error.id();
                match error.try_into_panic() {
                    Ok(panic) => (id, Err(Failure::retry(panic_text(&*panic)))),
                    // We aborted it, and forgot it then.
                    Err(_) => return,
                }
            }
        };
        let Some(running) = self.running.remove(&id) else {
            return;
        };
        let ran = running.began.elapsed();
        let attempt = running.job.attempt;
        let (verdict, outcome) = match result {
            Ok(()) => (Verdict::Ack(running.receipt), Outcome::Done),
            Err(Failure::Dead { error }) => (Verdict::Dead(running.receipt, error), Outcome::Dead),
            Err(Failure::Retry { error, .. }) if attempt >= self.worker.max_attempts => {
                let reason = format!("{error} (attempt {attempt}, the last)");
                (Verdict::Dead(running.receipt, reason), Outcome::Dead)
            }
            Err(Failure::Retry { error, after }) => {
                let nack = Nack {
                    receipt: running.receipt,
                    delay: after.unwrap_or_else(|| self.worker.backoff.after(attempt)),
                    error,
                };
                (Verdict::Nack(nack), Outcome::Retried)
            }
        };
        self.verdict(verdict, running.until);
        self.count(&running.job, outcome, ran);
        match outcome {
            Outcome::Retried => self.give_back_behind(running.key.as_deref()),
            _ => self.next_of(running.key.as_deref()),
        }
    }

    fn verdict(&self, verdict: Verdict, until: Instant) {
        // The settler ends after us.
        let _ = self.verdicts.send((verdict, until));
    }

    fn count(&mut self, job: &JobInfo, outcome: Outcome, ran: Duration) {
        match outcome {
            Outcome::Done => self.report.done += 1,
            Outcome::Retried => self.report.retried += 1,
            Outcome::Dead => self.report.dead += 1,
            Outcome::Lost => self.report.lost += 1,
            Outcome::Released => self.report.released += 1,
        }
        self.worker.observer.finished(job, outcome, ran);
    }

    fn next_of(&mut self, key: Option<&str>) {
        if let Some(key) = key {
            self.lanes.done(key);
        }
    }

    fn give_back_behind(&mut self, key: Option<&str>) {
        for behind in key.map(|key| self.lanes.failed(key)).unwrap_or_default() {
            self.verdict(Verdict::Release(behind.delivery.receipt), behind.until);
        }
    }

    fn release_taken(&mut self) {
        for taken in self.lanes.clear() {
            self.report.released += 1;
            self.verdict(Verdict::Release(taken.delivery.receipt), taken.until);
        }
    }

    /// Extends what has been held for a third of its lease, and lets go what is lost.
    async fn heartbeat(&mut self) {
        let lease = self.worker.lease;
        let soon = Instant::now() + lease * 2 / 3;
        let mut held = Vec::new();
        let taken = self.lanes.iter_mut();
        held.extend(
            taken
                .filter(|t| t.until <= soon)
                .map(|t| t.delivery.receipt.clone()),
        );
        let running = self.running.values();
        held.extend(
            running
                .filter(|r| r.until <= soon)
                .map(|r| r.receipt.clone()),
        );
        if held.is_empty() {
            return;
        }
        let asked = Instant::now();
        // A broker that does not answer must not keep us from seeing that leases run out.
        let answer = tokio::time::timeout(lease / 3, self.worker.consumer.extend(&held, lease));
        let lost: Vec<Receipt> = match answer.await {
            Ok(Ok(settled)) => {
                let until = asked + lease;
                let taken = self.lanes.iter_mut().map(|taken| &mut taken.until);
                let running = self.running.values_mut().map(|running| &mut running.until);
                // Those that were not asked for have longer.
                for held in taken.chain(running).filter(|held| **held <= soon) {
                    *held = until;
                }
                settled.lost
            }
            failed => {
                if let Ok(Err(error)) = &failed {
                    self.worker.observer.broker_failed(error);
                }
                tracing::warn!("leases could not be extended");
                Vec::new()
            }
        };
        let now = Instant::now();
        let is_lost = |receipt: &Receipt, until: Instant| until <= now || lost.contains(receipt);
        let gone = self
            .lanes
            .remove(|taken| is_lost(&taken.delivery.receipt, taken.until));
        self.report.lost += gone.len() as u64;
        let running = self.running.iter();
        let gone: Vec<Id> = running
            .filter(|(_, running)| is_lost(&running.receipt, running.until))
            .map(|(id, _)| *id)
            .collect();
        for id in gone {
            if let Some(running) = self.running.remove(&id) {
                running.abort.abort();
                tracing::warn!(message_id = %running.job.id, "lost its lease while it ran");
                self.count(&running.job, Outcome::Lost, running.began.elapsed());
                self.give_back_behind(running.key.as_deref());
            }
        }
    }

    /// The time to drain is over: what still runs is dropped, and given back when it has ended.
    async fn cut_off(&mut self) {
        for running in self.running.values() {
            running.abort.abort();
        }
        while let Some(ended) = self.handlers.join_next_with_id().await {
            match ended {
                // Not before it is gone: another must not run beside it.
                Err(error) if error.is_cancelled() => {
                    if let Some(running) = self.running.remove(&error.id()) {
                        self.verdict(Verdict::Release(running.receipt), running.until);
                        self.count(&running.job, Outcome::Released, running.began.elapsed());
                    }
                }
                // It was quicker.
                ended => self.ended(ended),
            }
        }
    }
}

fn panic_text(panic: &(dyn std::any::Any + Send)) -> String {
    let text = panic
        .downcast_ref::<&str>()
        .map(|text| (*text).to_owned())
        .or_else(|| panic.downcast_ref::<String>().cloned());
    format!("the handler panicked: {}", text.unwrap_or_default())
}

/// A task that does not outlive us if we are dropped.
struct Guarded(tokio::task::JoinHandle<()>);

impl Guarded {
    async fn join(mut self) {
        let _ = (&mut self.0).await;
    }
}

impl Drop for Guarded {
    fn drop(&mut self) {
        self.0.abort();
    }
}
