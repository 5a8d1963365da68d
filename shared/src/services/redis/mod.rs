//! Redis: the user's own server, or a private one that may be paused, killed and restarted.

mod connection;
mod keyspace;
mod named;
mod start;

use std::collections::BTreeSet;
use std::path::PathBuf;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use redis::{Client, Connection};

use self::connection::{connect, refused, upstream};
pub use self::keyspace::Keyspace;
use self::named::{named, remove_run, run_name};
use self::start::{start, wait_until_ready};
use super::private::Private;
use super::programs::Places;
use super::{ServiceError, Upstream};

const VARIABLE: &str = "REDIS_URL";

/// Logical databases of a private server. An empty one costs nothing.
const DATABASES: u64 = 1024;

/// Where to look for Redis, and how to start it.
#[derive(Debug, Clone)]
pub struct RedisOptions {
    url: Option<String>,
    places: Places,
    folder: Option<PathBuf>,
    settings: Vec<(String, String)>,
}

impl RedisOptions {
    /// What the environment says: `REDIS_URL`, `PATH`, `CARGO_TARGET_DIR`.
    pub fn from_env() -> Self {
        Self {
            url: super::variable(VARIABLE),
            places: Places::usual(std::env::var_os("PATH")),
            folder: None,
            settings: Vec::new(),
        }
    }

    /// Uses the server at this address, or none that was named if `None`.
    #[must_use]
    pub fn url(mut self, url: Option<String>) -> Self {
        self.url = url;
        self
    }

    /// Looks for programs in these folders only.
    #[must_use]
    pub fn programs_in<P: Into<PathBuf>>(mut self, folders: impl IntoIterator<Item = P>) -> Self {
        self.places = Places::only(folders.into_iter().map(Into::into).collect());
        self
    }

    /// Keeps data below this folder, and not below the target folder.
    #[must_use]
    pub fn folder(mut self, folder: impl Into<PathBuf>) -> Self {
        self.folder = Some(folder.into());
        self
    }

    /// Writes each command to a log before it is answered, so that a killed server comes back with
    /// its data. Without it, it comes back empty.
    #[must_use]
    pub fn append_only(self) -> Self {
        self.setting("appendonly", "yes")
            .setting("appendfsync", "always")
    }

    /// One more line in a private server's configuration, which beats ours.
    #[must_use]
    pub fn setting(mut self, name: impl Into<String>, value: impl Into<String>) -> Self {
        self.settings.push((name.into(), value.into()));
        self
    }
}

/// A Redis server that answers. Clones are handles to the same one.
///
/// A private server is stopped and its data removed when the last handle is dropped, and in any
/// case when our process ends, in whatever way.
#[derive(Debug, Clone)]
pub struct Redis {
    inner: Arc<Inner>,
}

#[derive(Debug)]
struct Inner {
    client: Client,
    url: String,
    name: String,
    run: u32,
    next: AtomicU64,
    /// Numbers of key spaces that were not cleared yet.
    live: Mutex<BTreeSet<u64>>,
    origin: Origin,
}

enum Origin {
    Named {
        /// Its name in the list of clients says that this run is alive.
        _lease: Mutex<Connection>,
    },
    Private {
        server: Arc<Mutex<Private>>,
        ready_in: Duration,
    },
}

impl std::fmt::Debug for Origin {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Self::Named { .. } => f.write_str("Named"),
            Self::Private { server, .. } => f.debug_tuple("Private").field(server).finish(),
        }
    }
}

impl Redis {
    /// Uses the server that `REDIS_URL` names, else starts a private one, in some 0.05 s.
    ///
    /// # Errors
    /// `Missing` if there is none; `Refused` if the named one does not answer; `DidNotStart`,
    /// `DiskFull` or `Unwritable` if a private one cannot be started.
    ///
    /// # Cancel safety
    /// Safe: a server that is being started when the future is dropped is stopped and removed.
    pub async fn find_or_start(options: &RedisOptions) -> Result<Self, ServiceError> {
        let options = options.clone();
        super::blocking(move || match &options.url {
            Some(url) => named(url),
            None => start(&options),
        })
        .await
    }

    /// The address of the server, with its password if it has one.
    pub fn url(&self) -> &str {
        &self.inner.url
    }

    /// Where the server listens, for a proxy that connects to it. Stays the same over restarts.
    pub fn upstream(&self) -> Upstream {
        upstream(&self.inner.client)
    }

    /// Whether we started it, and so may pause, kill and restart it.
    pub fn is_private(&self) -> bool {
        matches!(self.inner.origin, Origin::Private { .. })
    }

    /// One line for the top of a run: what is used and where it comes from.
    pub fn describe(&self) -> String {
        let name = &self.inner.name;
        match &self.inner.origin {
            Origin::Named { .. } => format!("{name} · {VARIABLE}, {}", self.upstream()),
            Origin::Private { ready_in, .. } => {
                let seconds = ready_in.as_secs_f64();
                format!("{name} · private instance, ready in {seconds:.1} s")
            }
        }
    }

    /// An empty place for one check alone: in a private server a logical database of its own (there
    /// are 1,024, taken in turn), in a named one a prefix that all keys must carry.
    ///
    /// # Errors
    /// `NoAnswer` while the server is paused or stopped; `Redis`.
    ///
    /// # Cancel safety
    /// Safe.
    pub async fn fresh_keyspace(&self) -> Result<Keyspace, ServiceError> {
        let number = self.inner.next.fetch_add(1, Ordering::Relaxed);
        let keyspace = Keyspace {
            redis: self.clone(),
            number,
        };
        if self.is_private() {
            // The one before, 1,024 key spaces ago, may have been forgotten.
            keyspace.empty().await?;
        }
        super::lock(&self.inner.live).insert(number);
        Ok(keyspace)
    }

    /// Stops a private server in its tracks (SIGSTOP): connections stay open, nothing answers.
    ///
    /// # Errors
    /// `NotPrivate`; `NotRunning`.
    pub async fn pause(&self) -> Result<(), ServiceError> {
        self.with_server("pause", Private::pause).await
    }

    /// Continues a paused server (SIGCONT).
    ///
    /// # Errors
    /// `NotPrivate`; `NotRunning`.
    pub async fn resume(&self) -> Result<(), ServiceError> {
        self.with_server("resume", Private::resume).await
    }

    /// Kills a private server (SIGKILL), and returns when it is gone.
    ///
    /// # Errors
    /// `NotPrivate`. Killing one that does not run is no error.
    pub async fn kill(&self) -> Result<(), ServiceError> {
        self.with_server("kill", Private::kill).await
    }

    /// Stops a private server politely.
    ///
    /// # Errors
    /// `NotPrivate`. Stopping one that does not run is no error.
    pub async fn stop(&self) -> Result<(), ServiceError> {
        self.with_server("stop", Private::stop).await
    }

    /// Starts a private server again at the same address; stops it first if it runs. Returns when
    /// it answers. Without `append_only` it is empty then.
    ///
    /// # Errors
    /// `NotPrivate`; as `find_or_start`, also if somebody took the port meanwhile.
    pub async fn restart(&self) -> Result<(), ServiceError> {
        let client = self.inner.client.clone();
        self.with_server("restart", move |server| {
            server.restart()?;
            wait_until_ready(server, &client).map(|_| ())
        })
        .await
    }

    /// Ends what we hold: in a server that the user named our keys, of a private one everything.
    /// Other handles are of no use afterwards.
    ///
    /// # Errors
    /// `NoAnswer`, `Redis` if the keys of a named server cannot be removed.
    pub async fn close(&self) -> Result<(), ServiceError> {
        if self.is_private() {
            let close = |server: &mut Private| {
                server.discard();
                Ok(())
            };
            return self.with_server("close", close).await;
        }
        let inner = Arc::clone(&self.inner);
        super::blocking(move || {
            super::lock(&inner.live).clear();
            remove_run(&mut connect(&inner.client)?, &run_name(inner.run)).map_err(refused)
        })
        .await
    }

    async fn with_server(
        &self,
        action: &'static str,
        work: impl FnOnce(&mut Private) -> Result<(), ServiceError> + Send + 'static,
    ) -> Result<(), ServiceError> {
        match &self.inner.origin {
            Origin::Named { .. } => Err(ServiceError::NotPrivate {
                action,
                address: self.upstream().to_string(),
                variable: VARIABLE,
            }),
            Origin::Private { server, .. } => {
                let server = Arc::clone(server);
                super::blocking(move || work(&mut super::lock(&server))).await
            }
        }
    }
}
