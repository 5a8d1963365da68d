//! A database of a test's own, and what is asked of it.

use shared::db::{PoolSettings, connect_lazy};
use shared::services::{Postgres, Schema};
use sqlx::PgPool;
use tempfile::TempDir;

use crate::postgres::{folder, options};
use crate::support::End;

pub(super) struct Database {
    pub(super) postgres: Postgres,
    pub(super) schema: Schema,
    _folder: TempDir,
}

impl Database {
    pub(super) async fn start() -> Result<Self, End> {
        let folder = folder();
        let postgres = Postgres::find_or_start(&options(&folder)).await?;
        let schema = postgres.fresh_schema().await?;
        Ok(Self {
            postgres,
            schema,
            _folder: folder,
        })
    }

    pub(super) fn pool(&self, max_connections: u32) -> PgPool {
        let settings = PoolSettings {
            max_connections,
            ..PoolSettings::default()
        };
        connect_lazy(self.schema.options(), &settings)
    }

    /// How many of the schema's sessions are in a transaction that nobody works in.
    pub(super) async fn open_transactions(&self, admin: &PgPool) -> i64 {
        let sql = "select count(*) from pg_stat_activity \
                   where usename = $1 and state like 'idle in transaction%'";
        sqlx::query_scalar(sql)
            .bind(self.schema.role())
            .fetch_one(admin)
            .await
            .unwrap()
    }

    pub(super) fn admin(&self) -> PgPool {
        connect_lazy(self.postgres.admin_options(), &PoolSettings::default())
    }
}

pub(super) async fn run(pool: &PgPool, sql: &'static str) {
    sqlx::raw_sql(sql).execute(pool).await.unwrap();
}

pub(super) async fn number(pool: &PgPool, sql: &'static str) -> i64 {
    sqlx::query_scalar(sql).fetch_one(pool).await.unwrap()
}

pub(super) fn code(error: &sqlx::Error) -> String {
    let database = error
        .as_database_error()
        .unwrap_or_else(|| panic!("{error}"));
    database.code().unwrap().into_owned()
}
