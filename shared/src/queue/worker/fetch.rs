//! The task that asks the broker for more, one question at a time.

use std::sync::Arc;
use std::time::{Duration, Instant};

use tokio::sync::mpsc;

use super::super::{Backoff, Consumer, Delivery, QueueError};
use super::observer::Observer;

/// How long one `receive` waits at most. Less for short leases, see `receive`.
const LONG_POLL: Duration = Duration::from_secs(5);

/// A batch, and until when its leases last at least.
pub(super) type Batch = (Vec<Delivery>, Instant);

/// Receives as many as are asked for, until nobody asks any more.
pub(super) async fn fetch(
    consumer: Arc<dyn Consumer>,
    observer: Arc<dyn Observer>,
    lease: Duration,
    mut wanted: mpsc::Receiver<usize>,
    deliver: mpsc::Sender<Batch>,
) {
    let pause = Backoff::exponential(Duration::from_millis(50), Duration::from_secs(5));
    while let Some(max) = wanted.recv().await {
        let mut failures = 0;
        let batch = loop {
            match receive(&consumer, max, lease).await {
                Ok((deliveries, until)) if !deliveries.is_empty() => break (deliveries, until),
                Ok(_) => {
                    failures = 0;
                    if wanted.is_closed() {
                        return;
                    }
                }
                Err(error) => {
                    observer.broker_failed(&error);
                    failures += 1;
                    tracing::warn!(%error, failures, "cannot receive");
                    tokio::select! {
                        () = tokio::time::sleep(pause.after(failures)) => {}
                        // Capacity is one and we are asked once at a time: this is the end.
                        _ = wanted.recv() => return,
                    }
                }
            }
        };
        if deliver.send(batch).await.is_err() {
            return;
        }
    }
}

async fn receive(
    consumer: &Arc<dyn Consumer>,
    max: usize,
    lease: Duration,
) -> Result<Batch, QueueError> {
    // When a message was taken during the wait is not known, and to believe in a lease that has
    // ended is dangerous. So its end is reckoned from before the call, and the wait is short.
    let began = Instant::now();
    let wait = LONG_POLL.min(lease / 4);
    let deliveries = consumer.receive(max, lease, wait).await?;
    Ok((deliveries, began + lease))
}
