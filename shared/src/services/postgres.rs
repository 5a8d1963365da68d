//! PostgreSQL: the user's own server, or a private one that may be paused, killed and restarted.

use std::path::PathBuf;
use std::sync::atomic::AtomicU64;
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use sqlx::postgres::PgConnectOptions;
use sqlx::{Connection, Row};

use super::admin::Admin;
use super::archive;
use super::folder::ServicesFolder;
use super::install_help;
use super::postgres_options::Options;
use super::postgres_server::{self, Follows, Start};
use super::private::Private;
use super::programs::PostgresPrograms;
use super::schema::Leases;
use super::template::DATABASE;
use super::{ServiceError, Upstream};

pub(super) const VARIABLE: &str = "DATABASE_URL";

/// A server that the user named gets this long to answer before we call it unreachable.
const CONNECT_LIMIT: Duration = Duration::from_secs(5);

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
        programs: PostgresPrograms,
        /// What it was asked to do differently, for a standby to do the same.
        asked: Start,
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
        let started = super::blocking(move || start(options)).await?;
        // Schema `public` is everybody's by default; roles of different checks share nothing.
        let first = "revoke all on schema public from public;";
        Self::private(began, started, first).await
    }

    /// A standby of this server under a name, which reaches it through a port on 127.0.0.1. It
    /// answers, but may not have begun to stream.
    pub(super) async fn follow(&self, port: u16, name: &str) -> Result<Self, ServiceError> {
        let began = Instant::now();
        let Origin::Private {
            programs,
            asked,
            downloaded,
            ..
        } = &self.inner.origin
        else {
            return Err(self.not_private("make a standby of"));
        };
        let (programs, downloaded) = (programs.clone(), *downloaded);
        let start = Start {
            tcp: false,
            follows: Some(Follows {
                port,
                name: name.to_owned(),
            }),
            ..asked.clone()
        };
        let start = move |primary: &mut Private| {
            let (server, connect) = postgres_server::start(primary.services(), &programs, &start)?;
            Ok(Started {
                server,
                connect,
                programs,
                asked: start,
                downloaded,
            })
        };
        let started = self.with_server("make a standby of", start).await?;
        Self::private(began, started, "").await
    }

    /// A private server that was just started, once it answers; `first` is done before all else.
    async fn private(began: Instant, started: Started, first: &str) -> Result<Self, ServiceError> {
        let connect = started.connect;
        let admin = Admin::start(connect.clone())?;
        let server = Arc::new(Mutex::new(started.server));
        wait_until_ready(&server, &connect).await?;
        let sql = format!("{first} select current_setting('server_version') as version");
        let rows = admin.batch(sql).await?;
        let version = rows.first().map(|row| row.try_get("version")).transpose();
        Ok(Self {
            inner: Arc::new(Inner {
                leases: Leases::none(),
                database: DATABASE.to_owned(),
                next: AtomicU64::new(0),
                version: version.map_err(ServiceError::Sql)?.unwrap_or_default(),
                origin: Origin::Private {
                    server,
                    programs: started.programs,
                    asked: started.asked,
                    ready_in: began.elapsed(),
                    downloaded: started.downloaded,
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
            Origin::Private { programs, .. } => Ok((programs.bin.clone(), data)),
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

    fn not_private(&self, action: &'static str) -> ServiceError {
        ServiceError::NotPrivate {
            action,
            address: self.upstream().to_string(),
            variable: VARIABLE,
        }
    }

    async fn with_server<T: Send + 'static>(
        &self,
        action: &'static str,
        work: impl FnOnce(&mut Private) -> Result<T, ServiceError> + Send + 'static,
    ) -> Result<T, ServiceError> {
        match &self.inner.origin {
            Origin::Named { .. } => Err(self.not_private(action)),
            Origin::Private { server, .. } => {
                let server = Arc::clone(server);
                super::blocking(move || work(&mut super::lock(&server))).await
            }
        }
    }
}

/// A private server that may not answer yet.
struct Started {
    server: Private,
    connect: PgConnectOptions,
    programs: PostgresPrograms,
    asked: Start,
    downloaded: bool,
}

/// Ways 2 to 4. Blocks.
fn start(options: Options) -> Result<Started, ServiceError> {
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
        databases: options.databases,
        settings: options.settings,
        follows: None,
    };
    let (server, connect) = postgres_server::start(&folder, &programs, &start)?;
    Ok(Started {
        server,
        connect,
        programs,
        asked: start,
        downloaded,
    })
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
