//! MariaDB: a private server, for the experiments that compare it with PostgreSQL.
//!
//! Only what asks for it starts one: no kata needs it. There is no server that the user names here;
//! whoever is given an address connects to it.

use std::ffi::OsString;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use rustix::process::Signal;
use sqlx::mysql::{MySqlConnectOptions, MySqlConnection, MySqlSslMode};
use sqlx::{Connection, Row};

use super::folder::{Instance, ServicesFolder};
use super::guard::{Guarded, OnOrphaned, Output, Program, unprivileged_user};
use super::private::{Launch, Private, clean_environment};
use super::{ServiceError, install_help};

/// Preparing a data folder takes some seconds. Longer than this and it hangs.
const INSTALL_LIMIT: Duration = Duration::from_secs(180);

/// A server that was started gets this long until it answers.
const READY_LIMIT: Duration = Duration::from_secs(120);

/// Where distributions and Homebrew put the server, which is not always in `PATH`.
const USUAL: [&str; 5] = [
    "/usr/sbin",
    "/usr/libexec",
    "/usr/bin",
    "/opt/homebrew/bin",
    "/usr/local/bin",
];

/// The data is thrown away: nothing waits for the disk, and no more memory than a lesson takes.
const SETTINGS: [&str; 9] = [
    "--skip-networking",
    "--skip-log-bin",
    "--innodb-flush-log-at-trx-commit=0",
    "--innodb-flush-method=nosync",
    "--innodb-doublewrite=0",
    "--innodb-buffer-pool-size=16M",
    "--innodb-log-file-size=8M",
    "--performance-schema=OFF",
    "--skip-name-resolve",
];

/// A private MariaDB server that answers, on a socket in a folder that only we enter. It is stopped
/// and its data removed when this is dropped, and in any case when our process ends.
#[derive(Debug)]
pub struct MariaDb {
    server: Arc<Mutex<Private>>,
    options: MySqlConnectOptions,
    version: String,
    ready_in: Duration,
}

impl MariaDb {
    /// Starts a private server. Takes some seconds, since its data folder is prepared anew.
    ///
    /// # Errors
    /// `Missing` if the programs are not here; `DidNotStart`, `DiskFull`, `Unwritable`.
    ///
    /// # Cancel safety
    /// Safe: a server that is being started when the future is dropped is stopped and removed.
    pub async fn start() -> Result<Self, ServiceError> {
        Self::start_below(None).await
    }

    /// As [`MariaDb::start`], with its data below this folder and not below the target folder.
    ///
    /// # Errors
    /// As [`MariaDb::start`].
    pub async fn start_below(folder: Option<PathBuf>) -> Result<Self, ServiceError> {
        let began = Instant::now();
        let (server, options) = super::blocking(move || prepare(folder.as_deref())).await?;
        let version = wait_until_ready(&server, &options).await?;
        Ok(Self {
            server: Arc::new(Mutex::new(server)),
            options,
            version,
            ready_in: began.elapsed(),
        })
    }

    /// How to connect as the administrator, who may do everything.
    pub fn admin_options(&self) -> MySqlConnectOptions {
        self.options.clone()
    }

    /// The version, without what the distribution adds: `10.11.19`.
    pub fn version(&self) -> &str {
        self.version.split('-').next().unwrap_or_default()
    }

    /// One line for the top of a run.
    pub fn describe(&self) -> String {
        format!(
            "MariaDB {} · private instance, ready in {:.1} s",
            self.version(),
            self.ready_in.as_secs_f64()
        )
    }

    /// Stops the server and removes its data.
    ///
    /// # Errors
    /// None that is known: what does not stop is killed.
    pub async fn close(self) -> Result<(), ServiceError> {
        let server = Arc::clone(&self.server);
        super::blocking(move || {
            super::lock(&server).discard();
            Ok(())
        })
        .await
    }
}

/// The programs: the server, and what prepares its data folder.
fn programs() -> Option<(PathBuf, PathBuf)> {
    let path = std::env::var_os("PATH").unwrap_or_default();
    let folders: Vec<PathBuf> = std::env::split_paths(&path)
        .chain(USUAL.map(PathBuf::from))
        .collect();
    let look = |name: &str| {
        let mut files = folders.iter().map(|folder| folder.join(name));
        files.find(|file| file.is_file())
    };
    Some((look("mariadbd")?, look("mariadb-install-db")?))
}

/// Prepares a data folder and starts the server on it; it may not answer yet.
fn prepare(folder: Option<&Path>) -> Result<(Private, MySqlConnectOptions), ServiceError> {
    let missing = || ServiceError::Missing(install_help::mariadb());
    let (program, install) = programs().ok_or_else(missing)?;
    // It refuses to run as root.
    let user = unprivileged_user(&["mysql", "nobody"]);
    let folder = ServicesFolder::open(folder, user.as_ref())?;
    folder.sweep()?;
    let instance = folder.instance("mariadb")?;
    folder.give(instance.path())?;
    let data = instance.path().join("data");
    install_data(&folder, &instance, &install, &data)?;

    let socket = instance.socket_folder().join("sql");
    let assigned = |name: &str, value: &Path| {
        let mut argument = OsString::from(name);
        argument.push(value);
        argument
    };
    // Nobody's my.cnf: this one must be the same everywhere.
    let mut argv: Vec<OsString> = vec![program.into(), "--no-defaults".into()];
    argv.push(assigned("--datadir=", &data));
    argv.push(assigned("--socket=", &socket));
    argv.push(assigned("--pid-file=", &instance.path().join("server-pid")));
    argv.extend(SETTINGS.map(Into::into));
    let launch = Launch {
        what: "MariaDB",
        argv,
        polite: Signal::TERM,
        at_once: Signal::KILL,
    };
    // Without a password: the socket is in a folder that only its account and root enter.
    let options = MySqlConnectOptions::new()
        .socket(socket)
        .username("root")
        .ssl_mode(MySqlSslMode::Disabled);
    Ok((Private::start(&folder, instance, launch)?, options))
}

fn install_data(
    folder: &ServicesFolder,
    instance: &Instance,
    install: &Path,
    data: &Path,
) -> Result<(), ServiceError> {
    let log = instance.path().join("log");
    let mut datadir = OsString::from("--datadir=");
    datadir.push(data);
    let arguments = [
        install.into(),
        "--no-defaults".into(),
        datadir,
        "--auth-root-authentication-method=normal".into(),
        "--skip-test-db".into(),
        "--skip-name-resolve".into(),
    ];
    let program = Program::new(arguments)
        .user(folder.user().cloned())
        .cwd(instance.path())
        .stdout(Output::Append(log.clone()))
        .stderr(Output::Append(log.clone()));
    let running = Guarded::spawn(clean_environment(program), OnOrphaned::KillGroup)
        .map_err(|error| ServiceError::io("run", install, error))?;
    let reason = match running.wait_blocking(INSTALL_LIMIT) {
        Some(status) if status.success() => return Ok(()),
        Some(status) => status.to_string(),
        None => format!("still running after {INSTALL_LIMIT:?}"),
    };
    Err(ServiceError::did_not_start(install, reason, &log))
}

/// Asks until the server answers; its version.
async fn wait_until_ready(
    server: &Private,
    options: &MySqlConnectOptions,
) -> Result<String, ServiceError> {
    let deadline = Instant::now() + READY_LIMIT;
    loop {
        let asked = async {
            let mut connection = MySqlConnection::connect_with(options).await?;
            let row = sqlx::query("select version()")
                .fetch_one(&mut connection)
                .await?;
            connection.close().await?;
            row.try_get::<String, _>(0)
        };
        match asked.await {
            Ok(version) => return Ok(version),
            Err(error) => server.check_running(&error.to_string(), Instant::now() > deadline)?,
        }
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
}
