//! What every program of the benchmark shares, so that all are measured by the same code: the
//! flags, the payload, the offered load, the clock, and the lines that the driver reads.
//!
//! A program implements [`Contestant`] for one queue and ends with [`run`]. It prints one JSON
//! object a line: `ready`, then (burn-down only) `enqueued`, then exactly one `result`, or `failed`
//! with the reason. The driver looks at the server whenever such a line arrives.

mod flags;
mod load;
mod meter;
mod report;
mod stop;

use std::future::Future;
use std::process::ExitCode;
use std::sync::Arc;

pub use flags::{Flags, Mode};
pub use meter::{Meter, Payload};
pub use stop::Stop;

/// Connections to PostgreSQL that each program may open: one for each handler, since some peers
/// acknowledge every job by itself, and only commits side by side share a flush of the log.
pub const CONNECTIONS: u32 = 64;

/// Jobs sent at a time where a peer's way to enqueue many takes any number of them.
pub const CHUNK: usize = 10_000;

/// Any error: a program of the benchmark can only report it.
pub type Error = Box<dyn std::error::Error + Send + Sync>;

/// One queue under measurement.
pub trait Contestant: Sized + Send + Sync + 'static {
    /// Connects and makes tables or whatever the store needs. Not measured.
    ///
    /// # Errors
    /// What keeps it from being ready.
    fn connect(flags: &Flags, meter: Meter) -> impl Future<Output = Result<Self, Error>> + Send;

    /// Makes all jobs durable, by the fastest documented way to enqueue many.
    ///
    /// # Errors
    /// The store refuses.
    fn publish_all(&self, jobs: Vec<Payload>) -> impl Future<Output = Result<(), Error>> + Send;

    /// Makes one job durable, as a request of a web service would.
    ///
    /// # Errors
    /// The store refuses.
    fn publish(&self, job: Payload) -> impl Future<Output = Result<(), Error>> + Send;

    /// Works jobs until [`stop`](Self::stop), calling [`Meter::done`] in each handler. A return
    /// before that means that the worker died.
    ///
    /// # Errors
    /// What the worker died of.
    fn work(self: Arc<Self>) -> impl Future<Output = Result<(), Error>> + Send;

    /// Jobs that the store does not show as finished.
    ///
    /// # Errors
    /// The store does not answer.
    fn unfinished(&self) -> impl Future<Output = Result<u64, Error>> + Send;

    /// Asks the worker to end.
    fn stop(&self) -> impl Future<Output = ()> + Send;
}

/// The `main` of a program: reads the flags, measures, prints.
///
/// Exit code 0 if there is a result, even that of a queue which stalled; 2 for wrong flags; 1 if
/// nothing could be measured.
pub fn run<C: Contestant>() -> ExitCode {
    let flags = match Flags::parse(std::env::args().skip(1)) {
        Ok(flags) => flags,
        Err(problem) => {
            eprintln!("{problem}\n\n{}", flags::USAGE);
            return ExitCode::from(2);
        }
    };
    // As many threads as cores for all of them: the default of every peer's documentation.
    let runtime = match tokio::runtime::Builder::new_multi_thread()
        .enable_all()
        .build()
    {
        Ok(runtime) => runtime,
        Err(error) => return report::failed(&error.into()),
    };
    let outcome = runtime.block_on(async {
        match flags.mode {
            Mode::BurnDown => load::burn_down::<C>(&flags).await,
            Mode::Latency => load::latency::<C>(&flags).await,
        }
    });
    let code = match outcome {
        Ok(result) => report::result(&result),
        Err(error) => report::failed(&error),
    };
    // A worker that ignores `stop` must not keep the process.
    runtime.shutdown_background();
    code
}
