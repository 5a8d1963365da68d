//! PostgreSQL: the user's own server, or a private one that may be paused, killed and restarted.

use std::path::PathBuf;
use std::sync::atomic::AtomicU64;
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use sqlx::postgres::PgConnectOptions;
use sqlx::{Connection, Row};

use super::admin::Admin;
use super::archive::{self, Download};
use super::folder::ServicesFolder;
use super::install_help;
use super::postgres_server::{self, Start};
use super::private::Private;
use super::programs::{Places, PostgresPrograms};
use super::schema::Leases;
use super::{ServiceError, Upstream};

const VARIABLE: &str = "DATABASE_URL";

/// A server that the user named gets this long to answer before we call it unreachable.
const CONNECT_LIMIT: Duration = Duration::from_secs(5);

/// Where to look for PostgreSQL, and how to start it.
#[derive(Debug, Clone)]
pub struct Options {
    pub(super) url: Option<String>,
    pub(super) places: Places,
    pub(super) download: Download,
    pub(super) folder: Option<PathBuf>,
    pub(super) tcp: bool,
    pub(super) settings: Vec<(String, String)>,
}

impl Options {
    /// What the environment says: `DATABASE_URL`, `PATH`, `CARGO_TARGET_DIR`, and for a download
    /// `KATA_POSTGRES_DOWNLOAD` (another base address, or `off`) and `KATA_CACHE_DIR`.
    pub fn from_env() -> Self {
        Self {
            url: super::variable(VARIABLE),
            places: Places::usual(std::env::var_os("PATH")),
            download: Download::from_env(),
            folder: None,
            tcp: false,
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

    /// Downloads from this base address into this folder if no program is found.
    #[must_use]
    pub fn download(mut self, base: impl Into<String>, cache: impl Into<PathBuf>) -> Self {
        self.download = Download::from(base.into(), cache.into());
        self
    }

    /// Keeps data below this folder, and not below the target folder.
    #[must_use]
    pub fn folder(mut self, folder: impl Into<PathBuf>) -> Self {
        self.folder = Some(folder.into());
        self
    }

    /// Has a private server listen on a free loopback port too. Its address is then that port.
    #[must_use]
    pub fn tcp(mut self) -> Self {
        self.tcp = true;
        self
    }

    /// One more line in a private server's `postgresql.conf`, which beats ours:
    /// `setting("wal_level", "replica")`.
    #[must_use]
    pub fn setting(mut self, name: impl Into<String>, value: impl Into<String>) -> Self {
        self.settings.push((name.into(), value.into()));
        self
    }
}

/// A PostgreSQL server that answers. Clones are handles to the same one.
///
/// A private server is stopped and its data removed when the last handle is dropped, which blocks
/// for some 0.1 s, and in any case when our process ends, in whatever way.
#[derive(Debug, Clone)]
pub struct Postgres {
    inner: Arc<Inner>,
}

#[derive(Debug)]
pub(super) struct Inner {
    // Before the server: its connections close first.
    pub(super) admin: Admin,
    pub(super) leases: Leases,
    pub(super) options: PgConnectOptions,
    pub(super) database: String,
    pub(super) next: AtomicU64,
    version: String,
    origin: Origin,
}

#[derive(Debug)]
enum Origin {
    Named {
        address: String,
    },
    Private {
        server: Arc<Mutex<Private>>,
        programs: PathBuf,
        ready_in: Duration,
        downloaded: bool,
    },
}

impl Postgres {
    /// Finds PostgreSQL in the four ways that the module describes, and starts it if need be.
    ///
    /// Takes about a quarter of a second for a private server, a second or two the first time.
    ///
    /// # Errors
    /// `Missing` if there is none; `Refused` if the named one does not answer; `TooOld`;
    /// `DidNotStart`, `DiskFull` or `Unwritable` if a private one cannot be started.
    ///
    /// # Cancel safety
    /// Safe: a server that is being started when the future is dropped is stopped and removed.
    pub async fn find_or_start(options: &Options) -> Result<Self, ServiceError> {
        if let Some(url) = &options.url {
            return Self::named(url).await;
        }
        let began = Instant::now();
        let options = options.clone();
        let (server, connect, programs, downloaded) =
            super::blocking(move || start(&options)).await?;
        let admin = Admin::start(connect.clone())?;
        let server = Arc::new(Mutex::new(server));
        wait_until_ready(&server, &connect).await?;
        // Schema `public` is everybody's by default; roles of different checks share nothing.
        let sql = "revoke all on schema public from public; \
                   select current_setting('server_version') as version";
        let rows = admin.batch(sql.to_owned()).await?;
        let version = rows.first().map(|row| row.try_get("version")).transpose();
        Ok(Self {
            inner: Arc::new(Inner {
                leases: Leases::none(),
                database: "postgres".to_owned(),
                next: AtomicU64::new(0),
                version: version.map_err(ServiceError::Sql)?.unwrap_or_default(),
                origin: Origin::Private {
                    server,
                    programs,
                    ready_in: began.elapsed(),
                    downloaded,
                },
                options: connect,
                admin,
            }),
        })
    }

    async fn named(url: &str) -> Result<Self, ServiceError> {
        let refused = |address: &str, reason: String| ServiceError::Refused {
            variable: VARIABLE,
            address: address.to_owned(),
            reason,
        };
        let options: PgConnectOptions = url
            .parse()
            .map_err(|error: sqlx::Error| refused("no valid address", error.to_string()))?;
        let upstream = upstream(&options);
        let address = upstream.to_string();
        let connect = async {
            let mut connection = sqlx::PgConnection::connect_with(&options).await?;
            let row = sqlx::query(
                "select current_setting('server_version'), \
                 current_setting('server_version_num')::int4, current_database()::text",
            )
            .fetch_one(&mut connection)
            .await?;
            connection.close().await?;
            Ok::<(String, i32, String), sqlx::Error>((row.get(0), row.get(1), row.get(2)))
        };
        let (version, number, database) = match tokio::time::timeout(CONNECT_LIMIT, connect).await {
            Ok(Ok(answer)) => answer,
            Ok(Err(error)) => return Err(refused(&address, error.to_string())),
            Err(_) => return Err(refused(&address, format!("no answer in {CONNECT_LIMIT:?}"))),
        };
        if number < 140_000 {
            return Err(ServiceError::TooOld {
                found: format!("PostgreSQL {version} at {address}"),
                needed: "PostgreSQL 14",
            });
        }
        let admin = Admin::start(options.clone())?;
        Ok(Self {
            inner: Arc::new(Inner {
                leases: Leases::take(&admin, &options).await?,
                admin,
                options,
                database,
                next: AtomicU64::new(0),
                version,
                origin: Origin::Named { address },
            }),
        })
    }

    pub(super) fn inner(&self) -> &Arc<Inner> {
        &self.inner
    }

    /// How to connect as the administrator: a superuser of a private server, else the named role.
    pub fn admin_options(&self) -> PgConnectOptions {
        self.inner.options.clone()
    }

    /// The database that schemas are made in.
    pub fn database(&self) -> &str {
        &self.inner.database
    }

    /// Where the server listens, for a proxy that connects to it. Stays the same over restarts.
    ///
    /// A server that the user named may insist on TLS, which the proxy would then have to speak.
    pub fn upstream(&self) -> Upstream {
        upstream(&self.inner.options)
    }

    /// Whether we started it, and so may pause, kill and restart it.
    pub fn is_private(&self) -> bool {
        matches!(self.inner.origin, Origin::Private { .. })
    }

    /// The version, without what the distribution adds: `15.18`.
    pub fn version(&self) -> &str {
        self.inner.version.split(' ').next().unwrap_or_default()
    }

    /// One line for the top of a run: what is used and where it comes from.
    pub fn describe(&self) -> String {
        let version = self.version();
        match &self.inner.origin {
            Origin::Named { address } => format!("PostgreSQL {version} · {VARIABLE}, {address}"),
            Origin::Private {
                ready_in,
                downloaded,
                ..
            } => format!(
                "PostgreSQL {version} · {}private instance, ready in {:.1} s",
                if *downloaded { "downloaded, " } else { "" },
                ready_in.as_secs_f64()
            ),
        }
    }

    /// Stops every process of a private server in its tracks (SIGSTOP): connections stay open and
    /// nothing answers. Has no effect on one that is paused.
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

    /// Kills every process of a private server (SIGKILL), and returns when all are gone. What was
    /// committed is there after `restart`, as after a crash.
    ///
    /// # Errors
    /// `NotPrivate`. Killing one that does not run is no error.
    pub async fn kill(&self) -> Result<(), ServiceError> {
        self.with_server("kill", Private::kill).await
    }

    /// Stops a private server politely: sessions are ended, open transactions rolled back. Its data
    /// stays for `restart`.
    ///
    /// # Errors
    /// `NotPrivate`. Stopping one that does not run is no error.
    pub async fn stop(&self) -> Result<(), ServiceError> {
        self.with_server("stop", Private::stop).await
    }

    /// Starts a private server again, with its data, at the same address; stops it first if it
    /// runs. Returns when it answers.
    ///
    /// # Errors
    /// `NotPrivate`; as `find_or_start`.
    ///
    /// # Cancel safety
    /// Safe, but the server may not answer yet.
    pub async fn restart(&self) -> Result<(), ServiceError> {
        self.with_server("restart", Private::restart).await?;
        match &self.inner.origin {
            Origin::Private { server, .. } => wait_until_ready(server, &self.inner.options).await,
            Origin::Named { .. } => Ok(()),
        }
    }

    /// The folder with a private server's programs (`pg_basebackup`, `psql` … if installed) and
    /// its data folder, for experiments that build on it.
    ///
    /// # Errors
    /// `NotPrivate`.
    pub async fn programs_and_data(&self) -> Result<(PathBuf, PathBuf), ServiceError> {
        let data = self
            .with_server("look into", |server| server.folder())
            .await?
            .join("data");
        match &self.inner.origin {
            Origin::Private { programs, .. } => Ok((programs.clone(), data)),
            Origin::Named { .. } => Ok((PathBuf::new(), data)),
        }
    }

    /// Ends what we hold: in a server that the user named, schemas that were not dropped yet; of a
    /// private one, everything. Other handles are of no use afterwards.
    ///
    /// Without it the same happens: at once for a private server, and at the next start in a named
    /// one.
    ///
    /// # Errors
    /// `Sql` if a schema cannot be dropped.
    pub async fn close(&self) -> Result<(), ServiceError> {
        match &self.inner.origin {
            Origin::Named { .. } => self.inner.leases.release(&self.inner.admin).await,
            Origin::Private { .. } => {
                self.with_server("close", |server| {
                    server.discard();
                    Ok(())
                })
                .await
            }
        }
    }

    async fn with_server<T: Send + 'static>(
        &self,
        action: &'static str,
        work: impl FnOnce(&mut Private) -> Result<T, ServiceError> + Send + 'static,
    ) -> Result<T, ServiceError> {
        match &self.inner.origin {
            Origin::Named { address } => Err(ServiceError::NotPrivate {
                action,
                address: address.clone(),
                variable: VARIABLE,
            }),
            Origin::Private { server, .. } => {
                let server = Arc::clone(server);
                super::blocking(move || work(&mut super::lock(&server))).await
            }
        }
    }
}

/// Ways 2 to 4. Blocks. The server, how to connect, its programs, and whether they were downloaded.
fn start(options: &Options) -> Result<(Private, PgConnectOptions, PathBuf, bool), ServiceError> {
    let found = PostgresPrograms::find(&options.places)?;
    let downloaded = found.is_none();
    let programs = match found {
        Some(programs) => programs,
        None => archive::fetch(&options.download)
            .map_err(|reason| ServiceError::Missing(install_help::postgres(&reason)))?,
    };
    let user = super::guard::unprivileged_user(&["postgres", "nobody"]);
    let folder = ServicesFolder::open(options.folder.as_deref(), user.as_ref())?;
    folder.sweep()?;
    let start = Start {
        tcp: options.tcp,
        settings: options.settings.clone(),
    };
    let (server, connect) = postgres_server::start(&folder, &programs, &start)?;
    Ok((server, connect, programs.bin, downloaded))
}

/// Connects until the server lets us in; notices at once when it ends instead.
async fn wait_until_ready(
    server: &Mutex<Private>,
    options: &PgConnectOptions,
) -> Result<(), ServiceError> {
    const LIMIT: Duration = Duration::from_secs(60);
    let deadline = Instant::now() + LIMIT;
    loop {
        let connect = sqlx::PgConnection::connect_with(options);
        let failure = match tokio::time::timeout(CONNECT_LIMIT, connect).await {
            Ok(Ok(connection)) => {
                let _ = connection.close().await;
                return Ok(());
            }
            Ok(Err(error)) => error.to_string(),
            Err(_) => "no answer".to_owned(),
        };
        super::lock(server).check_running(&failure, Instant::now() > deadline)?;
        tokio::time::sleep(Duration::from_millis(3)).await;
    }
}

fn upstream(options: &PgConnectOptions) -> Upstream {
    let file = format!(".s.PGSQL.{}", options.get_port());
    match options.get_socket() {
        Some(folder) => Upstream::Unix(folder.join(file)),
        None if options.get_host().starts_with('/') => {
            Upstream::Unix(PathBuf::from(options.get_host()).join(file))
        }
        None => Upstream::Tcp(options.get_host().to_owned(), options.get_port()),
    }
}
