//! A command as an instance: any language, its own process group, killed with SIGKILL.

use std::{
    net::{Ipv4Addr, SocketAddr, TcpListener},
    path::Path,
    sync::{
        LazyLock,
        atomic::{AtomicUsize, Ordering},
    },
    time::Duration,
};

use rand::RngExt;
use shared::services::guard::{self, Guarded, OnOrphaned, Program, Signal};
use tokio::{
    io::{AsyncRead, AsyncReadExt},
    process::{ChildStderr, ChildStdout},
};

use super::{Health, Output, StartError};
use crate::app::Env;

/// How long a polite stop may take before it becomes a kill.
const STOP: Duration = Duration::from_secs(10);

/// How long an ended program's output is waited for: something that it started may hold the pipe
/// open for ever.
const LAST_WORDS: Duration = Duration::from_secs(1);

/// How often another port is tried when somebody took ours in between.
const PORTS_TRIED: usize = 3;

/// A running command. Dropping it kills its process group.
pub(crate) struct Command {
    address: SocketAddr,
    process: Guarded,
}

impl Command {
    pub(crate) async fn start(
        line: &str,
        directory: &Path,
        env: &Env,
        timeout: Duration,
        output: Output,
    ) -> Result<Self, StartError> {
        let mut tried = 1;
        loop {
            match Self::try_start(line, directory, env, timeout, &output).await {
                Err(StartError::Ended(_)) if tried < PORTS_TRIED && port_was_taken(&output) => {
                    tried += 1;
                }
                result => return result,
            }
        }
    }

    async fn try_start(
        line: &str,
        directory: &Path,
        env: &Env,
        timeout: Duration,
        output: &Output,
    ) -> Result<Self, StartError> {
        let port =
            free_port().map_err(|error| StartError::Ended(format!("no free port: {error}")))?;
        let address = SocketAddr::from((Ipv4Addr::LOCALHOST, port));
        let mut program = Program::shell(line)
            .cwd(directory)
            .stdout(guard::Output::Piped)
            .stderr(guard::Output::Piped)
            .env("PORT", port.to_string());
        for (name, value) in env.iter() {
            program = program.env(name, value);
        }
        // A proxy variable of the learner's shell would send the program's calls somewhere else.
        for (name, _) in std::env::vars_os() {
            let text = name.to_string_lossy();
            if text.to_ascii_lowercase().ends_with("_proxy") {
                program = program.env_remove(name);
            }
        }
        let mut process = Guarded::spawn(program, OnOrphaned::KillGroup)
            .map_err(|error| StartError::Ended(format!("`{line}` cannot be run: {error}")))?;
        let unreadable = |error| StartError::Ended(format!("`{line}` cannot be heard: {error}"));
        let mut drains = Vec::new();
        if let Some(stdout) = process.take_stdout() {
            let stdout = ChildStdout::from_std(stdout).map_err(unreadable)?;
            drains.push(drain(stdout, output.clone()));
        }
        if let Some(stderr) = process.take_stderr() {
            let stderr = ChildStderr::from_std(stderr).map_err(unreadable)?;
            drains.push(drain(stderr, output.clone()));
        }

        let health = Health::new(address);
        tokio::select! {
            biased;
            status = process.wait() => {
                // Its last words are the reason, and may still be in the pipe.
                let heard = futures::future::join_all(drains);
                let _ = tokio::time::timeout(LAST_WORDS, heard).await;
                Err(StartError::Ended(format!("`{line}` ended before it was healthy ({status})")))
            }
            healthy = health.wait(timeout) => match healthy {
                Ok(()) => Ok(Self { address, process }),
                Err(last) => Err(StartError::NeverHealthy(format!(
                    "`{line}` did not answer GET /health with 200 within {} s; last: {last}",
                    timeout.as_secs(),
                ))),
            },
        }
    }

    pub(crate) fn address(&self) -> SocketAddr {
        self.address
    }

    /// The process group that it and whatever it starts belong to.
    pub(crate) fn group(&self) -> i32 {
        self.process.pid()
    }

    pub(crate) async fn crash(self) {
        let _ = self.process.signal_group(Signal::KILL);
        let _ = self.process.wait().await;
    }

    pub(crate) async fn stop(self) {
        let _ = self.process.signal_group(Signal::TERM);
        if tokio::time::timeout(STOP, self.process.wait())
            .await
            .is_err()
        {
            self.crash().await;
        }
    }
}

/// Reads a stream to its end, so that the program never blocks on a full pipe.
fn drain(
    mut stream: impl AsyncRead + Send + Unpin + 'static,
    output: Output,
) -> tokio::task::JoinHandle<()> {
    // In pieces of a fixed size and as bytes: neither a line without an end nor garbage may fill
    // the memory or stop the draining.
    let mut piece = vec![0; 8 * 1024];
    let mut line = Vec::new();
    tokio::spawn(async move {
        while let Ok(read @ 1..) = stream.read(&mut piece).await {
            for part in piece[..read].split_inclusive(|byte| *byte == b'\n') {
                line.extend_from_slice(&part[..part.len().min(piece.len() - line.len())]);
                if part.ends_with(b"\n") || line.len() == piece.len() {
                    output.push(&String::from_utf8_lossy(&line));
                    line.clear();
                }
            }
        }
        if !line.is_empty() {
            output.push(&String::from_utf8_lossy(&line));
        }
    })
}

/// A port below the range from which the system gives ports to outgoing connections: one that
/// `bind(0)` chooses could be given away again before the program binds it.
///
/// Each is the next one, from a random place on: of two programs of ours that start at the same
/// moment on the same port, the one that loses would be taken for healthy by the other's answer.
///
/// # Errors
/// A hundred of them were taken.
pub fn free_port() -> std::io::Result<u16> {
    const FIRST: u16 = 20_000;
    const PORTS: usize = 12_000;
    static BEGIN: LazyLock<usize> = LazyLock::new(|| rand::rng().random_range(0..PORTS));
    static GIVEN: AtomicUsize = AtomicUsize::new(0);
    let mut last = None;
    for _ in 0..100 {
        let number = BEGIN.wrapping_add(GIVEN.fetch_add(1, Ordering::Relaxed)) % PORTS;
        let port = FIRST + u16::try_from(number).unwrap_or_default();
        match TcpListener::bind((Ipv4Addr::LOCALHOST, port)) {
            Ok(_) => return Ok(port),
            Err(error) => last = Some(error),
        }
    }
    Err(last.unwrap_or_else(|| std::io::Error::other("every port was taken")))
}

/// Whether the program's last words say that its port was taken.
fn port_was_taken(output: &Output) -> bool {
    let said = [
        "eaddrinuse",
        "address already in use",
        "address in use",
        "bindexception",
    ];
    output.lines().iter().any(|line| {
        let line = line.to_ascii_lowercase();
        said.iter().any(|words| line.contains(words))
    })
}

#[cfg(test)]
mod tests {
    use std::collections::HashSet;

    use super::*;

    #[test]
    fn no_port_is_given_twice() {
        let given: HashSet<_> = (0..500).map(|_| free_port().unwrap()).collect();
        assert_eq!(given.len(), 500);
    }
}
