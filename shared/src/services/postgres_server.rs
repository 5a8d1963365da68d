//! Prepares and starts a private PostgreSQL server. Blocks.

use rustix::process::Signal;
use sqlx::postgres::{PgConnectOptions, PgSslMode};

use super::ServiceError;
use super::folder::ServicesFolder;
use super::private::{Launch, Private};
use super::programs::PostgresPrograms;
use super::template::{DATABASE, SUPERUSER, Template, append};

/// Part of the socket's file name; nothing listens on this port unless asked to.
const SOCKET_PORT: u16 = 5432;

/// A standby that lost its primary looks for it again this often. Five seconds, as it is by
/// default, would be most of what a test of healing takes.
const STANDBY_SETTINGS: &str = "wal_retrieve_retry_interval = '50ms'\n";

/// What an instance can be asked to do differently.
#[derive(Debug, Clone, Default)]
pub(super) struct Start {
    pub(super) tcp: bool,
    /// It has the databases that `create database` copies.
    pub(super) databases: bool,
    pub(super) settings: Vec<(String, String)>,
    /// Makes it a standby.
    pub(super) follows: Option<Follows>,
}

/// How a standby finds its primary, and what it calls itself there.
#[derive(Debug, Clone)]
pub(super) struct Follows {
    /// On 127.0.0.1.
    pub(super) port: u16,
    pub(super) name: String,
}

/// Copies the template and starts a server on it; it may not answer yet.
///
/// A standby is such a copy too: the template was shut down cleanly, so its log and the primary's
/// are the same up to there, and it takes no base backup to replay the rest.
pub(super) fn start(
    folder: &ServicesFolder,
    programs: &PostgresPrograms,
    start: &Start,
) -> Result<(Private, PgConnectOptions), ServiceError> {
    let template = Template::find_or_make(folder, programs, start.databases)?;
    let instance = folder.instance("postgres")?;
    let data = instance.path().join("data");
    template.copy(folder, &data)?;

    let port = start.tcp.then(super::free_port).transpose()?;
    let socket_folder = instance.socket_folder().display().to_string();
    let mut settings = format!("unix_socket_directories = {}\n", quoted(&socket_folder));
    if let Some(port) = port {
        settings.push_str(&format!("listen_addresses = '127.0.0.1'\nport = {port}\n"));
    }
    for (name, value) in &start.settings {
        settings.push_str(&format!("{name} = {}\n", quoted(value)));
    }
    let password = template.password()?;
    if let Some(Follows { port, name }) = &start.follows {
        let primary = format!(
            "host=127.0.0.1 port={port} user={SUPERUSER} password={password} \
             application_name={name} sslmode=disable gssencmode=disable"
        );
        settings.push_str(&format!("primary_conninfo = {}\n", quoted(&primary)));
        settings.push_str(STANDBY_SETTINGS);
        let signal = data.join("standby.signal");
        std::fs::write(&signal, "")
            .map_err(|error| ServiceError::io("write", &signal, error))
            .and_then(|()| folder.give(&signal))?;
    }
    append(&data.join("postgresql.conf"), &settings)?;

    // It starts from the user's PGHOST, PGSSLMODE and the like: set all that matter.
    let options = PgConnectOptions::new_without_pgpass()
        .username(SUPERUSER)
        .password(&password)
        .database(DATABASE)
        .ssl_mode(PgSslMode::Disable);
    let options = match port {
        Some(port) => options.host("127.0.0.1").port(port),
        None => options.socket(instance.socket_folder()).port(SOCKET_PORT),
    };
    let launch = Launch {
        what: "PostgreSQL",
        argv: vec![programs.postgres().into(), "-D".into(), data.into()],
        // "Fast": sessions are ended and everything is written.
        polite: Signal::INT,
        // "Immediate": takes its children along and gives its shared memory back.
        at_once: Signal::QUIT,
    };
    Ok((Private::start(folder, instance, launch)?, options))
}

/// A string in `postgresql.conf`.
fn quoted(value: &str) -> String {
    format!("'{}'", value.replace('\'', "''"))
}
