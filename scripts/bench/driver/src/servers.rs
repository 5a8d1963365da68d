//! The two servers, durable as in production, and what can be read off them.

use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use shared::services::{Options, Postgres, Redis, RedisOptions};
use sqlx::postgres::{PgConnectOptions, PgPool, PgPoolOptions};
use sqlx::{AssertSqlSafe, ConnectOptions};

use crate::Error;
use crate::plan::Store;

/// What makes the private PostgreSQL durable again (the gym's are for data that is thrown away),
/// and what keeps one run from being charged for another.
const POSTGRES: &[(&str, &str)] = &[
    ("fsync", "on"),
    ("synchronous_commit", "on"),
    ("full_page_writes", "on"),
    // With `minimal`, tables made in the same transaction would not be logged.
    ("wal_level", "replica"),
    ("autovacuum", "on"),
    ("shared_buffers", "512MB"),
    // No checkpoint within a run: it logs whole pages again, for whoever comes next. There is one
    // before each run instead.
    ("max_wal_size", "8GB"),
    ("checkpoint_timeout", "1h"),
    ("deadlock_timeout", "1s"),
];

const REDIS: &[(&str, &str)] = &[
    ("appendonly", "yes"),
    ("appendfsync", "everysec"),
    // A rewrite within a run would hide what the run has written. There is one before each.
    ("auto-aof-rewrite-percentage", "0"),
];

/// How long the end of a run may take to reach the server's counters.
const SETTLE_LIMIT: Duration = Duration::from_secs(10);

/// Counters of a server at one moment.
#[derive(Debug, Clone, Copy, Default)]
pub(crate) struct Reading {
    /// Bytes written to the log.
    pub(crate) log_bytes: f64,
    /// Processor time of the server with all its processes; `None` where there is no `/proc`.
    pub(crate) cpu_seconds: Option<f64>,
}

/// Both servers, for as long as this lives.
pub(crate) struct Servers {
    postgres: Postgres,
    admin: PgPool,
    redis: Redis,
    redis_connection: redis::aio::MultiplexedConnection,
    /// Of PostgreSQL's parent process.
    postmaster: Option<i32>,
    places: usize,
}

/// A fresh place for one run.
pub(crate) struct Place {
    pub(crate) url: String,
    store: Store,
    database: String,
}

impl Servers {
    pub(crate) async fn start() -> Result<Self, Error> {
        // Never a server that the user named: what is measured here fills and empties it.
        let mut options = Options::from_env().url(None).tcp().databases();
        for (name, value) in POSTGRES {
            options = options.setting(*name, *value);
        }
        let postgres = Postgres::find_or_start(&options).await?;
        let mut options = RedisOptions::from_env().url(None);
        for (name, value) in REDIS {
            options = options.setting(*name, *value);
        }
        let redis = Redis::find_or_start(&options).await?;

        let admin = PgPoolOptions::new()
            .max_connections(1)
            .connect_with(postgres.admin_options())
            .await?;
        let backend: i32 = sqlx::query_scalar("select pg_backend_pid()")
            .fetch_one(&admin)
            .await?;
        let redis_connection = redis::Client::open(redis.url())?
            .get_multiplexed_async_connection()
            .await?;
        Ok(Self {
            postgres,
            admin,
            redis,
            redis_connection,
            postmaster: process(backend).map(|backend| backend.parent),
            places: 0,
        })
    }

    pub(crate) fn describe(&self) -> [String; 2] {
        let list = |settings: &[(&str, &str)]| {
            let settings = settings
                .iter()
                .map(|(name, value)| format!("{name} {value}"));
            settings.collect::<Vec<_>>().join(", ")
        };
        [
            format!("{} · {}", self.postgres.describe(), list(POSTGRES)),
            format!("{} · {}", self.redis.describe(), list(REDIS)),
        ]
    }

    /// The folder of PostgreSQL's programs.
    pub(crate) async fn programs(&self) -> Result<PathBuf, Error> {
        Ok(self.postgres.programs_and_data().await?.0)
    }

    /// An empty store in which nothing is pending from the run before.
    pub(crate) async fn fresh(&mut self, store: Store) -> Result<Place, Error> {
        match store {
            Store::Postgres => {
                self.places += 1;
                let database = format!("bench_{}", self.places);
                self.execute(&format!("create database {database}")).await?;
                self.execute("checkpoint").await?;
                let options = self.postgres.admin_options().database(&database);
                Ok(Place {
                    url: url(&options),
                    store,
                    database,
                })
            }
            Store::Redis => {
                let redis = &mut self.redis_connection;
                redis::cmd("FLUSHALL").arg("SYNC").exec_async(redis).await?;
                redis::cmd("BGREWRITEAOF").exec_async(redis).await?;
                let deadline = Instant::now() + SETTLE_LIMIT;
                while Instant::now() < deadline {
                    let text = self.redis_information("persistence").await?;
                    let idle = |name| field(&text, name) == Some("0");
                    if idle("aof_rewrite_in_progress") && idle("aof_rewrite_scheduled") {
                        break;
                    }
                    tokio::time::sleep(Duration::from_millis(10)).await;
                }
                Ok(Place {
                    url: self.redis.url().to_owned(),
                    store,
                    database: String::new(),
                })
            }
        }
    }

    /// What the server has counted so far.
    pub(crate) async fn read(&mut self, place: &Place) -> Result<Reading, Error> {
        match place.store {
            Store::Postgres => Ok(Reading {
                // First, since the client goes on, or leaves, while we look.
                cpu_seconds: self.postmaster.and_then(family_cpu_seconds),
                log_bytes: sqlx::query_scalar(
                    "select pg_wal_lsn_diff(pg_current_wal_insert_lsn(), '0/0')::float8",
                )
                .fetch_one(&self.admin)
                .await?,
            }),
            Store::Redis => {
                let text = self.redis_information("all").await?;
                let number = |name| field(&text, name).and_then(|value| value.parse::<f64>().ok());
                let cpu = ["used_cpu_user", "used_cpu_sys"].map(number);
                Ok(Reading {
                    log_bytes: number("aof_current_size")
                        .ok_or("this Redis does not say how large its log is")?,
                    cpu_seconds: cpu[0].zip(cpu[1]).map(|(user, system)| user + system),
                })
            }
        }
    }

    /// Row versions that updates and deletes left for vacuum so far; to be asked when the run's
    /// sessions are gone, since a session reports when it ends. `None` on Redis, which has none.
    pub(crate) async fn dead_tuples(&self, place: &Place) -> Result<Option<f64>, Error> {
        if place.store == Store::Redis {
            return Ok(None);
        }
        let deadline = Instant::now() + SETTLE_LIMIT;
        let sessions = "select count(*) from pg_stat_activity where datname = $1";
        while Instant::now() < deadline {
            let left: i64 = sqlx::query_scalar(sessions)
                .bind(&place.database)
                .fetch_one(&self.admin)
                .await?;
            if left == 0 {
                break;
            }
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
        // Of the database and not of its tables: some queues drop the tables.
        let counted = "select (tup_updated + tup_deleted)::float8 from pg_stat_database \
                       where datname = $1";
        let count = sqlx::query_scalar(counted)
            .bind(&place.database)
            .fetch_one(&self.admin)
            .await?;
        Ok(Some(count))
    }

    /// Removes the place.
    pub(crate) async fn remove(&mut self, place: Place) -> Result<(), Error> {
        if place.store == Store::Postgres {
            let sql = format!("drop database if exists {} with (force)", place.database);
            self.execute(&sql).await?;
        }
        Ok(())
    }

    /// Stops both and removes their data, and waits for it.
    pub(crate) async fn close(self) -> Result<(), Error> {
        self.admin.close().await;
        self.postgres.close().await?;
        drop(self.redis);
        Ok(())
    }

    /// Runs statements of our own making.
    pub(crate) async fn execute(&self, sql: &str) -> Result<(), Error> {
        sqlx::raw_sql(AssertSqlSafe(sql.to_owned()))
            .execute(&self.admin)
            .await?;
        Ok(())
    }

    async fn redis_information(&mut self, section: &str) -> Result<String, Error> {
        let mut command = redis::cmd("INFO");
        Ok(command
            .arg(section)
            .query_async(&mut self.redis_connection)
            .await?)
    }
}

impl Place {
    /// To work in a PostgreSQL place with statements of our own.
    pub(crate) async fn pool(&self) -> Result<PgPool, Error> {
        let pool = PgPoolOptions::new().max_connections(1);
        Ok(pool.connect(&self.url).await?)
    }
}

/// An address that every driver understands: without the parameters that only sqlx knows.
fn url(options: &PgConnectOptions) -> String {
    let mut url = options.to_url_lossy();
    url.set_query(None);
    url.to_string()
}

/// A line `name:value` of Redis's INFO.
fn field<'a>(information: &'a str, name: &str) -> Option<&'a str> {
    let mut lines = information.lines().map(str::trim_end);
    lines.find_map(|line| line.strip_prefix(name)?.strip_prefix(':'))
}

/// What `/proc` says of a process.
struct Process {
    parent: i32,
    /// Its own processor time, and that of children that have ended and were waited for.
    own: f64,
    reaped: f64,
}

fn process(pid: i32) -> Option<Process> {
    // The kernel counts in USER_HZ here, which is 100 on every Linux.
    const TICKS: f64 = 100.0;
    let stat = std::fs::read_to_string(Path::new("/proc").join(pid.to_string()).join("stat"));
    let stat = stat.ok()?;
    // The name is in parentheses and may contain anything; what follows it is fields 3 and on.
    let fields: Vec<&str> = stat.rsplit_once(')')?.1.split_whitespace().collect();
    let number = |field: usize| fields.get(field - 3)?.parse::<f64>().ok();
    Some(Process {
        parent: fields.get(1)?.parse().ok()?,
        own: (number(14)? + number(15)?) / TICKS,
        reaped: (number(16)? + number(17)?) / TICKS,
    })
}

/// Processor time of a parent, its living children, and those that have ended.
fn family_cpu_seconds(parent: i32) -> Option<f64> {
    // A child that ends between two looks would be in neither: look until none did. When a client
    // leaves, dozens end at once.
    for _ in 0..100 {
        let before = process(parent)?;
        let pids = std::fs::read_dir("/proc").ok()?.flatten();
        let pids = pids.filter_map(|entry| entry.file_name().to_str()?.parse().ok());
        let children = pids.filter_map(process);
        let children = children.filter(|child| child.parent == parent);
        let living: f64 = children.map(|child| child.own).sum();
        if process(parent)?.reaped == before.reaped {
            return Some(before.own + before.reaped + living);
        }
    }
    None
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_field_is_found_by_its_whole_name() {
        let text = "# CPU\r\nused_cpu_sys_children:9\r\nused_cpu_sys:1.5\r\n";
        assert_eq!(field(text, "used_cpu_sys"), Some("1.5"));
        assert_eq!(field(text, "used_cpu"), None);
    }

    #[test]
    #[cfg(target_os = "linux")]
    fn our_own_process_is_found() {
        let pid = i32::try_from(std::process::id()).expect("a pid is small");
        let parent = process(pid).expect("there is /proc").parent;
        assert!(parent > 0);
        assert!(family_cpu_seconds(parent).is_some());
        assert!(family_cpu_seconds(-1).is_none());
    }
}
