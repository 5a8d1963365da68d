//! A pool in which every wait has an end.
//!
//! PostgreSQL's own defaults wait for ever: for a statement, for a lock, for a client that began a
//! transaction and went away. Each of them turns one slow query into an outage, because the pool is
//! the one thing that all requests share.

use std::time::Duration;

use sqlx::pool::PoolConnection;
use sqlx::postgres::{PgConnectOptions, PgPoolOptions};
use sqlx::{PgPool, Postgres};

use crate::telemetry::metrics::waiting;

/// How many connections, and how long anything may take.
#[derive(Debug, Clone)]
pub struct PoolSettings {
    /// At most this many connections; default 10. More than a few for each processor of the server
    /// makes it slower, not faster.
    pub max_connections: u32,
    /// How long a request waits for a free connection; default 3 s. Shorter than what its client
    /// waits, so that the client hears of it.
    pub acquire_timeout: Duration,
    /// How long one statement may run; default 5 s.
    pub statement_timeout: Duration,
    /// How long a statement may wait for a lock; default 2 s, less than `statement_timeout`, so
    /// that the error says which of the two it was.
    pub lock_timeout: Duration,
    /// How long a transaction may sit idle before the server ends its session; default 5 s.
    pub idle_in_transaction_timeout: Duration,
    /// What the sessions are called in `pg_stat_activity`.
    pub application_name: Option<String>,
}

impl Default for PoolSettings {
    fn default() -> Self {
        Self {
            max_connections: 10,
            acquire_timeout: Duration::from_secs(3),
            statement_timeout: Duration::from_secs(5),
            lock_timeout: Duration::from_secs(2),
            idle_in_transaction_timeout: Duration::from_secs(5),
            application_name: None,
        }
    }
}

/// Opens a pool on `postgres://user:password@host:port/database`, and proves that it connects.
///
/// # Errors
/// The address cannot be understood, or the server does not let us in within `acquire_timeout`.
///
/// # Cancel safety
/// Safe.
pub async fn connect(url: &str, settings: &PoolSettings) -> Result<PgPool, sqlx::Error> {
    let pool = connect_lazy(url.parse()?, settings);
    drop(pool.acquire().await?);
    Ok(pool)
}

/// A pool that connects when it is first used: for a server that may come up later than we do.
///
/// Must be called on a Tokio runtime, and is of no use on another one.
pub fn connect_lazy(options: PgConnectOptions, settings: &PoolSettings) -> PgPool {
    let ms = |limit: Duration| limit.as_millis().to_string();
    // Sent when the session begins, so that they cost no round trip. They beat what the server and
    // the role have set.
    let mut options = options.options([
        ("statement_timeout", ms(settings.statement_timeout)),
        ("lock_timeout", ms(settings.lock_timeout)),
        (
            "idle_in_transaction_session_timeout",
            ms(settings.idle_in_transaction_timeout),
        ),
    ]);
    if let Some(name) = &settings.application_name {
        options = options.application_name(name);
    }
    PgPoolOptions::new()
        .max_connections(settings.max_connections)
        .acquire_timeout(settings.acquire_timeout)
        .connect_lazy_with(options)
}

/// A connection of the pool, the wait for it timed for whoever watches the pool
/// (`telemetry::Metrics::watch_pool`).
///
/// # Errors
/// None is free within the pool's `acquire_timeout`; a new one cannot be opened.
///
/// # Cancel safety
/// Safe; the wait counts as cancelled.
pub async fn acquire(pool: &PgPool) -> Result<PoolConnection<Postgres>, sqlx::Error> {
    let waiting = waiting(pool);
    let result = pool.acquire().await;
    waiting.ended(&result);
    result
}
