//! The connection: a pool, the tables, and who listens and notifies.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use async_trait::async_trait;
use sqlx::postgres::PgConnectOptions;
use sqlx::{PgPool, Row};

use super::line::Line;
use super::queue::PostgresQueue;
use super::wake::Wake;
use super::{LARGEST_BYTES, NAME, failed, sql};
use crate::db::{PoolSettings, TxOptions, begin, connect_lazy};
use crate::queue::connect::without_password;
use crate::queue::{
    Broker, Capabilities, ConnectOptions, KeyOrder, LeaseKind, Queue, QueueError, check_names,
};

/// What queues and consumers of one connection share.
pub(super) struct Shared {
    pub(super) pool: PgPool,
    pub(super) wake: Wake,
    durability: String,
    /// For connections of one's own.
    address: PgConnectOptions,
    timeout: Duration,
    is_closed: AtomicBool,
}

impl Shared {
    pub(super) fn line(&self) -> Line {
        Line::new(self.address.clone(), self.timeout)
    }

    pub(super) fn is_closed(&self) -> bool {
        self.is_closed.load(Ordering::Relaxed)
    }
}

struct PostgresBroker {
    shared: Arc<Shared>,
}

/// Connects, and makes the tables if they are missing.
///
/// # Errors
/// `Address`; `Unavailable`; `Refused`, also if the tables are missing and `create` is false.
pub(in crate::queue) async fn connect(
    url: &str,
    options: &ConnectOptions,
) -> Result<Arc<dyn Broker>, QueueError> {
    let address: PgConnectOptions =
        url.parse()
            .map_err(|error: sqlx::Error| QueueError::Address {
                address: without_password(url),
                reason: error.to_string(),
            })?;
    // Tables that are empty most of the time mislead the planner: it knows of no row, reads all of
    // the table, and goes on to when there are a million. Every statement here has one right plan,
    // which goes through an index.
    let address = address.options([
        ("enable_seqscan", "off"),
        ("enable_hashjoin", "off"),
        ("enable_mergejoin", "off"),
        ("enable_bitmapscan", "off"),
        ("plan_cache_mode", "force_generic_plan"),
        ("jit", "off"),
    ]);
    let limit = options.timeout.max(Duration::from_secs(1));
    let limit_ms = limit.as_millis().to_string();
    let settings = PoolSettings {
        max_connections: options.max_connections.max(2),
        acquire_timeout: options.timeout,
        statement_timeout: limit,
        lock_timeout: limit,
        application_name: Some(options.client_name.clone()),
        ..PoolSettings::default()
    };
    let pool = connect_lazy(address.clone(), &settings);
    let table = table(&pool, options.create).await?;
    let durability = durability(&pool).await.map_err(failed)?;
    let wake = Wake::start(address.clone(), options.timeout, format!("queue_{table}"));
    Ok(Arc::new(PostgresBroker {
        shared: Arc::new(Shared {
            pool,
            wake,
            durability,
            address: address
                .options([
                    ("statement_timeout", limit_ms.as_str()),
                    ("lock_timeout", limit_ms.as_str()),
                ])
                .application_name(&options.client_name),
            timeout: limit,
            is_closed: AtomicBool::new(false),
        }),
    }))
}

/// The number of the table of messages.
async fn table(pool: &PgPool, create: bool) -> Result<i64, QueueError> {
    let find = || async {
        let found: Option<i64> = sqlx::query_scalar(sql::TABLE).fetch_one(pool).await?;
        Ok::<_, sqlx::Error>(found)
    };
    if let Some(table) = find().await.map_err(failed)? {
        return Ok(table);
    }
    if create {
        let made = async {
            let mut tx = begin(pool, &TxOptions::default()).await?;
            sqlx::query(sql::CREATION_LOCK).execute(&mut *tx).await?;
            for migration in sql::MIGRATIONS.steps {
                sqlx::raw_sql(migration.sql).execute(&mut *tx).await?;
            }
            tx.commit().await
        };
        made.await.map_err(failed)?;
    }
    find().await.map_err(failed)?.ok_or(QueueError::Refused {
        broker: NAME,
        reason: "the table queue_messages is missing: run the migrations of \
                 shared::queue::postgres::MIGRATIONS, or connect with `create`"
            .to_owned(),
    })
}

/// What the server is set to, and not what one would hope.
async fn durability(pool: &PgPool) -> Result<String, sqlx::Error> {
    let row = sqlx::query("select current_setting('fsync'), current_setting('synchronous_commit')")
        .fetch_one(pool)
        .await?;
    let (fsync, commit): (String, String) = (row.try_get(0)?, row.try_get(1)?);
    Ok(format!("fsync {fsync}, synchronous_commit {commit}"))
}

#[async_trait]
impl Broker for PostgresBroker {
    fn capabilities(&self) -> Capabilities {
        Capabilities {
            broker: NAME,
            emulation: None,
            durability: self.shared.durability.clone(),
            key_order: KeyOrder::Strict,
            lease: LeaseKind::Time {
                shortest: Duration::from_millis(1),
                longest: None,
            },
            fencing: true,
            longest_delay: Some(Duration::MAX),
            delay_step: Duration::ZERO,
            groups: true,
            groups_see_the_past: false,
            durable_attempts: true,
            release_burns_no_attempt: true,
            priority: false,
            deduplication: None,
            largest_message_bytes: LARGEST_BYTES,
            dead_letters: true,
        }
    }

    async fn queue(&self, name: &str, groups: &[&str]) -> Result<Arc<dyn Queue>, QueueError> {
        check_names(name, groups)?;
        let queue = PostgresQueue::open(Arc::clone(&self.shared), name, groups).await?;
        Ok(Arc::new(queue))
    }

    async fn close(&self) {
        self.shared.is_closed.store(true, Ordering::Relaxed);
        self.shared.wake.stop();
        self.shared.pool.close().await;
    }
}
