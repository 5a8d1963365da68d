//! Programs that serve on loopback ports.

use std::net::{Ipv4Addr, TcpListener};
use std::sync::LazyLock;
use std::sync::atomic::{AtomicU16, Ordering};
use std::time::{Duration, Instant};

use shared::services::guard::{Guarded, OnOrphaned, Output, Program};

/// A start takes some seconds at most, and half a minute beside other work.
const LIMIT: Duration = Duration::from_secs(180);

/// Starts a program, and waits until it answers. It ends with this process, however that happens.
///
/// # Errors
/// What it printed, if it ended instead.
///
/// # Panics
/// If it does neither.
pub(crate) async fn start<A>(program: Program, answers: impl Fn() -> A) -> Result<Guarded, String>
where
    A: Future<Output = bool>,
{
    let log = tempfile::NamedTempFile::new().unwrap();
    let printed = || std::fs::read_to_string(log.path()).unwrap_or_default();
    let output = Output::Append(log.path().to_owned());
    let program = program.stdout(output.clone()).stderr(output);
    let process = Guarded::spawn(program, OnOrphaned::KillGroup).unwrap();
    let deadline = Instant::now() + LIMIT;
    loop {
        let answered = answers().await;
        // If somebody answers nevertheless, it is a stranger who has its port.
        if process.try_wait().is_some() {
            return Err(printed());
        }
        if answered {
            return Ok(process);
        }
        assert!(Instant::now() < deadline, "no answer: {}", printed());
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
}

/// Starts something on ports that are free, and on others if somebody takes one before it does.
pub(crate) async fn on_free_ports<const N: usize, T, S>(start: impl Fn([u16; N]) -> S) -> T
where
    S: Future<Output = Result<T, String>>,
{
    loop {
        match start(free_ports()).await {
            Ok(started) => return started,
            Err(printed) => assert!(says_in_use(&printed), "it ended: {printed}"),
        }
    }
}

/// Below the range from which the system chooses for whoever does not care: a server that is killed
/// would find its port given away when it comes back. And below the katas' own range.
fn free_ports<const N: usize>() -> [u16; N] {
    const FIRST: u16 = 10_000;
    const PORTS: u16 = 10_000;
    static NEXT: LazyLock<AtomicU16> =
        LazyLock::new(|| AtomicU16::new(rand::random_range(0..PORTS)));
    let next = || FIRST + NEXT.fetch_add(1, Ordering::Relaxed) % PORTS;
    [(); N].map(|()| {
        loop {
            let port = next();
            if is_free(port) {
                return port;
            }
        }
    })
}

/// Whether nobody listens there.
pub(crate) fn is_free(port: u16) -> bool {
    TcpListener::bind((Ipv4Addr::LOCALHOST, port)).is_ok()
}

fn says_in_use(printed: &str) -> bool {
    printed.contains("in use") || printed.contains("eaddrinuse")
}
