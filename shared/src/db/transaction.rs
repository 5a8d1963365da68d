//! Transactions that survive what happens to them in production: a client that hangs up at any
//! moment, and a race that PostgreSQL resolves by refusing one of the two.
//!
//! # Why not `Pool::begin`
//!
//! A web framework drops the handler's future when the client goes away, at whatever await it was.
//! sqlx 0.9.0 counts a transaction only after the answer to BEGIN. A future that is dropped in
//! between gives a connection back to the pool in which a transaction is open and nobody knows: the
//! next request works inside it, commits nothing, and keeps its locks.
//! `begin` here runs in a task of its own that always comes to its end.

use std::time::Duration;

use rand::RngExt;
use sqlx::{AssertSqlSafe, PgConnection, PgPool, PgTransaction, SqlSafeStr};

/// What a transaction sees of others.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub enum Isolation {
    /// Each statement sees what was committed before it began: PostgreSQL's default.
    #[default]
    ReadCommitted,
    /// All statements see one snapshot. In PostgreSQL that is snapshot isolation: write skew is
    /// possible.
    RepeatableRead,
    /// As if one transaction ran after the other, or an error that asks to try again.
    Serializable,
}

/// How a transaction begins, and how often it is tried.
#[derive(Debug, Clone)]
pub struct TxOptions {
    /// Default: read committed.
    pub isolation: Isolation,
    /// Whether it only reads.
    pub read_only: bool,
    /// How often in all, at least once; default 5.
    pub attempts: u32,
    /// Before the n-th repetition a random time between nothing and `backoff` · 2ⁿ⁻¹ is waited, so
    /// that those who collided do not meet again; default 5 ms.
    pub backoff: Duration,
    /// At most this; default 200 ms.
    pub backoff_limit: Duration,
}

impl Default for TxOptions {
    fn default() -> Self {
        Self {
            isolation: Isolation::default(),
            read_only: false,
            attempts: 5,
            backoff: Duration::from_millis(5),
            backoff_limit: Duration::from_millis(200),
        }
    }
}

impl TxOptions {
    /// The defaults, with `serializable`.
    pub fn serializable() -> Self {
        Self {
            isolation: Isolation::Serializable,
            ..Self::default()
        }
    }

    fn begin_sql(&self) -> String {
        let isolation = match self.isolation {
            Isolation::ReadCommitted => "read committed",
            Isolation::RepeatableRead => "repeatable read",
            Isolation::Serializable => "serializable",
        };
        let mode = if self.read_only {
            "read only"
        } else {
            "read write"
        };
        format!("begin isolation level {isolation} {mode}")
    }

    /// Full jitter before repetition `n`, which counts from 1.
    fn wait_before(&self, n: u32) -> Duration {
        let ceiling = self
            .backoff
            .saturating_mul(2_u32.saturating_pow(n.saturating_sub(1)));
        ceiling
            .min(self.backoff_limit)
            .mul_f64(rand::rng().random())
    }
}

/// An error in which a refusal by PostgreSQL can be recognised: what `transaction` asks of the
/// error type of its function.
pub trait SqlFailure: From<sqlx::Error> {
    /// The database's error, if it is one.
    fn sql(&self) -> Option<&sqlx::Error>;
}

impl SqlFailure for sqlx::Error {
    fn sql(&self) -> Option<&sqlx::Error> {
        Some(self)
    }
}

/// Begins a transaction. It is rolled back when it is dropped without `commit`.
///
/// # Errors
/// No connection within the pool's `acquire_timeout`; the connection breaks.
///
/// # Cancel safety
/// Safe, unlike `Pool::begin`: the module says why.
pub async fn begin(
    pool: &PgPool,
    options: &TxOptions,
) -> Result<PgTransaction<'static>, sqlx::Error> {
    // Waiting for a connection may be given up; what follows may not.
    let connection = super::acquire(pool).await?;
    let sql = AssertSqlSafe(options.begin_sql()).into_sql_str();
    // Hidden from the documentation, but the only way to begin on a connection that one already has
    // and to own the result.
    let begun = tokio::spawn(PgTransaction::begin(connection, Some(sql)));
    // If we are dropped here the task goes on, and drops a transaction that knows it is one.
    match begun.await {
        Ok(result) => result,
        Err(failed) => match failed.try_into_panic() {
            Ok(panic) => std::panic::resume_unwind(panic),
            Err(_) => Err(sqlx::Error::WorkerCrashed),
        },
    }
}

/// Runs `work` in a transaction, commits if it returns `Ok`, rolls back if not, and starts over if
/// PostgreSQL says that another attempt may succeed: serialization failure (40001), deadlock
/// (40P01).
///
/// `work` runs again from its beginning, so what it does outside the database happens again.
///
/// In a handler or a spawned task let `work` own what it uses (`async move`, clones made before):
/// for an async closure that borrows, Rust 1.95 cannot see that its future is `Send` ("not general
/// enough"). Where that does not fit, `begin` does.
///
/// ```no_run
/// # async fn example(pool: sqlx::PgPool) -> Result<(), sqlx::Error> {
/// use shared::db::{TxOptions, transaction};
///
/// let left: i64 = transaction(&pool, &TxOptions::serializable(), async move |tx| {
///     let sql = "update seats set free = free - 1 where free > 0 returning free";
///     sqlx::query_scalar(sql).fetch_one(tx).await
/// })
/// .await?;
/// # Ok(())
/// # }
/// ```
///
/// # Errors
/// That of `work`, of beginning or of committing. After the last attempt, the one that it failed
/// with. An error of COMMIT for a broken connection leaves open whether it was committed.
///
/// # Cancel safety
/// Safe for the pool: no connection goes back with an open transaction. A future dropped while
/// COMMIT is on its way may or may not have committed, like any client that hangs up.
pub async fn transaction<T, E, F>(pool: &PgPool, options: &TxOptions, mut work: F) -> Result<T, E>
where
    E: SqlFailure,
    F: AsyncFnMut(&mut PgConnection) -> Result<T, E>,
{
    let mut attempt = 1;
    loop {
        let mut tx = begin(pool, options).await?;
        let error = match work(&mut tx).await {
            Ok(value) => match tx.commit().await {
                Ok(()) => return Ok(value),
                Err(error) => E::from(error),
            },
            Err(error) => {
                // Should it fail, the connection is broken, and rolled back with that.
                let _ = tx.rollback().await;
                error
            }
        };
        if attempt >= options.attempts || !may_succeed_again(&error) {
            return Err(error);
        }
        let wait = options.wait_before(attempt);
        tracing::debug!(attempt, ?wait, "the transaction lost a race, trying again");
        tokio::time::sleep(wait).await;
        attempt += 1;
    }
}

fn may_succeed_again(error: &impl SqlFailure) -> bool {
    let database = error.sql().and_then(sqlx::Error::as_database_error);
    let code = database.and_then(|error| error.code());
    matches!(code.as_deref(), Some("40001" | "40P01"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_wait_grows_to_its_limit_and_never_beyond() {
        let options = TxOptions::default();
        for n in [1, 2, 5, 6, 7, 40, u32::MAX] {
            let ceiling = (5_u64 << (n - 1).min(20)).min(200);
            let longest = (0..200)
                .map(|_| options.wait_before(n))
                .max()
                .unwrap_or_default();
            assert!(
                longest <= Duration::from_millis(ceiling),
                "{n}: {longest:?}"
            );
            // Of 200 draws one is in the upper half, but for a chance of 1 in 2²⁰⁰.
            assert!(
                longest * 2 > Duration::from_millis(ceiling),
                "{n}: {longest:?}"
            );
        }
    }
}
