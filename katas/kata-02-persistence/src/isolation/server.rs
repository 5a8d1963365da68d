//! The server that is measured: how to reach it, what its levels are called, and who waits there.

use std::{
    collections::{BTreeMap, BTreeSet},
    sync::atomic::{AtomicU64, Ordering},
    time::Duration,
};

use sqlx::{
    Connection,
    mysql::{MySqlConnectOptions, MySqlConnection},
    postgres::{PgConnectOptions, PgConnection},
};
use tokio::sync::Mutex;

use super::session::{Answer, Link, Session};

/// Our schemas and databases begin with this, so that a later run knows what an earlier one left.
const PREFIX: &str = "kata_isolation_";

/// Why nothing could be measured.
#[derive(Debug, thiserror::Error)]
pub enum LabError {
    /// The address is of no kind that we speak.
    #[error("{0:?} is no address of a server: postgres://… or mysql://… (MariaDB too)")]
    Address(String),
    /// The server did not let us in.
    #[error("{address} does not let us in: {reason}")]
    NotLetIn {
        /// Where, without a password.
        address: String,
        /// What was said.
        reason: String,
    },
    /// It refused something that the laboratory needs.
    #[error("the server refuses what the laboratory needs, `{sql}`: {reason}")]
    Needs {
        /// The statement.
        sql: String,
        /// What it said.
        reason: String,
    },
    /// A connection was lost.
    #[error("the connection to the server was lost: {0}")]
    Lost(#[from] sqlx::Error),
    /// A session neither answered nor was seen waiting for another one of ours.
    #[error("{0}")]
    Stuck(String),
}

/// How to connect.
#[derive(Debug, Clone)]
pub enum Address {
    /// PostgreSQL.
    Postgres(PgConnectOptions),
    /// MariaDB or MySQL.
    MySql(MySqlConnectOptions),
}

impl Address {
    /// Reads `postgres://…` or `mysql://…`.
    ///
    /// # Errors
    /// [`LabError::Address`].
    pub fn parse(url: &str) -> Result<Self, LabError> {
        // A wrong address may hold a password: only its beginning is repeated.
        let scheme = url.split("://").next().unwrap_or_default();
        let wrong = || LabError::Address(format!("{scheme}://…"));
        match scheme {
            "postgres" | "postgresql" => url.parse().map(Self::Postgres).map_err(|_| wrong()),
            "mysql" | "mariadb" => {
                let url = url.replacen("mariadb://", "mysql://", 1);
                url.parse().map(Self::MySql).map_err(|_| wrong())
            }
            _ => Err(LabError::Address(scheme.chars().take(40).collect())),
        }
    }

    fn shown(&self) -> String {
        match self {
            Self::Postgres(options) => format!("{}:{}", options.get_host(), options.get_port()),
            Self::MySql(options) => format!("{}:{}", options.get_host(), options.get_port()),
        }
    }

    async fn link(&self) -> Result<Link, sqlx::Error> {
        Ok(match self {
            Self::Postgres(options) => Link::Postgres(PgConnection::connect_with(options).await?),
            Self::MySql(options) => Link::MySql(MySqlConnection::connect_with(options).await?),
        })
    }
}

/// An isolation level, as SQL and the command line call it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Level {
    /// Only MariaDB and MySQL have it; PostgreSQL takes it for the next one.
    ReadUncommitted,
    /// Each statement sees what was committed before it.
    ReadCommitted,
    /// Each transaction sees what was committed before its first statement.
    RepeatableRead,
    /// As if one transaction ran after the other.
    Serializable,
}

impl Level {
    /// The name with a blank: `read committed`.
    pub fn name(self) -> &'static str {
        match self {
            Self::ReadUncommitted => "read uncommitted",
            Self::ReadCommitted => "read committed",
            Self::RepeatableRead => "repeatable read",
            Self::Serializable => "serializable",
        }
    }

    /// From the name as it is typed: `read-committed`.
    pub fn typed(name: &str) -> Option<Self> {
        let all = [
            Self::ReadUncommitted,
            Self::ReadCommitted,
            Self::RepeatableRead,
            Self::Serializable,
        ];
        let typed = name.replace('-', " ");
        all.into_iter().find(|level| level.name() == typed)
    }
}

/// A server with a place of our own on it, which is removed when this is closed or dropped.
pub struct Server {
    address: Address,
    product: String,
    place: String,
    /// Looks at the others, and holds the lock that says that the place is in use.
    watch: Mutex<Link>,
    looks: AtomicU64,
    removed: bool,
}

impl Server {
    /// Connects and makes a schema (PostgreSQL) or a database (MariaDB) for the laboratory.
    ///
    /// # Errors
    /// [`LabError::NotLetIn`]; [`LabError::Needs`] if it may not be made.
    pub async fn open(address: Address) -> Result<Self, LabError> {
        let mut watch = address.link().await.map_err(|error| LabError::NotLetIn {
            address: address.shown(),
            reason: error.to_string(),
        })?;
        let product = product(&mut watch).await?;
        let place = format!("{PREFIX}{:08x}", rand::random::<u32>());
        sweep(&mut watch).await?;
        let take = lock(&watch, &place);
        needed(&mut watch, &take).await?;
        let mut server = Self {
            address,
            product,
            place: place.clone(),
            watch: Mutex::new(watch),
            looks: AtomicU64::new(0),
            removed: true,
        };
        let watch = server.watch.get_mut();
        let create = create(watch, &place);
        needed(watch, &create).await?;
        server.removed = false;
        needed(server.watch.get_mut(), &enter(&server.address, &place)).await?;
        let tables = [
            "create table account (id integer primary key, balance integer not null)",
            "create table list (id integer primary key, elements varchar(4000) not null)",
        ];
        for table in tables {
            let watch = server.watch.get_mut();
            let sql = match watch {
                Link::Postgres(_) => table.to_owned(),
                Link::MySql(_) => format!("{table} engine = InnoDB"),
            };
            needed(watch, &sql).await?;
        }
        Ok(server)
    }

    /// Name and version: `PostgreSQL 15.18`.
    pub fn product(&self) -> &str {
        &self.product
    }

    /// Whether it is MariaDB or MySQL.
    pub fn is_mysql(&self) -> bool {
        matches!(self.address, Address::MySql(_))
    }

    /// The levels that differ on this server.
    pub fn levels(&self) -> &'static [Level] {
        use Level::{ReadCommitted, ReadUncommitted, RepeatableRead, Serializable};
        match self.address {
            Address::Postgres(_) => &[ReadCommitted, RepeatableRead, Serializable],
            Address::MySql(_) => &[ReadUncommitted, ReadCommitted, RepeatableRead, Serializable],
        }
    }

    /// Puts the tables back to how every script begins.
    pub(super) async fn reset(&self, rows: &[&str]) -> Result<(), LabError> {
        let mut watch = self.watch.lock().await;
        for sql in ["delete from account", "delete from list"]
            .iter()
            .chain(rows)
        {
            needed(&mut watch, sql).await?;
        }
        Ok(())
    }

    /// What a look from outside shows.
    pub(super) async fn look(&self, sql: &str) -> Result<String, LabError> {
        Ok(needed(&mut *self.watch.lock().await, sql).await?.text())
    }

    /// A session that is in our place.
    pub(super) async fn session(&self) -> Result<Session, LabError> {
        let mut link = self.address.link().await?;
        needed(&mut link, &enter(&self.address, &self.place)).await?;
        Ok(Session::start(link).await?)
    }

    /// Begins a transaction. Neither server takes its snapshot here, but at the first read.
    pub(super) async fn begin(&self, session: &Session, level: Level) -> Result<(), LabError> {
        let level = level.name();
        let statements = match self.address {
            Address::Postgres(_) => vec![format!("begin isolation level {level}")],
            Address::MySql(_) => vec![
                format!("set transaction isolation level {level}"),
                "start transaction".to_owned(),
            ],
        };
        for sql in statements {
            accepted(&sql, session.ask(&sql).await?)?;
        }
        Ok(())
    }

    /// How long to wait for answers before the server is asked who waits. InnoDB renews what it
    /// answers only if nobody has looked for 0.1 s, so whoever looks more often sees nothing new.
    pub(super) fn between_looks(&self) -> Duration {
        Duration::from_millis(if self.is_mysql() { 110 } else { 2 })
    }

    /// Which of these sessions wait for a lock at this moment, and for whom if the server says so.
    /// `None` if the server's answer may be an old one: ask again.
    pub(super) async fn waiting(
        &self,
        sessions: &[i64],
    ) -> Result<Option<BTreeMap<i64, BTreeSet<i64>>>, LabError> {
        let mut watch = self.watch.lock().await;
        match &mut *watch {
            Link::Postgres(_) => {
                let list: Vec<_> = sessions.iter().map(i64::to_string).collect();
                let sql = format!(
                    "select pid, array_to_string(pg_blocking_pids(pid), ',') \
                     from unnest(array[{}]::int[]) as pid \
                     where cardinality(pg_blocking_pids(pid)) > 0",
                    list.join(",")
                );
                let answer = needed(&mut watch, &sql).await?.text();
                Ok(Some(waits(&answer)))
            }
            Link::MySql(_) => {
                // The copy that InnoDB answers from holds our own statement too: if the number of
                // this very look is in it, it is new.
                let look = self.looks.fetch_add(1, Ordering::Relaxed);
                needed(&mut watch, "start transaction with consistent snapshot").await?;
                let sql = format!(
                    "select trx_mysql_thread_id, 0 from information_schema.innodb_trx \
                     where trx_state = 'LOCK WAIT' \
                     union all select -1, count(*) from information_schema.innodb_trx \
                     where trx_mysql_thread_id = connection_id() and trx_query like '%look {look}.%'"
                );
                let answer = needed(&mut watch, &sql).await?.text();
                needed(&mut watch, "commit").await?;
                let mut waiting = waits(&answer);
                let fresh = waiting.remove(&-1).is_some_and(|seen| seen.contains(&1));
                waiting.retain(|session, _| sessions.contains(session));
                waiting.values_mut().for_each(BTreeSet::clear);
                Ok(fresh.then_some(waiting))
            }
        }
    }

    /// Removes our place.
    ///
    /// # Errors
    /// If the server does not let us.
    pub async fn close(mut self) -> Result<(), LabError> {
        let sql = remove(&self.address, &self.place);
        needed(self.watch.get_mut(), &sql).await?;
        self.removed = true;
        Ok(())
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        if self.removed {
            return;
        }
        // Given up half way: on a thread of its own, since the runtime may be going too.
        let (address, place) = (self.address.clone(), self.place.clone());
        let work = std::thread::spawn(move || {
            let runtime = tokio::runtime::Builder::new_current_thread()
                .enable_all()
                .build()
                .ok()?;
            runtime.block_on(async {
                let mut link = address.link().await.ok()?;
                needed(&mut link, &remove(&address, &place)).await.ok()
            })
        });
        // If it fails, the next run sweeps.
        let _ = work.join();
    }
}

/// `7:3,4 9:0` as a map.
fn waits(answer: &str) -> BTreeMap<i64, BTreeSet<i64>> {
    let rows = answer.split(' ').filter_map(|row| row.split_once(':'));
    let parsed = rows.filter_map(|(session, by)| {
        let by = by.split(',').filter_map(|number| number.parse().ok());
        Some((session.parse().ok()?, by.collect()))
    });
    parsed.collect()
}

/// Runs what must not be refused.
async fn needed(link: &mut Link, sql: &str) -> Result<Answer, LabError> {
    accepted(sql, link.run(sql).await?)
}

/// An answer that is no refusal.
fn accepted(sql: &str, answer: Answer) -> Result<Answer, LabError> {
    match answer {
        Answer::Refused { code, message } => Err(LabError::Needs {
            sql: sql.to_owned(),
            reason: format!("{message} ({code})"),
        }),
        answer => Ok(answer),
    }
}

async fn product(link: &mut Link) -> Result<String, LabError> {
    let sql = match link {
        Link::Postgres(_) => "select current_setting('server_version')",
        Link::MySql(_) => "select version()",
    };
    let version = needed(link, sql).await?.text();
    let number = version.split([' ', '-']).next().unwrap_or_default();
    Ok(match link {
        Link::Postgres(_) => format!("PostgreSQL {number}"),
        Link::MySql(_) if !version.contains("MariaDB") => format!("MySQL {number}"),
        Link::MySql(_) => {
            let sql = "select variable_value from information_schema.global_variables \
                       where variable_name = 'innodb_snapshot_isolation'";
            match needed(link, sql).await?.text().as_str() {
                "none" => format!("MariaDB {number}"),
                value => format!(
                    "MariaDB {number}, innodb_snapshot_isolation {}",
                    value.to_lowercase()
                ),
            }
        }
    })
}

fn create(link: &Link, place: &str) -> String {
    match link {
        Link::Postgres(_) => format!("create schema {place}"),
        Link::MySql(_) => format!("create database {place}"),
    }
}

fn enter(address: &Address, place: &str) -> String {
    match address {
        Address::Postgres(_) => format!("set search_path = {place}"),
        Address::MySql(_) => format!("use {place}"),
    }
}

fn remove(address: &Address, place: &str) -> String {
    match address {
        Address::Postgres(_) => format!("drop schema if exists {place} cascade"),
        Address::MySql(_) => format!("drop database if exists {place}"),
    }
}

/// Takes the lock that belongs to a place for as long as the session lives: 1 if nobody has it.
fn lock(link: &Link, place: &str) -> String {
    match link {
        Link::Postgres(_) => format!("select pg_try_advisory_lock(hashtext('{place}'))::int"),
        Link::MySql(_) => format!("select get_lock('{place}', 0)"),
    }
}

/// Removes the places of runs that were killed: nobody holds their lock.
async fn sweep(link: &mut Link) -> Result<(), LabError> {
    let pattern = PREFIX.replace('_', "\\_");
    let (sql, kind) = match link {
        Link::Postgres(_) => (
            "select nspname::text from pg_namespace where nspname like",
            "schema",
        ),
        Link::MySql(_) => (
            "select schema_name from information_schema.schemata where schema_name like",
            "database",
        ),
    };
    let sql = match link {
        Link::Postgres(_) => format!("{sql} '{pattern}%'"),
        Link::MySql(_) => format!("{sql} '{}%'", pattern.replace('\\', "\\\\")),
    };
    let found = needed(link, &sql).await?.text();
    let places = found.split(' ').filter(|place| place.starts_with(PREFIX));
    for place in places {
        let sql = lock(link, place);
        if needed(link, &sql).await?.text() != "1" {
            continue;
        }
        let cascade = if kind == "schema" { " cascade" } else { "" };
        needed(link, &format!("drop {kind} if exists {place}{cascade}")).await?;
        let unlock = match link {
            Link::Postgres(_) => format!("select pg_advisory_unlock(hashtext('{place}'))::int"),
            Link::MySql(_) => format!("select release_lock('{place}')"),
        };
        needed(link, &unlock).await?;
    }
    Ok(())
}
