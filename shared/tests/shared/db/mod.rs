//! `db`: no wait without an end, migrations, and transactions that are dropped anywhere.

mod dropped;
mod migrations;
mod pool;
mod support;
mod transactions;

pub(crate) fn tests() -> Vec<libtest_mimic::Trial> {
    [
        pool::tests(),
        dropped::tests(),
        transactions::tests(),
        migrations::tests(),
    ]
    .into_iter()
    .flatten()
    .collect()
}
