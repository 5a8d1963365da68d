//! Brokers that come as one program: started once for all trials of this run, on a loopback port.

use std::net::{Ipv4Addr, TcpListener, TcpStream};
use std::path::PathBuf;
use std::time::{Duration, Instant};

use shared::services::guard::{Guarded, OnOrphaned, Output, Program};

/// A server that ends with this process, however that happens.
pub(super) struct Server {
    pub(super) port: u16,
    _process: Guarded,
}

/// Starts a program with the arguments that `arguments` gives for a port, and waits until it accepts
/// connections.
pub(super) async fn start(path: PathBuf, arguments: impl Fn(u16) -> Vec<String>) -> Server {
    let deadline = Instant::now() + Duration::from_secs(120);
    'port: loop {
        // Somebody may take it before the server does; then the server ends, and another is tried.
        let port = free_port();
        let log = tempfile::NamedTempFile::new().unwrap();
        let mut argv = vec![path.clone().into_os_string()];
        argv.extend(arguments(port).into_iter().map(Into::into));
        let output = Output::Append(log.path().to_owned());
        let program = Program::new(argv).stdout(output.clone()).stderr(output);
        let process = Guarded::spawn(program, OnOrphaned::KillGroup).unwrap();
        while TcpStream::connect((Ipv4Addr::LOCALHOST, port)).is_err() {
            let log = std::fs::read_to_string(log.path()).unwrap_or_default();
            assert!(Instant::now() < deadline, "it does not come up: {log}");
            if process.try_wait().is_some() {
                assert!(log.contains("in use"), "it ended: {log}");
                continue 'port;
            }
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
        return Server {
            port,
            _process: process,
        };
    }
}

fn free_port() -> u16 {
    let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).unwrap();
    listener.local_addr().unwrap().port()
}
