//! The queue: one conformance suite for every broker, and what each has beyond it.
//!
//! A backend adds a module with its fixture here and its `conformance::trials(…)` to `tests`.

pub(crate) mod conformance;
mod postgres;
mod rabbitmq;
mod redis;
pub(crate) mod table;
mod traps;

pub(crate) fn tests() -> Vec<libtest_mimic::Trial> {
    [postgres::tests(), rabbitmq::tests(), redis::tests()]
        .into_iter()
        .flatten()
        .collect()
}
