//! A place in the database for one check alone: a login role with a schema of its own.
//!
//! It works with every driver, since the role brings its search path with it, and takes a tenth of
//! the time of a database. Roles belong to the whole cluster, though, so in a server that the user
//! named they must not outlive us:
//!
//! - Every name carries the id of the run that made it.
//! - The run holds a session advisory lock on that id, which the server lets go when we die.
//! - The next start drops what belongs to runs whose lock is free, and touches nothing else.

use std::collections::BTreeSet;
use std::sync::atomic::Ordering;
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use sqlx::postgres::PgConnectOptions;
use sqlx::{Connection, PgConnection, Row};

use super::admin::{Admin, batch, identifier};
use super::postgres::{Inner, Postgres};
use super::{ServiceError, Upstream};

/// First half of our advisory locks' key ("kata" in ASCII); the run id is the other.
const LOCK_CLASS: i32 = 0x6b61_7461;

/// A check that needs more connections at once than this has a leak.
const CONNECTIONS: u32 = 64;

/// A session that was told to end and has not by then is busy with what cannot be interrupted.
const SESSIONS_END: Duration = Duration::from_secs(5);

/// The server notifies nobody of the end of a session.
const LOOK_AGAIN: Duration = Duration::from_millis(2);

/// A login role and the schema that it owns. Nobody else has a right on it.
///
/// Call `drop` when it is no longer needed. If that is forgotten, the schema goes with a private
/// server, and from a server that the user named with `Postgres::close` or at the next start.
#[derive(Debug)]
pub struct Schema {
    postgres: Arc<Inner>,
    name: String,
    password: String,
}

impl Postgres {
    /// Makes a role and a schema of the same name, in one round trip: some 3 ms.
    ///
    /// The role may log in 64 times at once, and has no rights but on its schema and what the
    /// server grants to everybody (in a private one nothing on schema `public` either).
    ///
    /// # Errors
    /// `MayNotCreateRoles`, for a named server; `NoAnswer` while it is paused or stopped; `Sql`.
    ///
    /// # Cancel safety
    /// Safe: a schema whose handle nobody got is dropped as the module describes.
    pub async fn fresh_schema(&self) -> Result<Schema, ServiceError> {
        let inner = self.inner();
        let number = inner.next.fetch_add(1, Ordering::Relaxed);
        let name = format!("kata_{:08x}_{number}", inner.leases.run);
        let password = super::random_secret();
        // `grant` lets a role that is no superuser give the schema away, and later drop it.
        let role = identifier(&name);
        let sql = format!(
            "create role {role} login password '{password}' connection limit {CONNECTIONS};\
             grant {role} to current_user;\
             create schema {role} authorization {role};\
             alter role {role} set search_path = {role};"
        );
        super::lock(&inner.leases.live).insert(name.clone());
        match inner.admin.batch(sql).await {
            Ok(_) => Ok(Schema {
                postgres: Arc::clone(inner),
                name,
                password,
            }),
            Err(error) => {
                // All or nothing: a batch is one transaction.
                if matches!(error, ServiceError::Sql(_)) {
                    super::lock(&inner.leases.live).remove(&name);
                }
                Err(self.explain(error))
            }
        }
    }

    fn explain(&self, error: ServiceError) -> ServiceError {
        match error {
            ServiceError::Sql(sqlx::Error::Database(error))
                if !self.is_private() && error.code().as_deref() == Some("42501") =>
            {
                ServiceError::MayNotCreateRoles {
                    role: identifier(self.admin_options().get_username()),
                    database: identifier(self.database()),
                    reason: error.message().to_owned(),
                }
            }
            other => other,
        }
    }
}

impl Schema {
    /// The name of the role, and of its schema.
    pub fn role(&self) -> &str {
        &self.name
    }

    /// The role's password: letters and digits.
    pub fn password(&self) -> &str {
        &self.password
    }

    /// The database that the schema is in.
    pub fn database(&self) -> &str {
        &self.postgres.database
    }

    /// How to connect as the role, to the server itself.
    pub fn options(&self) -> PgConnectOptions {
        let options = self.postgres.options.clone();
        options
            .username(&self.name)
            .password(&self.password)
            .database(self.database())
    }

    /// An address that every driver understands: `postgres://role:password@host:port/database`,
    /// through a proxy for example. A Unix socket goes into the parameter `host`.
    pub fn url(&self, through: &Upstream) -> String {
        let database = percent_encode(self.database());
        let (name, password) = (&self.name, &self.password);
        match through {
            Upstream::Tcp(host, port) => {
                format!("postgres://{name}:{password}@{host}:{port}/{database}")
            }
            Upstream::Unix(socket) => {
                let folder = socket.parent().unwrap_or(socket).display().to_string();
                let port = socket.extension().unwrap_or_default().display();
                let host = percent_encode(&folder);
                format!("postgres://{name}:{password}@localhost:{port}/{database}?host={host}")
            }
        }
    }

    /// How many sessions the role has at this moment.
    ///
    /// # Errors
    /// `NoAnswer` while the server is paused or stopped; `Sql`.
    pub async fn sessions(&self) -> Result<i64, ServiceError> {
        let name = self.name.clone();
        let admin = &self.postgres.admin;
        admin
            .run(move |pool| async move {
                let sql = "select count(*) from pg_stat_activity where usename = $1";
                sqlx::query_scalar(sql).bind(name).fetch_one(&pool).await
            })
            .await
    }

    /// Waits until the role has no session left: what a crashed program had open is rolled back
    /// only then. False if `limit` passed first.
    ///
    /// # Errors
    /// As `sessions`.
    ///
    /// # Cancel safety
    /// Safe.
    pub async fn wait_until_unused(&self, limit: Duration) -> Result<bool, ServiceError> {
        let deadline = Instant::now() + limit;
        while self.sessions().await? > 0 {
            if Instant::now() > deadline {
                return Ok(false);
            }
            tokio::time::sleep(LOOK_AGAIN).await;
        }
        Ok(true)
    }

    /// Makes it as it was at first: drops all that the role owns, and takes back what it has set for
    /// its later sessions. Its sessions may stay, but must have no transaction open.
    ///
    /// # Errors
    /// `NoAnswer` while the server is paused or stopped, or somebody holds a lock; `Sql`.
    ///
    /// # Cancel safety
    /// Safe: it goes on to its end.
    pub async fn empty(&self) -> Result<(), ServiceError> {
        let role = identifier(&self.name);
        let sql = format!(
            "drop owned by {role} cascade;\
             create schema {role} authorization {role};\
             alter role {role} reset all;\
             alter role {role} set search_path = {role};"
        );
        self.postgres.admin.batch(sql).await.map(drop)
    }

    /// Ends the role's sessions, and drops the schema, all in it, and the role.
    ///
    /// # Errors
    /// `NoAnswer` while the server is paused or stopped; `Sql`.
    ///
    /// # Cancel safety
    /// Safe: it goes on to its end.
    pub async fn drop(self) -> Result<(), ServiceError> {
        drop_all(&self.postgres.admin, vec![self.name.clone()]).await?;
        super::lock(&self.postgres.leases.live).remove(&self.name);
        Ok(())
    }
}

/// What this run has made, and in a named server the lock that says so.
#[derive(Debug)]
pub(super) struct Leases {
    run: u32,
    live: Mutex<BTreeSet<String>>,
    /// Its session holds the advisory lock on `run`.
    lock: Mutex<Option<PgConnection>>,
}

impl Leases {
    /// For a private server, which goes as a whole.
    pub(super) fn none() -> Self {
        Self {
            run: rand::random(),
            live: Mutex::default(),
            lock: Mutex::default(),
        }
    }

    /// For a server that the user named: sweeps what dead runs left, then takes a lock.
    pub(super) async fn take(
        admin: &Admin,
        options: &PgConnectOptions,
    ) -> Result<Self, ServiceError> {
        let mut leases = Self::none();
        let (run, options) = (leases.run, options.clone().application_name("kata lease"));
        // On the administrator's runtime, where the connection may live as long as we do.
        let connection = admin.run(move |_| async move {
            let mut connection = PgConnection::connect_with(&options).await?;
            sweep(&mut connection).await?;
            try_lock(&mut connection, run).await?;
            Ok(connection)
        });
        leases.lock = Mutex::new(Some(connection.await?));
        Ok(leases)
    }

    /// Drops all that is still there, and gives the lock back.
    pub(super) async fn release(&self, admin: &Admin) -> Result<(), ServiceError> {
        let left: Vec<String> = super::lock(&self.live).iter().cloned().collect();
        drop_all(admin, left).await?;
        super::lock(&self.live).clear();
        let connection = super::lock(&self.lock).take();
        if let Some(connection) = connection {
            admin.run(move |_| connection.close()).await?;
        }
        Ok(())
    }
}

async fn drop_all(admin: &Admin, names: Vec<String>) -> Result<(), ServiceError> {
    let dropped = admin.run(move |pool| async move {
        let mut connection = pool.acquire().await?;
        for name in names {
            drop_one(&mut connection, &name).await?;
        }
        Ok(())
    });
    dropped.await
}

async fn drop_one(connection: &mut PgConnection, name: &str) -> Result<(), sqlx::Error> {
    let role = identifier(name);
    let exists = sqlx::query("select from pg_roles where rolname = $1").bind(name);
    if exists.fetch_optional(&mut *connection).await?.is_none() {
        return Ok(());
    }
    // A role that may no longer log in cannot come back in between.
    batch(connection, format!("alter role {role} nologin")).await?;
    end_sessions(connection, name).await?;
    batch(
        connection,
        format!("drop owned by {role} cascade; drop role {role}"),
    )
    .await?;
    Ok(())
}

/// Tells the role's sessions to end and waits for it: they may hold locks on what is to be dropped.
async fn end_sessions(connection: &mut PgConnection, name: &str) -> Result<(), sqlx::Error> {
    // `pg_terminate_backend` can wait as well, but looks again only every 100 ms.
    let told = "select count(pg_terminate_backend(pid)) from pg_stat_activity where usename = $1";
    let deadline = Instant::now() + SESSIONS_END;
    loop {
        let alive: i64 = sqlx::query_scalar(told)
            .bind(name)
            .fetch_one(&mut *connection)
            .await?;
        if alive == 0 || Instant::now() > deadline {
            return Ok(());
        }
        tokio::time::sleep(LOOK_AGAIN).await;
    }
}

async fn try_lock(connection: &mut PgConnection, run: u32) -> Result<bool, sqlx::Error> {
    sqlx::query_scalar("select pg_try_advisory_lock($1, $2)")
        .bind(LOCK_CLASS)
        .bind(run.cast_signed())
        .fetch_one(connection)
        .await
}

/// Drops what runs left whose lock is free. Only roles with a schema in this database: advisory
/// locks are per database, so of runs in another one we cannot know.
async fn sweep(connection: &mut PgConnection) -> Result<(), sqlx::Error> {
    let rows = sqlx::query(
        "select rolname::text from pg_roles join pg_namespace on nspname = rolname \
         where rolname ~ '^kata_[0-9a-f]{8}_[0-9]+$' order by rolname",
    )
    .fetch_all(&mut *connection)
    .await?;
    for row in rows {
        let name: String = row.get(0);
        let run = name
            .get(5..13)
            .and_then(|run| u32::from_str_radix(run, 16).ok());
        let Some(run) = run else { continue };
        if try_lock(connection, run).await? {
            // One that fails must not stop the others, nor this start.
            if let Err(error) = drop_one(connection, &name).await {
                tracing::warn!(role = name, %error, "cannot drop what a dead run left");
            }
            sqlx::query("select pg_advisory_unlock($1, $2)")
                .bind(LOCK_CLASS)
                .bind(run.cast_signed())
                .execute(&mut *connection)
                .await?;
        }
    }
    Ok(())
}

/// Encodes what an address may not hold as it is.
fn percent_encode(text: &str) -> String {
    let mut encoded = String::new();
    for byte in text.bytes() {
        if byte.is_ascii_alphanumeric() || matches!(byte, b'-' | b'_' | b'.' | b'~') {
            encoded.push(char::from(byte));
        } else {
            encoded.push_str(&format!("%{byte:02X}"));
        }
    }
    encoded
}
