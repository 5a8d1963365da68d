//! The two kinds of load.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::{Duration, Instant};

use tokio::task::JoinHandle;

use crate::flags::WARM_UP_SECONDS;
use crate::report::{self, Latency, Outcome, Status};
use crate::{Contestant, Error, Flags, Meter, Payload};

/// Asking more often would take the processor from the worker.
const ASK_EVERY: Duration = Duration::from_millis(5);

/// How long a worker may take to end.
const STOP_LIMIT: Duration = Duration::from_secs(10);

/// Enqueues all jobs, then lets the worker do them. The clock stops when the store shows none that
/// is unfinished: a queue that acknowledges late has not finished when its last handler has.
pub(crate) async fn burn_down<C: Contestant>(flags: &Flags) -> Result<Outcome, Error> {
    let meter = Meter::new(flags.jobs);
    let contestant = Arc::new(C::connect(flags, meter.clone()).await?);
    report::event("ready");

    let jobs = (0..flags.jobs).map(Payload::new).collect();
    let began = Instant::now();
    tokio::time::timeout(flags.limit, contestant.publish_all(jobs))
        .await
        .map_err(|_| format!("enqueueing took longer than {:?}", flags.limit))??;
    let enqueue_seconds = began.elapsed().as_secs_f64();
    report::event("enqueued");

    let began = Instant::now();
    let mut worker = tokio::spawn(Arc::clone(&contestant).work());
    let settled = async {
        meter.all_done().await;
        while contestant.unfinished().await? > 0 {
            tokio::time::sleep(ASK_EVERY).await;
        }
        Ok::<_, Error>(())
    };
    let status = watch(&mut worker, flags.limit, settled).await?;
    let seconds = began.elapsed().as_secs_f64();
    report::event("settled");
    Ok(Outcome {
        left: left(&*contestant, &status).await,
        status,
        jobs: flags.jobs,
        done: meter.count(),
        again: meter.again(),
        seconds,
        enqueue_seconds: Some(enqueue_seconds),
        latency: None,
        unclean_stop: end(&*contestant, worker).await,
    })
}

/// Offers jobs at a fixed rate, whatever becomes of them: the next one is sent when it is due, and
/// its lateness counts from then, even if sending it had to wait. A queue that stalls for a second
/// is charged for every job that was due in that second ("coordinated omission").
pub(crate) async fn latency<C: Contestant>(flags: &Flags) -> Result<Outcome, Error> {
    let jobs = flags.all_jobs();
    let meter = Meter::new(jobs);
    let contestant = Arc::new(C::connect(flags, meter.clone()).await?);
    let mut worker = tokio::spawn(Arc::clone(&contestant).work());
    report::event("ready");

    // From the meter's epoch; the worker gets half a second to come up.
    let start = Duration::from_nanos(meter.now()) + Duration::from_millis(500);
    let rate = flags.rate as f64;
    let due = move |sequence: usize| start + Duration::from_secs_f64(sequence as f64 / rate);
    let refused = Arc::new(AtomicUsize::new(0));
    let sender = {
        let (contestant, meter, refused) =
            (Arc::clone(&contestant), meter.clone(), Arc::clone(&refused));
        let handle = tokio::runtime::Handle::current();
        // On a thread of its own: Tokio's timer is a millisecond coarse, and a busy runtime would
        // slow down the very load that it is measured by.
        tokio::task::spawn_blocking(move || {
            for sequence in 0..jobs {
                sleep_until(meter.epoch() + due(sequence));
                let (contestant, refused) = (Arc::clone(&contestant), Arc::clone(&refused));
                handle.spawn(async move {
                    if contestant.publish(Payload::new(sequence)).await.is_err() {
                        refused.fetch_add(1, Ordering::Relaxed);
                    }
                });
            }
            jobs - meter.count()
        })
    };
    let sent = async {
        let behind = sender.await?;
        meter.all_done().await;
        Ok::<_, Error>(behind)
    };
    let offered = due(jobs) - start;
    let status = watch(&mut worker, offered + flags.limit, sent).await?;
    let end_ns = meter.now();
    let seconds = Duration::from_nanos(end_ns)
        .saturating_sub(start)
        .as_secs_f64();
    report::event("settled");
    Ok(Outcome {
        left: left(&*contestant, &status).await,
        jobs,
        done: meter.count(),
        again: meter.again(),
        seconds,
        enqueue_seconds: None,
        latency: Some(Latency {
            rate: flags.rate,
            sample: meter.lateness(flags.rate * WARM_UP_SECONDS, due, end_ns),
            refused: refused.load(Ordering::Relaxed),
        }),
        status,
        unclean_stop: end(&*contestant, worker).await,
    })
}

/// Waits for the work, unless the worker dies or time is up first.
async fn watch<T>(
    worker: &mut JoinHandle<Result<(), Error>>,
    limit: Duration,
    work: impl Future<Output = Result<T, Error>>,
) -> Result<Status, Error> {
    tokio::select! {
        done = work => done.map(|_| Status::Finished),
        ended = worker => Ok(Status::Died(match ended {
            Ok(Ok(())) => "the worker returned by itself".to_owned(),
            Ok(Err(error)) => error.to_string(),
            Err(panic) => panic.to_string(),
        })),
        () = tokio::time::sleep(limit) => Ok(Status::Stalled),
    }
}

async fn left<C: Contestant>(contestant: &C, status: &Status) -> Option<u64> {
    match status {
        Status::Finished => Some(0),
        _ => tokio::time::timeout(STOP_LIMIT, contestant.unfinished())
            .await
            .ok()?
            .ok(),
    }
}

/// Whether the worker did not end when it was asked to.
async fn end<C: Contestant>(contestant: &C, worker: JoinHandle<Result<(), Error>>) -> bool {
    if worker.is_finished() {
        return false;
    }
    let stop = async {
        contestant.stop().await;
        let _ = worker.await;
    };
    tokio::time::timeout(STOP_LIMIT, stop).await.is_err()
}

fn sleep_until(moment: Instant) {
    std::thread::sleep(moment.saturating_duration_since(Instant::now()));
}
