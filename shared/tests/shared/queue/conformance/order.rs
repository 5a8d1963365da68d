//! Order by key, with several workers that prefetch and acknowledge in batches.

use std::collections::BTreeMap;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use shared::queue::worker::{Failure, Worker};
use shared::queue::{Backoff, Consumer, Delivery, KeyOrder, Message, Queue};

use super::lab::{GROUP, LIMIT};
use super::{Lab, list};
use crate::support::Outcome;

list![
    a_key_is_in_order_over_four_consumers,
    a_failed_message_holds_back_its_own_key_only,
];

pub(crate) const KEYS: usize = 8;
pub(crate) const EACH: usize = 12;

/// What happened to each key, and what should not have.
#[derive(Default)]
pub(crate) struct Journal {
    keys: BTreeMap<String, Key>,
    pub(crate) violations: Vec<String>,
}

#[derive(Default)]
struct Key {
    running: Option<usize>,
    /// All below were done.
    next: usize,
}

impl Journal {
    fn begins(&mut self, key: &str, number: usize) {
        let state = self.keys.entry(key.to_owned()).or_default();
        if let Some(running) = state.running {
            let text = format!("{key}: {number} began while {running} ran");
            self.violations.push(text);
        }
        // Again is no violation: delivery is at least once.
        if number > state.next {
            let text = format!("{key}: {number} began before {} was done", state.next);
            self.violations.push(text);
        }
        state.running = Some(number);
    }

    fn ends(&mut self, key: &str, number: usize, is_done: bool) {
        let state = self.keys.entry(key.to_owned()).or_default();
        state.running = None;
        if is_done && number == state.next {
            state.next += 1;
        }
    }

    /// How many were done, of all keys.
    pub(crate) fn done(&self) -> usize {
        self.keys.values().map(|key| key.next).sum()
    }
}

/// `EACH` messages for each of `KEYS` keys, interleaved.
pub(crate) fn messages() -> Vec<Message> {
    let number = |n: usize| Message::new((n / KEYS).to_string()).key(format!("key-{}", n % KEYS));
    (0..KEYS * EACH).map(number).collect()
}

/// Handles what there is with these consumers, each in a worker of its own, until all was done or
/// `until` says so. `fails` says which fail at their first attempt.
pub(crate) async fn play(
    consumers: Vec<Arc<dyn Consumer>>,
    lease: Duration,
    retry: Duration,
    fails: fn(usize) -> bool,
) -> Arc<Mutex<Journal>> {
    let journal = Arc::new(Mutex::new(Journal::default()));
    let is_over = Arc::new(AtomicBool::new(false));
    let workers = consumers.into_iter().map(|consumer| {
        let (journal, is_over) = (Arc::clone(&journal), Arc::clone(&is_over));
        let handler = {
            let journal = Arc::clone(&journal);
            move |delivery: Delivery| {
                let journal = Arc::clone(&journal);
                async move {
                    let key = delivery.message.key.clone().unwrap_or_default();
                    let text = String::from_utf8_lossy(&delivery.message.payload).into_owned();
                    let number: usize = text.parse().map_err(Failure::dead)?;
                    journal.lock().unwrap().begins(&key, number);
                    // Long enough for another to run into it.
                    tokio::time::sleep(Duration::from_millis(2)).await;
                    let is_done = delivery.attempt > 1 || !fails(number);
                    journal.lock().unwrap().ends(&key, number, is_done);
                    match is_done {
                        true => Ok(()),
                        false => Err(Failure::retry("as planned")),
                    }
                }
            }
        };
        let stop = async move {
            let over = || {
                let journal = journal.lock().unwrap();
                journal.done() == KEYS * EACH || !journal.violations.is_empty()
            };
            while !over() && !is_over.load(Ordering::Relaxed) {
                tokio::time::sleep(Duration::from_millis(5)).await;
            }
        };
        let worker = Worker::new(consumer)
            .concurrency(4)
            .prefetch(16)
            .lease(lease)
            .backoff(Backoff::exponential(retry, retry).without_jitter());
        tokio::spawn(worker.run(handler, stop))
    });
    let workers: Vec<_> = workers.collect();
    let all = async {
        for worker in workers {
            worker.await.unwrap();
        }
    };
    if tokio::time::timeout(LIMIT, all).await.is_err() {
        is_over.store(true, Ordering::Relaxed);
        let done = journal.lock().unwrap().done();
        panic!("only {done} of {} were done in {LIMIT:?}", KEYS * EACH);
    }
    journal
}

async fn consumers(lab: &Lab) -> Vec<Arc<dyn Consumer>> {
    let mut all = Vec::new();
    for _ in 0..4 {
        let (_broker, queue) = lab.another().await;
        all.push(consumer(&queue, lab).await);
    }
    all
}

async fn consumer(queue: &Arc<dyn Queue>, lab: &Lab) -> Arc<dyn Consumer> {
    queue.consumer(GROUP, &lab.options()).await.unwrap()
}

async fn in_order(lab: &Lab, fails: fn(usize) -> bool) {
    let consumers = consumers(lab).await;
    lab.publish(&messages()).await;
    let retry = lab.can.delay_step.max(Duration::from_millis(100));
    let journal = play(consumers, lab.fixture.lease() * 50, retry, fails).await;
    let journal = journal.lock().unwrap();
    assert!(journal.violations.is_empty(), "{:#?}", journal.violations);
}

async fn a_key_is_in_order_over_four_consumers(lab: &Lab) -> Outcome {
    let row = "order by key, four consumers";
    if lab.can.key_order == KeyOrder::None {
        return Err(lab.declared(row, "keep the order of a key"));
    }
    in_order(lab, |_| false).await;
    lab.measured(row, "kept");
    Ok(())
}

async fn a_failed_message_holds_back_its_own_key_only(lab: &Lab) -> Outcome {
    let row = "order by key, over a retry";
    if lab.can.key_order < KeyOrder::Strict {
        return Err(lab.declared(row, "keep the order of a key over a retry"));
    }
    // In `play` as well: all others are done while the failed one waits for its time.
    in_order(lab, |number| number % 5 == 2).await;
    let consumer = lab.consumer().await;
    let [first, second, other] = [("a", "a1"), ("a", "a2"), ("b", "b1")]
        .map(|(key, payload)| Message::new(payload).key(key));
    lab.publish(&[first, second, other]).await;
    let delay = lab.can.delay_step.max(Duration::from_millis(500));
    let mut failed = false;
    let mut came = Vec::new();
    while came.last().is_none_or(|last| last != "a2") {
        let delivery = lab.some(&consumer, 1, LIMIT).await.remove(0);
        let payload = String::from_utf8_lossy(&delivery.message.payload).into_owned();
        if payload == "a1" && !failed {
            failed = true;
            let nack = shared::queue::Nack {
                receipt: delivery.receipt,
                delay,
                error: "not now".to_owned(),
            };
            let _ = consumer.nack(&[nack]).await.unwrap();
            continue;
        }
        let _ = consumer.ack(&[delivery.receipt]).await.unwrap();
        came.push(payload);
    }
    assert_eq!(came, ["b1", "a1", "a2"]);
    lab.measured(row, "kept, other keys go on");
    Ok(())
}
