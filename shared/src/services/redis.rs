//! Redis: the user's own server, or a private one that may be paused, killed and restarted.

use std::collections::BTreeSet;
use std::ffi::OsString;
use std::fs;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use redis::{Client, Connection, ConnectionAddr};
use rustix::process::Signal;

use super::folder::ServicesFolder;
use super::private::{Launch, Private};
use super::programs::{Places, find_redis};
use super::{ServiceError, Upstream, install_help};

const VARIABLE: &str = "REDIS_URL";

/// Logical databases of a private server. An empty one costs nothing.
const DATABASES: u64 = 1024;

/// Longer than any command of ours takes, unless the server is paused.
const LIMIT: Duration = Duration::from_secs(5);

/// The set of runs that may have keys in a server that the user named.
const RUNS: &str = "kata:runs";

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

/// A place in Redis for one check alone.
#[derive(Debug)]
pub struct Keyspace {
    redis: Redis,
    number: u64,
}

impl Keyspace {
    /// What every key must begin with; empty in a private server.
    pub fn prefix(&self) -> String {
        if self.redis.is_private() {
            return String::new();
        }
        format!(
            "{}{}:",
            run_prefix(&run_name(self.redis.inner.run)),
            self.number
        )
    }

    /// The address to give to a program: `redis://:password@host:port/database`.
    pub fn url(&self) -> String {
        match self.redis.upstream() {
            through @ Upstream::Tcp(..) if self.redis.is_private() => self.url_through(&through),
            _ => self.redis.inner.url.clone(),
        }
    }

    /// The same through a proxy. For a server that the user named, only if its address is of the
    /// form `redis://`.
    pub fn url_through(&self, through: &Upstream) -> String {
        let settings = self
            .redis
            .inner
            .client
            .get_connection_info()
            .redis_settings();
        let user = settings.username().unwrap_or_default();
        let password = settings
            .password()
            .map(|password| format!("{user}:{password}@"));
        let password = password.unwrap_or_default();
        let database = match self.redis.is_private() {
            true => i64::try_from(self.number % DATABASES).unwrap_or_default(),
            false => settings.db(),
        };
        match through {
            Upstream::Tcp(host, port) => format!("redis://{password}{host}:{port}/{database}"),
            Upstream::Unix(path) => format!("redis+unix://{}?db={database}", path.display()),
        }
    }

    /// Removes all keys.
    ///
    /// # Errors
    /// `NoAnswer` while the server is paused or stopped; `Redis`.
    ///
    /// # Cancel safety
    /// Safe: it goes on to its end.
    pub async fn drop(self) -> Result<(), ServiceError> {
        self.empty().await?;
        super::lock(&self.redis.inner.live).remove(&self.number);
        Ok(())
    }

    async fn empty(&self) -> Result<(), ServiceError> {
        let inner = Arc::clone(&self.redis.inner);
        let prefix = self.prefix();
        let database = self.number % DATABASES;
        super::blocking(move || {
            let mut connection = connect(&inner.client)?;
            if !prefix.is_empty() {
                return remove_keys(&mut connection, &prefix).map_err(refused);
            }
            redis::pipe()
                .cmd("SELECT")
                .arg(database)
                .cmd("FLUSHDB")
                .query(&mut connection)
                .map_err(refused)
        })
        .await
    }
}

fn named(url: &str) -> Result<Redis, ServiceError> {
    let refuse = |address: String, reason: String| ServiceError::Refused {
        variable: VARIABLE,
        address,
        reason,
    };
    let client = Client::open(url)
        .map_err(|error| refuse("no valid address".to_owned(), error.to_string()))?;
    let address = upstream(&client).to_string();
    let refuse = |error: redis::RedisError| refuse(address.clone(), error.to_string());
    let mut connection = open(&client).map_err(refuse)?;
    let name = server_name(&information(&mut connection).map_err(refuse)?);
    let run = rand::random();
    let take = |connection: &mut Connection| {
        redis::cmd("CLIENT")
            .arg("SETNAME")
            .arg(run_name(run))
            .exec(connection)?;
        redis::cmd("SADD")
            .arg(RUNS)
            .arg(run_name(run))
            .exec(connection)?;
        sweep(connection)
    };
    take(&mut connection).map_err(refused)?;
    Ok(Redis {
        inner: Arc::new(Inner {
            client,
            url: url.to_owned(),
            name,
            run,
            next: AtomicU64::new(0),
            live: Mutex::default(),
            origin: Origin::Named {
                _lease: Mutex::new(connection),
            },
        }),
    })
}

fn start(options: &RedisOptions) -> Result<Redis, ServiceError> {
    let began = Instant::now();
    let program =
        find_redis(&options.places).ok_or_else(|| ServiceError::Missing(install_help::redis()))?;
    let folder = ServicesFolder::open(options.folder.as_deref(), None)?;
    folder.sweep()?;
    // Redis cannot choose a port itself, so somebody may take ours before it does.
    let mut attempts = 0;
    let (server, client, url, name) = loop {
        attempts += 1;
        let port = super::free_port()?;
        let password = super::random_secret();
        let url = format!("redis://:{password}@127.0.0.1:{port}");
        let client = Client::open(url.as_str()).map_err(refused)?;
        let mut server = launch(&folder, &program, port, &password, &options.settings)?;
        match wait_until_ready(&mut server, &client) {
            Ok(name) => break (server, client, url, name),
            Err(ServiceError::DidNotStart { log, .. })
                if attempts < 10 && log.contains("Address already in use") => {}
            Err(error) => return Err(error),
        }
    };
    Ok(Redis {
        inner: Arc::new(Inner {
            client,
            url,
            name,
            run: rand::random(),
            next: AtomicU64::new(0),
            live: Mutex::default(),
            origin: Origin::Private {
                server: Arc::new(Mutex::new(server)),
                ready_in: began.elapsed(),
            },
        }),
    })
}

fn launch(
    folder: &ServicesFolder,
    program: &Path,
    port: u16,
    password: &str,
    settings: &[(String, String)],
) -> Result<Private, ServiceError> {
    let instance = folder.instance("redis")?;
    // A password, so that nobody who finds the port by chance takes it for theirs. In a file,
    // since arguments are seen by all.
    let mut text = format!(
        "bind 127.0.0.1\nport {port}\nrequirepass {password}\ndatabases {DATABASES}\n\
         save \"\"\nappendonly no\ndaemonize no\ndir \"{}\"\n",
        instance.path().display()
    );
    for (name, value) in settings {
        text.push_str(&format!("{name} {value}\n"));
    }
    let path = instance.path().join("redis.conf");
    fs::write(&path, text).map_err(|error| ServiceError::io("write", &path, error))?;
    let launch = Launch {
        what: "Redis",
        argv: vec![OsString::from(program), path.into()],
        polite: Signal::TERM,
        at_once: Signal::KILL,
    };
    Private::start(folder, instance, launch)
}

/// Asks until our own server answers; what it calls itself.
fn wait_until_ready(server: &mut Private, client: &Client) -> Result<String, ServiceError> {
    let deadline = Instant::now() + Duration::from_secs(30);
    loop {
        let failure = match open(client).and_then(|mut connection| information(&mut connection)) {
            // Another server may have taken the port, ours about to find out.
            Ok(text) if is_process(&text, server) => return Ok(server_name(&text)),
            Ok(_) => "another server answers on its port".to_owned(),
            Err(error) => error.to_string(),
        };
        server.check_running(&failure, Instant::now() > deadline)?;
        std::thread::sleep(Duration::from_millis(2));
    }
}

fn is_process(information: &str, server: &Private) -> bool {
    server
        .pid()
        .is_ok_and(|pid| field(information, "process_id") == Some(&pid.to_string()))
}

fn open(client: &Client) -> Result<Connection, redis::RedisError> {
    let connection = client.get_connection_with_timeout(LIMIT)?;
    connection.set_read_timeout(Some(LIMIT))?;
    connection.set_write_timeout(Some(LIMIT))?;
    Ok(connection)
}

fn connect(client: &Client) -> Result<Connection, ServiceError> {
    open(client).map_err(refused)
}

fn refused(error: redis::RedisError) -> ServiceError {
    match error.is_timeout() || error.is_connection_refusal() {
        true => ServiceError::NoAnswer {
            what: "Redis",
            limit: LIMIT,
        },
        false => ServiceError::Redis(error),
    }
}

fn information(connection: &mut Connection) -> Result<String, redis::RedisError> {
    redis::cmd("INFO").arg("server").query(connection)
}

fn field<'a>(information: &'a str, name: &str) -> Option<&'a str> {
    let mut lines = information.lines();
    lines
        .find_map(|line| line.strip_prefix(name)?.strip_prefix(':'))
        .map(str::trim)
}

fn server_name(information: &str) -> String {
    match (
        field(information, "valkey_version"),
        field(information, "redis_version"),
    ) {
        (Some(version), _) => format!("Valkey {version}"),
        (None, version) => format!("Redis {}", version.unwrap_or("of an unknown version")),
    }
}

fn upstream(client: &Client) -> Upstream {
    match client.get_connection_info().addr() {
        ConnectionAddr::Unix(path) => Upstream::Unix(path.clone()),
        ConnectionAddr::Tcp(host, port) | ConnectionAddr::TcpTls { host, port, .. } => {
            Upstream::Tcp(host.clone(), *port)
        }
        other => Upstream::Tcp(other.to_string(), 0),
    }
}

fn run_name(run: u32) -> String {
    format!("kata-{run:08x}")
}

fn run_prefix(name: &str) -> String {
    format!("kata:{}:", name.trim_start_matches("kata-"))
}

/// Removes what runs left that hold no connection any more.
fn sweep(connection: &mut Connection) -> Result<(), redis::RedisError> {
    let runs: Vec<String> = redis::cmd("SMEMBERS").arg(RUNS).query(connection)?;
    let clients: String = redis::cmd("CLIENT").arg("LIST").query(connection)?;
    for run in runs {
        // The names become part of a pattern; one that is not ours is left alone.
        let Some(digits) = run.strip_prefix("kata-") else {
            continue;
        };
        if u32::from_str_radix(digits, 16).is_err() {
            continue;
        }
        let name = format!("name={run}");
        if !clients.split_whitespace().any(|word| word == name) {
            remove_run(connection, &run)?;
        }
    }
    Ok(())
}

fn remove_run(connection: &mut Connection, name: &str) -> Result<(), redis::RedisError> {
    remove_keys(connection, &run_prefix(name))?;
    redis::cmd("SREM").arg(RUNS).arg(name).exec(connection)
}

fn remove_keys(connection: &mut Connection, prefix: &str) -> Result<(), redis::RedisError> {
    let mut cursor = 0_u64;
    loop {
        let mut scan = redis::cmd("SCAN");
        scan.arg(cursor)
            .arg("MATCH")
            .arg(format!("{prefix}*"))
            .arg("COUNT")
            .arg(1000);
        let (next, keys): (u64, Vec<String>) = scan.query(connection)?;
        if !keys.is_empty() {
            redis::cmd("UNLINK").arg(keys).exec(connection)?;
        }
        if next == 0 {
            return Ok(());
        }
        cursor = next;
    }
}
