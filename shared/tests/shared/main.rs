//! The crate's one integration test. Test names are promises.
//!
//! Tests that need a server and find none are skipped with the reason; `KATA_REQUIRE_SERVICES=1`
//! turns that into a failure. The same program plays the processes that are killed: see `role`.

#![expect(
    clippy::unwrap_used,
    reason = "a test; the lint's exception for tests knows only those of the built-in harness"
)]

mod db;
mod download;
mod guard;
mod http;
mod idempotency;
mod kills;
mod mariadb;
mod models;
mod named;
mod outbox;
mod postgres;
mod queue;
mod rabbitmq;
mod rabbitmq_node;
mod redis;
mod resilience;
mod role;
mod server;
mod standby;
mod support;
mod telemetry;
mod telemetry_metrics;
mod telemetry_shop;
mod telemetry_traces;

fn main() -> std::process::ExitCode {
    if let Some(role) = std::env::var_os(role::VARIABLE) {
        return role::play(&role.to_string_lossy());
    }
    let arguments = libtest_mimic::Arguments::from_args();
    let tests = [
        guard::tests(),
        postgres::tests(),
        standby::tests(),
        named::tests(),
        download::tests(),
        mariadb::tests(),
        redis::tests(),
        db::tests(),
        http::tests(),
        idempotency::tests(),
        kills::tests(),
        models::tests(),
        outbox::tests(),
        queue::tests(),
        resilience::tests(),
        telemetry::tests(),
        telemetry_metrics::tests(),
        telemetry_traces::tests(),
    ];
    let tests = tests.into_iter().flatten().collect();
    let conclusion = libtest_mimic::run(&arguments, tests);
    match queue::table::settle() {
        Ok(()) => conclusion.exit_code(),
        Err(difference) => {
            eprintln!("{difference}");
            std::process::ExitCode::FAILURE
        }
    }
}
