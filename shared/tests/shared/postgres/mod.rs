//! `services::Postgres`, private: started, broken, restarted, and never left behind.

mod owners;
mod places;
mod running;
mod support;

pub(crate) use owners::killed_owner_leaves_nothing;
pub(crate) use support::{empty_folder, execute, folder, options, query};

pub(crate) fn tests() -> Vec<libtest_mimic::Trial> {
    [running::tests(), owners::tests(), places::tests()]
        .into_iter()
        .flatten()
        .collect()
}
