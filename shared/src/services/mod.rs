//! Where PostgreSQL and Redis come from, without anything to install or configure first.
//!
//! In this order:
//!
//! 1. `DATABASE_URL` / `REDIS_URL`, if set. Nothing is made there outside a schema or a key prefix
//!    of our own, nothing is stopped, and leftovers of a run that was killed are swept.
//! 2. Server programs on this machine: a private instance on a Unix socket or a free loopback port,
//!    tuned for data that is thrown away.
//! 3. PostgreSQL only: a build downloaded once into a cache, checked against its SHA-256.
//! 4. Otherwise an error that names the package to install on this system.
//!
//! Nothing is left behind, even after SIGKILL: see [`guard`].
//!
//! ```no_run
//! # async fn example() -> Result<(), shared::services::ServiceError> {
//! use shared::services::{Options, Postgres};
//!
//! let postgres = Postgres::find_or_start(&Options::from_env()).await?;
//! println!("{}", postgres.describe());
//! let schema = postgres.fresh_schema().await?;
//! let pool = sqlx::PgPool::connect_lazy_with(schema.options());
//! # Ok(())
//! # }
//! ```

pub mod guard;
mod mariadb;
mod postgres;
mod redis;
mod schema;
mod standby;

mod admin;
mod archive;
mod error;
mod folder;
mod install_help;
mod postgres_options;
mod postgres_server;
mod private;
mod processes;
mod programs;
mod template;

use std::fmt;
use std::path::PathBuf;
use std::sync::{Mutex, MutexGuard, PoisonError};

pub use error::ServiceError;
pub use folder::target_folder;
pub use mariadb::MariaDb;
pub use postgres::Postgres;
pub use postgres_options::Options;
pub use redis::{Keyspace, Redis, RedisOptions};
pub use schema::Schema;
pub use standby::{Lsn, Positions, Standby};

/// Where a server listens.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Upstream {
    /// Host and port.
    Tcp(String, u16),
    /// The socket's file.
    Unix(PathBuf),
}

impl fmt::Display for Upstream {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Tcp(host, port) => write!(f, "{host}:{port}"),
            Self::Unix(path) => path.display().fmt(f),
        }
    }
}

/// An environment variable, if it is set to something.
fn variable(name: &str) -> Option<String> {
    std::env::var(name)
        .ok()
        .filter(|value| !value.trim().is_empty())
}

/// Runs work that blocks where it holds up nobody. It runs to its end even if nobody waits.
async fn blocking<T: Send + 'static>(
    work: impl FnOnce() -> Result<T, ServiceError> + Send + 'static,
) -> Result<T, ServiceError> {
    match tokio::task::spawn_blocking(work).await {
        Ok(result) => result,
        Err(failed) => match failed.try_into_panic() {
            Ok(panic) => std::panic::resume_unwind(panic),
            // Only a runtime that is shutting down cancels it, and nobody awaits there any more.
            Err(cancelled) => Err(ServiceError::Io {
                action: "wait for",
                path: "work in the background".into(),
                cause: std::io::Error::other(cancelled),
            }),
        },
    }
}

/// Locks; state that a panic interrupted is still sound here.
fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

/// 32 hexadecimal digits that nobody guesses.
fn random_secret() -> String {
    format!("{:032x}", rand::random::<u128>())
}

/// A loopback port that was free a moment ago. Somebody else may take it before it is used.
fn free_port() -> Result<u16, ServiceError> {
    std::net::TcpListener::bind(("127.0.0.1", 0))
        .and_then(|listener| listener.local_addr())
        .map(|address| address.port())
        .map_err(|error| ServiceError::io("find a free port on", "127.0.0.1".as_ref(), error))
}
