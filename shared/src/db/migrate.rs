//! Migrations that are part of the program: no files to find at run time, no tool to install.
//!
//! Not sqlx's migrator: it locks the whole database for each run, where fifty checks migrate fifty
//! schemas at once, and when a migration fails its session lock stays with a pooled connection.
//! Here all pending migrations run in one transaction, and the lock goes with it.

use sha2::{Digest, Sha256};
use sqlx::{PgConnection, PgPool};

use super::transaction::{TxOptions, begin};

/// All steps of one owner: the application, or a library that brings tables of its own. Each has its
/// own numbers, so that none has to know what the others come to add.
#[derive(Debug, Clone, Copy)]
pub struct Migrations<'a> {
    /// Never changes; a library's has a slash in it, as in `shared/queue`.
    pub owner: &'a str,
    /// In the order of their versions.
    pub steps: &'a [Migration],
}

/// One step of the schema. Never edit one that has been applied anywhere: add another.
#[derive(Debug, Clone, Copy)]
pub struct Migration {
    /// Greater than the one before it of the same owner.
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
    #[error("migration {version} of {owner} does not come after the one before it")]
    Order {
        /// Whose list it is.
        owner: String,
        /// The offending one.
        version: i64,
    },
    /// Two lists have the same owner: a mistake in the program.
    #[error("{owner} has two lists of migrations")]
    Twice {
        /// Whose.
        owner: String,
    },
    /// It was applied with another text. Whoever edited it must put it back and add a new one.
    #[error("migration {version} of {owner} ({name}) was changed after it was applied")]
    Changed {
        /// Whose it is.
        owner: String,
        /// Its version.
        version: i64,
        /// Its name today.
        name: &'static str,
    },
    /// The database is ahead of us or on another branch: an older program must not touch it.
    #[error("the database has migration {version} of {owner}, which this program does not know")]
    Unknown {
        /// Whose it is.
        owner: String,
        /// The version found.
        version: i64,
    },
    /// It comes before one that was applied already, so that two databases would differ.
    #[error("migration {version} of {owner} ({name}) is older than the last one that was applied")]
    Late {
        /// Whose it is.
        owner: String,
        /// Its version.
        version: i64,
        /// Its name.
        name: &'static str,
    },
    /// Its SQL fails. Nothing of this run was applied.
    #[error("migration {version} of {owner} ({name}) fails: {error}")]
    Failed {
        /// Whose it is.
        owner: String,
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
/// Instances that start at once wait for each other. What other owners have applied is left alone:
/// another program may have put it there.
///
/// # Errors
/// See `MigrateError`; nothing was applied then.
///
/// # Cancel safety
/// Safe: a transaction that was not committed is rolled back.
pub async fn migrate(pool: &PgPool, migrations: &[Migrations<'_>]) -> Result<usize, MigrateError> {
    for (at, of) in migrations.iter().enumerate() {
        if migrations[..at].iter().any(|other| other.owner == of.owner) {
            return Err(MigrateError::Twice {
                owner: of.owner.to_owned(),
            });
        }
        for pair in of.steps.windows(2) {
            if pair[1].version <= pair[0].version {
                return Err(MigrateError::Order {
                    owner: of.owner.to_owned(),
                    version: pair[1].version,
                });
            }
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
             owner text not null,
             version bigint not null,
             name text not null,
             checksum text not null,
             applied_at timestamptz not null default clock_timestamp(),
             primary key (owner, version)
         )",
    )
    .execute(&mut *tx)
    .await?;
    let mut applied = 0;
    for of in migrations {
        for migration in pending(&mut tx, of).await? {
            apply(&mut tx, of.owner, migration).await?;
            applied += 1;
        }
    }
    tx.commit().await?;
    Ok(applied)
}

async fn pending<'a>(
    connection: &mut PgConnection,
    of: &Migrations<'a>,
) -> Result<Vec<&'a Migration>, MigrateError> {
    let owner = || of.owner.to_owned();
    let rows: Vec<(i64, String)> = sqlx::query_as(
        "select version, checksum from schema_migrations where owner = $1 order by version",
    )
    .bind(of.owner)
    .fetch_all(connection)
    .await?;
    for (version, found) in &rows {
        let known = of.steps.iter().find(|known| known.version == *version);
        let migration = known.ok_or_else(|| MigrateError::Unknown {
            owner: owner(),
            version: *version,
        })?;
        if checksum(migration.sql) != *found {
            return Err(MigrateError::Changed {
                owner: owner(),
                version: *version,
                name: migration.name,
            });
        }
    }
    let is_applied = |migration: &&Migration| {
        rows.iter()
            .any(|(version, _)| *version == migration.version)
    };
    let pending: Vec<&Migration> = of.steps.iter().filter(|step| !is_applied(step)).collect();
    match (pending.first(), rows.last()) {
        (Some(first), Some((last, _))) if first.version < *last => Err(MigrateError::Late {
            owner: owner(),
            version: first.version,
            name: first.name,
        }),
        _ => Ok(pending),
    }
}

async fn apply(
    connection: &mut PgConnection,
    owner: &str,
    migration: &Migration,
) -> Result<(), MigrateError> {
    let failed = |error| MigrateError::Failed {
        owner: owner.to_owned(),
        version: migration.version,
        name: migration.name,
        error,
    };
    sqlx::raw_sql(migration.sql)
        .execute(&mut *connection)
        .await
        .map_err(failed)?;
    let insert = "insert into schema_migrations (owner, version, name, checksum)
                  values ($1, $2, $3, $4)";
    sqlx::query(insert)
        .bind(owner)
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
