//! A RabbitMQ node of our own, from the programs of this machine, for what kills the broker: the one
//! that `AMQP_URL` names is others' as well.
//!
//! It keeps out of the way of every other node: a name, ports, a cookie and folders of its own, and
//! an `epmd` (Erlang's name server) that ends with it, where the usual one stays for ever.

use std::net::{Ipv4Addr, TcpListener};
use std::path::{Path, PathBuf};
use std::sync::{Mutex, PoisonError};
use std::time::{Duration, Instant};

use shared::queue::{ConnectOptions, connect};
use shared::services::guard::{Guarded, OnOrphaned, Output, Program};
use tempfile::TempDir;

use crate::support::{End, find, until};

const ADVICE: &str =
    "a restart of the broker needs one that is ours to kill: install rabbitmq-server";

/// Debian's program in `PATH` insists on the account of the machine's own node; this is what it runs.
const BEHIND_THE_WRAPPER: &str = "/usr/lib/rabbitmq/bin/rabbitmq-server";

const NAME: &str = "gym@localhost";

/// A start takes five seconds, and half a minute beside other work.
const LIMIT: Duration = Duration::from_secs(180);

/// Erlang's virtual machine starts an `epmd` that outlives it, unless there is one already.
const COMMAND: &str = "\
epmd -port $ERL_EPMD_PORT &
until epmd -port $ERL_EPMD_PORT -names; do sleep 0.1; done
exec \"$SERVER\"
";

pub(crate) struct Node {
    server: PathBuf,
    ports: Ports,
    // Before the folder: they end before it goes.
    running: Mutex<Option<Guarded>>,
    folder: TempDir,
}

#[derive(Debug, Clone, Copy)]
struct Ports {
    amqp: u16,
    distribution: u16,
    epmd: u16,
}

impl Node {
    pub(crate) async fn start() -> Result<Self, End> {
        find("epmd", ADVICE)?;
        let server = match Path::new(BEHIND_THE_WRAPPER) {
            server if server.is_file() => server.to_owned(),
            _ => find("rabbitmq-server", ADVICE)?,
        };
        let node = Self {
            server,
            ports: Ports::free(),
            running: Mutex::default(),
            folder: tempfile::tempdir().unwrap(),
        };
        std::fs::write(node.path("plugins"), "[].\n").unwrap();
        node.run().await;
        Ok(node)
    }

    /// For `queue::connect`.
    pub(crate) fn url(&self) -> String {
        format!("amqp://guest:guest@127.0.0.1:{}", self.port())
    }

    pub(crate) fn port(&self) -> u16 {
        self.ports.amqp
    }

    /// Kills it with all that belongs to it, and starts it again with its data.
    ///
    /// A quorum queue is known after that only if its name had reached the disk, which RabbitMQ 3.10
    /// lets happen a second or so after it was declared: a younger one is there afterwards and takes
    /// nothing. What is promised is about messages, so queues are given that second.
    pub(crate) async fn crash_and_restart(&self) {
        until("the queues are on disk", || {
            self.has_registered_its_queues()
        })
        .await;
        drop(self.running().take());
        self.run().await;
    }

    fn has_registered_its_queues(&self) -> bool {
        let quorum = self.path("data").join(NAME).join("quorum").join(NAME);
        let registry = std::fs::read(quorum.join("names.dets")).unwrap_or_default();
        let folders = std::fs::read_dir(quorum).into_iter().flatten().flatten();
        let mut queues = folders.filter(|entry| entry.path().is_dir());
        queues.all(|queue| {
            let name = queue.file_name();
            let name = name.as_encoded_bytes();
            registry.windows(name.len()).any(|part| part == name)
        })
    }

    async fn run(&self) {
        let log = self.path("log.txt");
        let output = Output::Append(log.clone());
        let program = Program::shell(COMMAND)
            .env("SERVER", &self.server)
            .env("HOME", self.folder.path())
            .env("ERL_EPMD_PORT", self.ports.epmd.to_string())
            .env("ERL_EPMD_ADDRESS", "127.0.0.1")
            .env("RABBITMQ_NODENAME", NAME)
            .env("RABBITMQ_NODE_IP_ADDRESS", "127.0.0.1")
            .env("RABBITMQ_NODE_PORT", self.port().to_string())
            .env("RABBITMQ_DIST_PORT", self.ports.distribution.to_string())
            .env("RABBITMQ_MNESIA_BASE", self.path("data"))
            .env("RABBITMQ_LOG_BASE", self.path("log"))
            .env("RABBITMQ_LOGS", "-")
            .env("RABBITMQ_ENABLED_PLUGINS_FILE", self.path("plugins"))
            .env("RABBITMQ_CONFIG_FILE", self.path("none"))
            .env("RABBITMQ_CONF_ENV_FILE", self.path("none"))
            .env("RABBITMQ_PID_FILE", self.path("pid"))
            .stdout(output.clone())
            .stderr(output);
        let process = Guarded::spawn(program, OnOrphaned::KillGroup).unwrap();
        let deadline = Instant::now() + LIMIT;
        // It listens before it is ready, and then hangs up on whoever comes.
        let broker = loop {
            match connect(&self.url(), &ConnectOptions::default()).await {
                Ok(broker) => break broker,
                Err(error) => assert!(
                    process.try_wait().is_none() && Instant::now() < deadline,
                    "RabbitMQ does not come up: {error}\n{}",
                    std::fs::read_to_string(&log).unwrap_or_default()
                ),
            }
            tokio::time::sleep(Duration::from_millis(50)).await;
        };
        broker.close().await;
        *self.running() = Some(process);
    }

    fn path(&self, name: &str) -> PathBuf {
        self.folder.path().join(name)
    }

    fn running(&self) -> std::sync::MutexGuard<'_, Option<Guarded>> {
        self.running.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Ports {
    /// Three that nobody has at the moment.
    fn free() -> Self {
        let listeners = [(); 3].map(|()| TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).unwrap());
        let [amqp, distribution, epmd] =
            listeners.map(|listener| listener.local_addr().unwrap().port());
        Self {
            amqp,
            distribution,
            epmd,
        }
    }
}
