//! `outbox`: nothing is lost, nothing is told that was not committed, keys stay in order, and an
//! event that nobody takes blocks its key alone.

mod crash;
mod failures;
mod housekeeping;
mod late_commits;
mod order;
pub(crate) mod staging;
mod support;
mod wake;

pub(crate) fn tests() -> Vec<libtest_mimic::Trial> {
    [
        staging::tests(),
        late_commits::tests(),
        order::tests(),
        failures::tests(),
        crash::tests(),
        wake::tests(),
        housekeeping::tests(),
    ]
    .into_iter()
    .flatten()
    .collect()
}
