//! Migrations that are part of the program: no files to find at run time, no tool to install.
//!
//! Not sqlx's migrator: it locks the whole database for each run, where fifty checks migrate fifty
//! schemas at once, and when a migration fails its session lock stays with a pooled connection.
//! Here all pending migrations run in one transaction, and the lock goes with it.

use sha2::{Digest, Sha256};
use sqlx::{PgConnection, PgPool, Row};

use super::transaction::{TxOptions, begin};

/// One step of the schema. Never edit one that has been applied anywhere: add another.
#[derive(Debug, Clone, Copy)]
pub struct Migration {
    /// Greater than the one before it.
    pub version: i64,
    /// What it does, for messages.
    pub name: &'static str,
    /// Statements, usually from `include_str!`. They run in a transaction, so no
    /// `create index concurrently`.
    pub sql: &'static str,
}

/// Why the schema is not what the program expects.
#[derive(Debug, thiserror::Error)]
pub enum MigrateError {
    /// The list itself is wrong: a mistake in the program.
    #[error("migration {version} does not come after the one before it")]
    Order {
        /// The offending one.
        version: i64,
    },
    /// It was applied with another text. Whoever edited it must put it back and add a new one.
    #[error("migration {version} ({name}) was changed after it was applied")]
    Changed {
        /// Its version.
        version: i64,
        /// Its name today.
        name: &'static str,
    },
    /// The database is ahead of us or on another branch: an older program must not touch it.
    #[error("the database has migration {version}, which this program does not know")]
    Unknown {
        /// The version found.
        version: i64,
    },
    /// It comes before one that was applied already, so that two databases would differ.
    #[error("migration {version} ({name}) is older than the last one that was applied")]
    Late {
        /// Its version.
        version: i64,
        /// Its name.
        name: &'static str,
    },
    /// Its SQL fails. Nothing of this run was applied.
    #[error("migration {version} ({name}) fails: {error}")]
    Failed {
        /// Its version.
        version: i64,
        /// Its name.
        name: &'static str,
        /// What PostgreSQL says.
        error: sqlx::Error,
    },
    /// The database cannot be reached, or its bookkeeping not be read.
    #[error("cannot migrate: {0}")]
    Sql(#[from] sqlx::Error),
}

/// Applies what is pending, all or nothing, in the first schema of the search path. How many.
///
/// Instances that start at once wait for each other.
///
/// # Errors
/// See `MigrateError`; nothing was applied then.
///
/// # Cancel safety
/// Safe: a transaction that was not committed is rolled back.
pub async fn migrate(pool: &PgPool, migrations: &[Migration]) -> Result<usize, MigrateError> {
    for pair in migrations.windows(2) {
        if pair[1].version <= pair[0].version {
            return Err(MigrateError::Order {
                version: pair[1].version,
            });
        }
    }
    let mut tx = begin(pool, &TxOptions::default()).await?;
    // `create table if not exists` is no protection: two at once both find nothing, and one fails.
    // Another instance's migrations may take longer than a request may wait for a lock.
    sqlx::raw_sql(
        "set local lock_timeout = '5min';
         set local statement_timeout = '5min';
         select pg_advisory_xact_lock(hashtextextended(current_schema() || '.migrations', 0));
         create table if not exists schema_migrations (
             version bigint primary key,
             name text not null,
             checksum text not null,
             applied_at timestamptz not null default clock_timestamp()
         )",
    )
    .execute(&mut *tx)
    .await?;
    let mut applied = 0;
    for migration in pending(&mut tx, migrations).await? {
        apply(&mut tx, migration).await?;
        applied += 1;
    }
    tx.commit().await?;
    Ok(applied)
}

async fn pending<'a>(
    connection: &mut PgConnection,
    migrations: &'a [Migration],
) -> Result<Vec<&'a Migration>, MigrateError> {
    let rows = sqlx::query("select version, checksum from schema_migrations order by version")
        .fetch_all(connection)
        .await?;
    let mut last = i64::MIN;
    for row in &rows {
        let (version, found): (i64, String) = (row.try_get(0)?, row.try_get(1)?);
        let known = migrations.iter().find(|known| known.version == version);
        let migration = known.ok_or(MigrateError::Unknown { version })?;
        if checksum(migration.sql) != found {
            return Err(MigrateError::Changed {
                version,
                name: migration.name,
            });
        }
        last = version;
    }
    let mut pending = Vec::new();
    for migration in migrations {
        let is_applied = rows
            .iter()
            .any(|row| row.try_get(0).ok() == Some(migration.version));
        if is_applied {
            continue;
        }
        if migration.version < last {
            return Err(MigrateError::Late {
                version: migration.version,
                name: migration.name,
            });
        }
        pending.push(migration);
    }
    Ok(pending)
}

async fn apply(connection: &mut PgConnection, migration: &Migration) -> Result<(), MigrateError> {
    let failed = |error| MigrateError::Failed {
        version: migration.version,
        name: migration.name,
        error,
    };
    sqlx::raw_sql(migration.sql)
        .execute(&mut *connection)
        .await
        .map_err(failed)?;
    sqlx::query("insert into schema_migrations (version, name, checksum) values ($1, $2, $3)")
        .bind(migration.version)
        .bind(migration.name)
        .bind(checksum(migration.sql))
        .execute(connection)
        .await
        .map_err(failed)?;
    Ok(())
}

/// Of the text without carriage returns: a checkout on another system is not another migration.
fn checksum(sql: &str) -> String {
    let digest = Sha256::digest(sql.replace('\r', ""));
    digest.iter().map(|byte| format!("{byte:02x}")).collect()
}
