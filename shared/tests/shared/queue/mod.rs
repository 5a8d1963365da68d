//! The queue: one conformance suite for every broker, and what each has beyond it.
//!
//! A backend adds a module with its fixture here and its `conformance::trials(…)` to `tests`.

pub(crate) mod conformance;
#[cfg(any(feature = "kafka", feature = "sqs"))]
mod failing;
#[cfg(feature = "kafka")]
mod kafka;
mod postgres;
mod rabbitmq;
mod redis;
#[cfg(feature = "sqs")]
mod sqs;
pub(crate) mod table;
mod traps;

use shared::queue::{QueueError, Settled};

pub(crate) fn tests() -> Vec<libtest_mimic::Trial> {
    let tests = [
        #[cfg(feature = "kafka")]
        kafka::tests(),
        postgres::tests(),
        rabbitmq::tests(),
        redis::tests(),
        #[cfg(feature = "sqs")]
        sqs::tests(),
    ];
    tests.into_iter().flatten().collect()
}

/// That every receipt was settled, and none had lost its lease.
#[track_caller]
fn nothing_lost(settled: Result<Settled, QueueError>) {
    let lost = settled.unwrap().lost;
    assert!(lost.is_empty(), "{lost:?}");
}
