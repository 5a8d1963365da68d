//! `idempotency`: keys with leases, in transactions, and around handlers.

use std::sync::{Arc, Weak};
use std::time::Duration;

use shared::db::{PoolSettings, connect_lazy, migrate};
use shared::idempotency::{Fingerprint, Key, MIGRATIONS, Scope};
use shared::services::{Postgres, Schema};
use sqlx::PgPool;
use tempfile::TempDir;

use crate::postgres::{folder, options};
use crate::support::End;

mod crash;
mod in_transaction;
mod keys;
mod layer;
mod mistakes;
mod model;
mod web;

pub(crate) fn tests() -> Vec<libtest_mimic::Trial> {
    let tests = [
        keys::tests(),
        model::tests(),
        in_transaction::tests(),
        layer::tests(),
        mistakes::tests(),
        crash::tests(),
    ];
    tests.into_iter().flatten().collect()
}

/// One server for all tests that run at a time: it goes with the last of them.
struct Server {
    postgres: Postgres,
    _folder: TempDir,
}

impl Server {
    async fn find_or_start() -> Result<Arc<Self>, End> {
        static RUNNING: tokio::sync::Mutex<Weak<Server>> =
            tokio::sync::Mutex::const_new(Weak::new());
        let mut running = RUNNING.lock().await;
        if let Some(server) = running.upgrade() {
            return Ok(server);
        }
        let folder = folder();
        let server = Arc::new(Self {
            postgres: Postgres::find_or_start(&options(&folder)).await?,
            _folder: folder,
        });
        *running = Arc::downgrade(&server);
        Ok(server)
    }
}

/// A schema of its own with the tables of the module.
struct Database {
    schema: Schema,
    pool: PgPool,
    _server: Arc<Server>,
}

impl Database {
    async fn start() -> Result<Self, End> {
        let server = Server::find_or_start().await?;
        let schema = server.postgres.fresh_schema().await?;
        let pool = connect_lazy(schema.options(), &PoolSettings::default());
        migrate(&pool, &[MIGRATIONS]).await.unwrap();
        Ok(Self {
            schema,
            pool,
            _server: server,
        })
    }

    /// Makes another pool on the same schema, for another runtime: to be called there.
    fn another_pool_later(&self) -> impl FnOnce() -> PgPool + Send + 'static {
        let options = self.schema.options();
        move || connect_lazy(options, &PoolSettings::default())
    }

    async fn number(&self, sql: &'static str) -> i64 {
        sqlx::query_scalar(sql).fetch_one(&self.pool).await.unwrap()
    }

    async fn run(&self, sql: &'static str) {
        sqlx::raw_sql(sql).execute(&self.pool).await.unwrap();
    }

    /// Makes time pass for all keys: they are moved into the past instead.
    async fn pass(&self, time: Duration) {
        sqlx::query(
            "update idempotency_keys
             set locked_until = locked_until - $1 * interval '1 second',
                 expires_at = expires_at - $1 * interval '1 second'",
        )
        .bind(time.as_secs_f64())
        .execute(&self.pool)
        .await
        .unwrap();
    }

    /// Ends every lease, and not the time of any answer.
    async fn end_leases(&self) {
        self.run("update idempotency_keys set locked_until = least(locked_until, now() - interval '1 second')")
            .await;
    }

    /// Waits until a query says true; fails after a minute.
    async fn until(&self, what: &str, sql: &'static str) {
        let deadline = std::time::Instant::now() + Duration::from_secs(60);
        while !sqlx::query_scalar::<_, Option<bool>>(sql)
            .fetch_one(&self.pool)
            .await
            .unwrap()
            .unwrap_or_default()
        {
            assert!(
                std::time::Instant::now() < deadline,
                "never came true: {what}"
            );
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
    }
}

fn scope() -> Scope {
    Scope::new(&["acme", "POST", "/pay"])
}

fn key(text: &str) -> Key {
    Key::new(text).unwrap()
}

fn request(text: &str) -> Fingerprint {
    Fingerprint::of(&[text.as_bytes()])
}
