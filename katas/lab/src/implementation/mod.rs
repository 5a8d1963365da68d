//! Implementations: things that the lab can start, crash, stop and restart, and that answer HTTP.
//!
//! There are three kinds, and a check cannot tell them apart: Rust in process (fast, so that
//! `cargo test` is), a command in any language, and something already running behind a URL.

mod command;
mod in_process;
mod output;
mod threads;

use std::{fmt, net::SocketAddr, path::PathBuf, time::Duration};

pub use command::free_port;
pub(crate) use output::Output;
pub use threads::{Threads, Work};

use crate::{
    app::Env,
    kata::{AppFn, Variant},
};

/// What a check judges.
#[derive(Clone)]
pub enum Implementation {
    /// A function from the environment to an application, each instance on its own runtime.
    InProcess {
        /// How it is called in findings.
        label: String,
        /// Starts it.
        app: AppFn,
    },
    /// A shell command, run in its own process group.
    Command {
        /// What `sh -c` is given.
        line: String,
        /// Where it runs.
        directory: PathBuf,
    },
    /// Something that runs already, started by the learner with the variables of `env`.
    Url {
        /// Where it listens.
        address: SocketAddr,
    },
}

impl fmt::Display for Implementation {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Implementation::InProcess { label, .. } => f.write_str(label),
            Implementation::Command { line, .. } => f.write_str(line),
            Implementation::Url { address } => write!(f, "http://{address}"),
        }
    }
}

impl fmt::Debug for Implementation {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

impl Implementation {
    /// A variant of a kata, in process.
    pub fn in_process(variant: &Variant) -> Self {
        Implementation::InProcess {
            label: variant.id.to_owned(),
            app: variant.app.clone(),
        }
    }

    /// Whether the lab starts and ends it, or somebody else does.
    pub fn is_ours(&self) -> bool {
        !matches!(self, Implementation::Url { .. })
    }
}

/// Why an implementation did not come up.
#[derive(Debug, Clone, thiserror::Error)]
pub enum StartError {
    /// The code says that it is not there yet.
    #[error("not started: {0}")]
    NotStarted(String),
    /// It ended, or could not be run at all.
    #[error("{0}")]
    Ended(String),
    /// It runs and never answered `GET /health` with 200.
    #[error("{0}")]
    NeverHealthy(String),
}

/// One running instance of an implementation.
pub(crate) enum Process {
    InProcess(in_process::InProcess),
    Command(command::Command),
    Url(SocketAddr),
}

impl Process {
    /// Starts an instance and waits until it is healthy.
    pub(crate) async fn start(
        implementation: &Implementation,
        env: &Env,
        timeout: Duration,
        output: &Output,
    ) -> Result<Process, StartError> {
        match implementation {
            Implementation::InProcess { app, .. } => {
                in_process::InProcess::start(app.clone(), env.clone(), timeout, output.clone())
                    .await
                    .map(Process::InProcess)
            }
            Implementation::Command { line, directory } => {
                command::Command::start(line, directory, env, timeout, output.clone())
                    .await
                    .map(Process::Command)
            }
            Implementation::Url { address } => {
                let health = Health::new(*address);
                match health.ask().await {
                    Ok(()) => Ok(Process::Url(*address)),
                    Err(why) => Err(StartError::NeverHealthy(why)),
                }
            }
        }
    }

    /// Where it listens.
    pub(crate) fn address(&self) -> SocketAddr {
        match self {
            Process::InProcess(process) => process.address(),
            Process::Command(process) => process.address(),
            Process::Url(address) => *address,
        }
    }

    /// What its threads have done until now; `None` where nobody can tell.
    pub(crate) fn threads(&self) -> Option<Threads> {
        match self {
            Process::InProcess(_) => Threads::of_this_process(),
            Process::Command(process) => Threads::of_group(process.group()),
            Process::Url(address) => Threads::of_listener(*address),
        }
    }

    /// Ends it at once, nothing flushed.
    pub(crate) async fn crash(self) {
        match self {
            Process::InProcess(process) => process.crash().await,
            Process::Command(process) => process.crash().await,
            Process::Url(_) => {}
        }
    }

    /// Ends it politely.
    pub(crate) async fn stop(self) {
        match self {
            Process::InProcess(process) => process.stop().await,
            Process::Command(process) => process.stop().await,
            Process::Url(_) => {}
        }
    }
}

/// Asks `GET /health` on a connection of its own.
pub(crate) struct Health {
    url: String,
    client: reqwest::Client,
}

impl Health {
    /// Between two questions while a program comes up.
    const PAUSE: Duration = Duration::from_millis(15);

    pub(crate) fn new(address: SocketAddr) -> Self {
        Self {
            url: format!("http://{address}/health"),
            client: crate::client::http(),
        }
    }

    /// One question; the error says what was seen instead of 200.
    pub(crate) async fn ask(&self) -> Result<(), String> {
        let asked = self.client.get(&self.url).timeout(Duration::from_secs(10));
        match asked.send().await {
            Ok(reply) if reply.status() == http::StatusCode::OK => Ok(()),
            Ok(reply) => Err(format!("GET {} answered {}", self.url, reply.status())),
            Err(error) => Err(format!(
                "GET {}: {}",
                self.url,
                crate::client::root_cause(&error)
            )),
        }
    }

    /// Asks until it is 200; the last thing seen when it never was.
    pub(crate) async fn wait(&self, timeout: Duration) -> Result<(), String> {
        let deadline = tokio::time::Instant::now() + timeout;
        loop {
            match self.ask().await {
                Ok(()) => return Ok(()),
                Err(last) if tokio::time::Instant::now() >= deadline => return Err(last),
                Err(_) => tokio::time::sleep(Self::PAUSE).await,
            }
        }
    }
}
