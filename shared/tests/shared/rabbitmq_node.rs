//! A RabbitMQ node of our own, from the programs of this machine, for what kills the broker: the one
//! that `AMQP_URL` names is others' as well.
//!
//! It keeps out of the way of every other node: a name, ports, a cookie and folders of its own, and
//! an `epmd` (Erlang's name server) that ends with it, where the usual one stays for ever.

use std::path::{Path, PathBuf};
use std::sync::{Mutex, PoisonError};

use shared::queue::{ConnectOptions, connect};
use shared::services::guard::{Guarded, Program, Signal};
use tempfile::TempDir;

use crate::server;
use crate::support::{End, find, until};

const ADVICE: &str =
    "a restart of the broker needs one that is ours to kill: install rabbitmq-server";

/// Debian's program in `PATH` insists on the account of the machine's own node; this is what it runs.
const BEHIND_THE_WRAPPER: &str = "/usr/lib/rabbitmq/bin/rabbitmq-server";

const NAME: &str = "gym@localhost";

/// Erlang's virtual machine starts an `epmd` that outlives it, unless there is one already. An `epmd`
/// whose port somebody has ends without a word.
const COMMAND: &str = "\
epmd -port $ERL_EPMD_PORT & epmd=$!
until timeout 1 epmd -port $ERL_EPMD_PORT -names; do kill -0 $epmd || break; sleep 0.1; done
kill -0 $epmd || { echo 'epmd: its port is in use'; exit 1; }
exec \"$SERVER\"
";

pub(crate) struct Node {
    server: PathBuf,
    amqp: u16,
    distribution: u16,
    epmd: u16,
    // Before the folder: they end before it goes.
    running: Mutex<Option<Guarded>>,
    folder: TempDir,
}

impl Node {
    pub(crate) async fn start() -> Result<Self, End> {
        find("epmd", ADVICE)?;
        let server = match Path::new(BEHIND_THE_WRAPPER) {
            server if server.is_file() => server.to_owned(),
            _ => find("rabbitmq-server", ADVICE)?,
        };
        Ok(server::on_free_ports(|ports| Self::start_on(&server, ports)).await)
    }

    async fn start_on(server: &Path, [amqp, distribution, epmd]: [u16; 3]) -> Result<Self, String> {
        let node = Self {
            server: server.to_owned(),
            amqp,
            distribution,
            epmd,
            running: Mutex::default(),
            folder: tempfile::tempdir().unwrap(),
        };
        std::fs::write(node.path("plugins"), "[].\n").unwrap();
        node.run().await?;
        Ok(node)
    }

    /// For `queue::connect`.
    pub(crate) fn url(&self) -> String {
        format!("amqp://guest:guest@127.0.0.1:{}", self.amqp)
    }

    /// Kills it with all that belongs to it, and starts it again with its data.
    ///
    /// A quorum queue is known after that only if its name had reached the disk, which RabbitMQ 3.10
    /// lets happen a second or so after it was declared: a younger one is there afterwards and takes
    /// nothing. What is promised is about messages, so queues are given that second. The node stands
    /// still from the last look to the kill: else one may be declared between the two, and leave a
    /// folder that is never registered.
    pub(crate) async fn crash_and_restart(&self) {
        until("the queues are on disk", || {
            self.has_registered_its_queues() && self.stands_still_with_its_queues_registered()
        })
        .await;
        drop(self.running().take());
        // They are when the last of the killed is gone.
        let ports = [self.amqp, self.distribution, self.epmd];
        until("its ports are free", || {
            ports.into_iter().all(server::is_free)
        })
        .await;
        self.run().await.unwrap();
    }

    /// If they are not, it goes on.
    fn stands_still_with_its_queues_registered(&self) -> bool {
        self.signal(Signal::STOP);
        let is_registered = self.has_registered_its_queues();
        if !is_registered {
            self.signal(Signal::CONT);
        }
        is_registered
    }

    fn signal(&self, signal: Signal) {
        let running = self.running();
        let process = running.as_ref().expect("it was started");
        process.signal_group(signal).unwrap();
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

    async fn run(&self) -> Result<(), String> {
        let program = Program::shell(COMMAND)
            .env("SERVER", &self.server)
            .env("HOME", self.folder.path())
            .env("ERL_EPMD_PORT", self.epmd.to_string())
            .env("ERL_EPMD_ADDRESS", "127.0.0.1")
            .env("ERL_CRASH_DUMP_SECONDS", "0")
            .env("RABBITMQ_NODENAME", NAME)
            .env("RABBITMQ_NODE_IP_ADDRESS", "127.0.0.1")
            .env("RABBITMQ_NODE_PORT", self.amqp.to_string())
            .env("RABBITMQ_DIST_PORT", self.distribution.to_string())
            .env("RABBITMQ_MNESIA_BASE", self.path("data"))
            .env("RABBITMQ_LOG_BASE", self.path("log"))
            .env("RABBITMQ_LOGS", "-")
            .env("RABBITMQ_ENABLED_PLUGINS_FILE", self.path("plugins"))
            .env("RABBITMQ_CONFIG_FILE", self.path("none"))
            .env("RABBITMQ_CONF_ENV_FILE", self.path("none"))
            .env("RABBITMQ_PID_FILE", self.path("pid"));
        let process = server::start(program, || self.answers()).await?;
        *self.running() = Some(process);
        Ok(())
    }

    /// It listens before it is ready, and then hangs up on whoever comes.
    async fn answers(&self) -> bool {
        let Ok(broker) = connect(&self.url(), &ConnectOptions::default()).await else {
            return false;
        };
        broker.close().await;
        true
    }

    fn path(&self, name: &str) -> PathBuf {
        self.folder.path().join(name)
    }

    fn running(&self) -> std::sync::MutexGuard<'_, Option<Guarded>> {
        self.running.lock().unwrap_or_else(PoisonError::into_inner)
    }
}
