//! Reading balances, from the primary and from the replica. How far behind an answer may be is
//! decided by the protocol, from what is found out here.

use std::time::Duration;

use axum::response::Response;
use http::StatusCode;
use sqlx::{PgConnection, PgPool};

use crate::{
    contract::{self, Account, Answered},
    variants::ledger,
};

/// What a replica says of itself. It is asked *before* the row is read: what is replayed in between
/// makes the answer newer than we say, never older.
#[derive(Debug, Clone)]
pub struct Replayed {
    /// The position up to which it has replayed; `None` if it is no replica.
    pub position: Option<String>,
    /// Whether that is all that it has received.
    pub has_replayed_all: bool,
    /// The age of the last commit that it has replayed; `None` if it has replayed none.
    pub last_commit_ms: Option<i64>,
}

impl Replayed {
    /// A time that is not too short for what it may lack: that was committed after the last commit
    /// that it has replayed. One that has replayed none may lack anything, so to be sure the time
    /// is that since the epoch, which nobody takes for a small lag.
    pub fn behind_ms(&self) -> i64 {
        // Behind by less than a millisecond is still behind.
        self.last_commit_ms.unwrap_or_else(since_epoch_ms).max(1)
    }
}

fn since_epoch_ms() -> i64 {
    let now = std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH);
    now.map_or(i64::MAX, |now| {
        i64::try_from(now.as_millis()).unwrap_or(i64::MAX)
    })
}

/// The balance as the primary has it.
pub async fn strong(primary: &PgPool, id: &str) -> Answered {
    let balance = ledger::balance(&mut *primary.acquire().await?, id).await?;
    let account = account(id, balance)?;
    Ok(contract::shown(StatusCode::OK, &account))
}

/// The same as the answer to an eventual read: nothing is newer.
pub async fn current(primary: &PgPool, id: &str) -> Answered {
    let balance = ledger::balance(&mut *primary.acquire().await?, id).await?;
    behind(id, balance, Some(0))
}

/// What the replica says of itself, and then the balance as it has it.
pub async fn look(replica: &PgPool, id: &str) -> Answered<(Replayed, Option<i64>)> {
    look_by(&mut *replica.acquire().await?, id).await
}

/// The same on a given connection.
pub async fn look_by(db: &mut PgConnection, id: &str) -> Answered<(Replayed, Option<i64>)> {
    let sql = "select pg_last_wal_replay_lsn()::text,
        coalesce(pg_last_wal_receive_lsn() <= pg_last_wal_replay_lsn(), true),
        floor(extract(epoch from clock_timestamp() - pg_last_xact_replay_timestamp()) * 1000)::bigint";
    let (position, has_replayed_all, last_commit_ms) =
        sqlx::query_as(sql).fetch_one(&mut *db).await?;
    let balance = ledger::balance(db, id).await?;
    let replayed = Replayed {
        position,
        has_replayed_all,
        last_commit_ms,
    };
    Ok((replayed, balance))
}

/// Whether a copy has all that the primary has on disk: every commit that was answered by now.
///
/// # Errors
/// If the primary cannot be asked, for which nobody waits long.
pub async fn has_all(primary: &PgPool, replayed: &Replayed) -> Result<bool, sqlx::Error> {
    const PATIENCE: Duration = Duration::from_secs(1);
    let asked =
        sqlx::query_scalar("select coalesce(pg_current_wal_flush_lsn() <= $1::pg_lsn, false)")
            .bind(&replayed.position)
            .fetch_one(primary);
    tokio::time::timeout(PATIENCE, asked)
        .await
        .map_err(|_| sqlx::Error::PoolTimedOut)?
}

/// The answer to an eventual read, or 404.
pub fn behind(id: &str, balance: Option<i64>, staleness_ms: Option<i64>) -> Answered<Response> {
    let account = account(id, balance)?;
    Ok(contract::stale(&account, staleness_ms))
}

fn account(id: &str, balance: Option<i64>) -> Answered<Account> {
    let balance_cents = balance.ok_or_else(|| contract::not_found("account"))?;
    Ok(Account {
        account_id: id.to_owned(),
        balance_cents,
    })
}
