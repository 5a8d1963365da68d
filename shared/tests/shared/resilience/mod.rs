//! `resilience`. Time is paused in all of these: it passes when everybody waits.

use libtest_mimic::Trial;

use std::future::Future;

mod breaker;
mod budget;
mod bulkhead;
mod deadline;
mod load;
mod rate_limit;
mod retry;

pub(crate) fn tests() -> Vec<Trial> {
    let tests = [
        deadline::tests(),
        retry::tests(),
        budget::tests(),
        breaker::tests(),
        bulkhead::tests(),
        rate_limit::tests(),
        load::tests(),
    ];
    tests.into_iter().flatten().collect()
}

/// A test on one thread whose clock stands still until all of its tasks wait for it.
fn paused<F, Fut>(name: &str, body: F) -> Trial
where
    F: FnOnce() -> Fut + Send + 'static,
    Fut: Future<Output = ()>,
{
    Trial::test(name, move || {
        let runtime = tokio::runtime::Builder::new_current_thread()
            .enable_all()
            .start_paused(true)
            .build()?;
        runtime.block_on(body());
        Ok(())
    })
}

/// A list of tests from the names of their functions.
macro_rules! paused_tests {
    ($($name:ident,)*) => {
        pub(super) fn tests() -> Vec<libtest_mimic::Trial> {
            vec![$(super::paused(
                concat!(module_path!(), "::", stringify!($name)).trim_start_matches("shared::"),
                $name,
            ),)*]
        }
    };
}
use paused_tests;
