//! What can go wrong while finding, starting and breaking services, as decisions for the caller.

use std::io;
use std::path::{Path, PathBuf};
use std::time::Duration;

/// Why a service cannot be had, or cannot be treated as asked.
///
/// Every message is written for the person in front of the terminal: it says what to do.
#[derive(Debug, thiserror::Error)]
pub enum ServiceError {
    /// No address was given and no server program found: the check that needs it is *not run*.
    #[error("{0}")]
    Missing(String),

    /// The service that the user named does not let us in.
    #[error(
        "{variable} points at {address}, which refuses: {reason}\n\
         Start that server, correct the address, or unset {variable} to use a private one."
    )]
    Refused {
        /// The environment variable that names the service.
        variable: &'static str,
        /// Where it points, without the password.
        address: String,
        /// What the server or the system said.
        reason: String,
    },

    /// A version that lacks what the katas use.
    #[error("{found} is too old: {needed} or newer is needed")]
    TooOld {
        /// What was found, and where.
        found: String,
        /// The oldest version that works.
        needed: &'static str,
    },

    /// The role that the user named may not make roles or schemas.
    #[error(
        "role {role} of DATABASE_URL may not make what each check needs, a role and a schema of \
         its own: {reason}\n\
         As a superuser:  alter role {role} createrole; grant create on database {database} to {role};\n\
         Or unset DATABASE_URL to use a private server."
    )]
    MayNotCreateRoles {
        /// The role, as an SQL identifier.
        role: String,
        /// The database, as an SQL identifier.
        database: String,
        /// What PostgreSQL said.
        reason: String,
    },

    /// A server was found, and did not come up.
    #[error("{what} did not start: {reason}\n{log}")]
    DidNotStart {
        /// The program.
        what: String,
        /// How it ended.
        reason: String,
        /// The last lines that it wrote.
        log: String,
    },

    /// Nothing more fits on the disk.
    #[error(
        "no space left for {}: free some, or set CARGO_TARGET_DIR to a folder on another disk",
        path.display()
    )]
    DiskFull {
        /// What was being written.
        path: PathBuf,
    },

    /// A folder that must be written to cannot be.
    #[error(
        "cannot write to {}: {cause}\n\
         Set CARGO_TARGET_DIR to a folder that you may write to, or correct its owner.",
        path.display()
    )]
    Unwritable {
        /// The folder or file.
        path: PathBuf,
        /// What the system said. Shown in the message, and so not a `source` too.
        cause: io::Error,
    },

    /// Any other failure of the file system or of starting a program.
    #[error("cannot {action} {}: {cause}", path.display())]
    Io {
        /// What was tried, a verb.
        action: &'static str,
        /// On what.
        path: PathBuf,
        /// What the system said. Shown in the message, and so not a `source` too.
        cause: io::Error,
    },

    /// Pausing, killing and stopping are for servers of our own.
    #[error("will not {action} {address}: it is yours (named by {variable}), not a private one")]
    NotPrivate {
        /// What was asked for, a verb.
        action: &'static str,
        /// The service, without the password.
        address: String,
        /// The environment variable that names the service.
        variable: &'static str,
    },

    /// A standby cannot replay what its primary does not log.
    #[error("this server keeps no log for a standby: start it with `Options::replicated`")]
    KeepsNoLog,

    /// The server is stopped, or was killed, and not restarted yet.
    #[error("the private {0} is not running: restart it first")]
    NotRunning(&'static str),

    /// No answer in time: the server is paused, or very busy.
    #[error("no answer from {what} within {limit:?}")]
    NoAnswer {
        /// The service.
        what: &'static str,
        /// How long we waited.
        limit: Duration,
    },

    /// PostgreSQL refused a statement.
    #[error("PostgreSQL refused: {0}")]
    Sql(sqlx::Error),

    /// Redis refused a command.
    #[error("Redis refused: {0}")]
    Redis(redis::RedisError),
}

impl ServiceError {
    /// Whether there is no such service on this machine at all, as opposed to one that is broken.
    pub fn is_missing(&self) -> bool {
        matches!(self, Self::Missing(_))
    }

    /// Sorts a failure of the file system by what the person can do about it.
    pub(super) fn io(action: &'static str, path: &Path, cause: io::Error) -> Self {
        let path = path.to_owned();
        match cause.kind() {
            io::ErrorKind::StorageFull | io::ErrorKind::QuotaExceeded => Self::DiskFull { path },
            io::ErrorKind::PermissionDenied | io::ErrorKind::ReadOnlyFilesystem => {
                Self::Unwritable { path, cause }
            }
            _ => Self::Io {
                action,
                path,
                cause,
            },
        }
    }

    /// A server that ended, or did not answer; a full disk is recognised in what it wrote.
    pub(super) fn did_not_start(what: &Path, reason: String, log: &Path) -> Self {
        let text = std::fs::read(log).unwrap_or_default();
        let text = String::from_utf8_lossy(&text);
        if text.contains("No space left on device") {
            let path = log.parent().unwrap_or(log).to_owned();
            return Self::DiskFull { path };
        }
        let lines: Vec<&str> = text.lines().collect();
        Self::DidNotStart {
            what: what.display().to_string(),
            reason,
            log: lines[lines.len().saturating_sub(12)..].join("\n"),
        }
    }
}
