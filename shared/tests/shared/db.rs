//! `db`: no wait without an end, migrations, and transactions that are dropped anywhere.

use std::future::Future;
use std::pin::pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use shared::db::{
    Isolation, MigrateError, Migration, Migrations, PoolSettings, SqlFailure, TxOptions, begin,
    connect, connect_lazy, migrate, transaction,
};
use shared::services::{Postgres, Schema};
use sqlx::PgPool;
use tempfile::TempDir;

use crate::postgres::{folder, options};
use crate::support::{End, Outcome, poll_times, tests};

tests![
    every_wait_in_the_pool_has_an_end,
    a_server_that_is_not_there_is_an_error_and_no_panic,
    sqlx_begin_dropped_on_the_way_leaves_an_open_transaction,
    begin_dropped_at_any_await_leaves_no_open_transaction,
    a_transaction_dropped_at_any_await_leaves_no_open_transaction,
    a_transaction_commits_or_leaves_no_trace,
    a_lost_race_is_tried_again,
    a_deadlock_is_tried_again,
    a_race_that_is_always_lost_ends_after_the_last_attempt,
    other_errors_are_not_tried_again,
    the_isolation_is_as_asked_for,
    a_transaction_can_be_used_in_a_spawned_task,
    migrations_are_applied_once_and_in_order,
    owners_number_their_migrations_apart,
    instances_that_migrate_at_once_wait_for_each_other,
    a_failing_migration_applies_nothing,
    a_changed_unknown_or_late_migration_is_refused,
];

struct Database {
    postgres: Postgres,
    schema: Schema,
    _folder: TempDir,
}

impl Database {
    async fn start() -> Result<Self, End> {
        let folder = folder();
        let postgres = Postgres::find_or_start(&options(&folder)).await?;
        let schema = postgres.fresh_schema().await?;
        Ok(Self {
            postgres,
            schema,
            _folder: folder,
        })
    }

    fn pool(&self, max_connections: u32) -> PgPool {
        let settings = PoolSettings {
            max_connections,
            ..PoolSettings::default()
        };
        connect_lazy(self.schema.options(), &settings)
    }

    /// How many of the schema's sessions are in a transaction that nobody works in.
    async fn open_transactions(&self, admin: &PgPool) -> i64 {
        let sql = "select count(*) from pg_stat_activity \
                   where usename = $1 and state like 'idle in transaction%'";
        sqlx::query_scalar(sql)
            .bind(self.schema.role())
            .fetch_one(admin)
            .await
            .unwrap()
    }

    fn admin(&self) -> PgPool {
        connect_lazy(self.postgres.admin_options(), &PoolSettings::default())
    }
}

async fn run(pool: &PgPool, sql: &'static str) {
    sqlx::raw_sql(sql).execute(pool).await.unwrap();
}

async fn number(pool: &PgPool, sql: &'static str) -> i64 {
    sqlx::query_scalar(sql).fetch_one(pool).await.unwrap()
}

fn code(error: &sqlx::Error) -> String {
    let database = error
        .as_database_error()
        .unwrap_or_else(|| panic!("{error}"));
    database.code().unwrap().into_owned()
}

async fn every_wait_in_the_pool_has_an_end() -> Outcome {
    let database = Database::start().await?;
    let limit = Duration::from_millis(100);
    let settings = PoolSettings {
        max_connections: 2,
        acquire_timeout: limit,
        statement_timeout: Duration::from_millis(200),
        lock_timeout: limit,
        // Longer, for the holder of the lock must not be gone before whoever waits for it.
        idle_in_transaction_timeout: limit * 5,
        application_name: Some("a test".to_owned()),
    };
    let pool = connect_lazy(database.schema.options(), &settings);
    run(&pool, "create table t (n int)").await;
    let error = sqlx::query("select pg_sleep(10)")
        .execute(&pool)
        .await
        .unwrap_err();
    assert_eq!(code(&error), "57014", "a statement that takes too long");
    let mut holder = begin(&pool, &TxOptions::default()).await.unwrap();
    sqlx::query("lock table t")
        .execute(&mut *holder)
        .await
        .unwrap();
    let error = sqlx::query("select * from t")
        .execute(&pool)
        .await
        .unwrap_err();
    assert_eq!(code(&error), "55P03", "a lock that is not given");
    let second = pool.acquire().await.unwrap();
    assert!(matches!(
        pool.acquire().await,
        Err(sqlx::Error::PoolTimedOut)
    ));
    drop(second);
    // The server ends the session of whoever sits in a transaction, and its locks go with it.
    database
        .schema
        .wait_until_unused(Duration::from_millis(1))
        .await?;
    let admin = database.admin();
    while database.open_transactions(&admin).await > 0 {
        tokio::task::yield_now().await;
    }
    assert!(sqlx::query("select 1").execute(&mut *holder).await.is_err());
    let name: String = sqlx::query_scalar("show application_name")
        .fetch_one(&pool)
        .await
        .unwrap();
    assert_eq!(name, "a test");
    Ok(())
}

async fn a_server_that_is_not_there_is_an_error_and_no_panic() -> Outcome {
    let settings = PoolSettings {
        acquire_timeout: Duration::from_millis(100),
        ..PoolSettings::default()
    };
    assert!(
        connect("postgres://a:b@127.0.0.1:9/x", &settings)
            .await
            .is_err()
    );
    assert!(connect("not an address", &settings).await.is_err());
    let database = Database::start().await?;
    let url = database.schema.url(&database.postgres.upstream());
    assert_eq!(
        number(
            &connect(&url, &PoolSettings::default()).await.unwrap(),
            "select 1::int8"
        )
        .await,
        1
    );
    Ok(())
}

/// Drops `make`'s future after 1, 2, 3 … polls until it comes to its end, `rounds` times over, and
/// counts after how many drops a connection came back with an open transaction.
async fn open_after_drops<F, Fut>(database: &Database, rounds: usize, make: F) -> (usize, usize)
where
    F: Fn(PgPool) -> Fut,
    Fut: Future<Output = ()>,
{
    let (pool, admin) = (database.pool(1), database.admin());
    let (mut drops, mut open) = (0, 0);
    for _ in 0..rounds {
        for polls in 1.. {
            let finished = pin!(poll_times(make(pool.clone()), polls)).await.is_some();
            // The one connection is back in the pool when it can be had again.
            let connection = pool.acquire().await.unwrap();
            if database.open_transactions(&admin).await > 0 {
                open += 1;
                connection.close().await.unwrap();
            }
            if finished {
                break;
            }
            drops += 1;
        }
    }
    (drops, open)
}

/// Shows that the next two tests can see what they look for. When sqlx has repaired it, this fails,
/// and `db::begin` can go.
async fn sqlx_begin_dropped_on_the_way_leaves_an_open_transaction() -> Outcome {
    let database = Database::start().await?;
    let make = |pool: PgPool| async move {
        pool.begin().await.unwrap().rollback().await.unwrap();
    };
    // Which poll the answer comes at is up to the machine, so: until it is seen.
    let mut dropped = 0;
    for _ in 0..100 {
        let (drops, open) = open_after_drops(&database, 20, make).await;
        if open > 0 {
            return Ok(());
        }
        dropped += drops;
    }
    panic!("none in {dropped} drops")
}

async fn begin_dropped_at_any_await_leaves_no_open_transaction() -> Outcome {
    let database = Database::start().await?;
    let make = |pool: PgPool| async move {
        begin(&pool, &TxOptions::default())
            .await
            .unwrap()
            .rollback()
            .await
            .unwrap();
    };
    let (drops, open) = open_after_drops(&database, 100, make).await;
    assert!(drops >= 100, "{drops}");
    assert_eq!(open, 0, "of {drops} drops");
    Ok(())
}

async fn a_transaction_dropped_at_any_await_leaves_no_open_transaction() -> Outcome {
    let database = Database::start().await?;
    let pool = database.pool(1);
    run(&pool, "create table t (n int)").await;
    let make = |pool: PgPool| async move {
        transaction(&pool, &TxOptions::default(), async |tx| {
            sqlx::query("insert into t values (1)")
                .execute(&mut *tx)
                .await?;
            sqlx::query("insert into t values (2)")
                .execute(&mut *tx)
                .await
        })
        .await
        .unwrap();
    };
    let (drops, open) = open_after_drops(&database, 100, make).await;
    assert!(drops >= 100, "{drops}");
    assert_eq!(open, 0, "of {drops} drops");
    let odd = "select count(*) filter (where n = 1) - count(*) filter (where n = 2) from t";
    assert_eq!(
        number(&pool, odd).await,
        0,
        "half a transaction was committed"
    );
    Ok(())
}

#[derive(Debug, thiserror::Error)]
enum Mine {
    #[error("{0}")]
    Sql(#[from] sqlx::Error),
    #[error("sold out")]
    SoldOut,
}

impl SqlFailure for Mine {
    fn sql(&self) -> Option<&sqlx::Error> {
        match self {
            Self::Sql(error) => Some(error),
            Self::SoldOut => None,
        }
    }
}

async fn a_transaction_commits_or_leaves_no_trace() -> Outcome {
    let database = Database::start().await?;
    let pool = database.pool(2);
    run(&pool, "create table t (n int)").await;
    let insert = async |fail: bool| {
        transaction(&pool, &TxOptions::default(), async |tx| {
            sqlx::query("insert into t values (1)").execute(tx).await?;
            if fail { Err(Mine::SoldOut) } else { Ok(7) }
        })
        .await
    };
    assert!(matches!(insert(true).await, Err(Mine::SoldOut)));
    assert_eq!(number(&pool, "select count(*) from t").await, 0);
    assert_eq!(insert(false).await.unwrap(), 7);
    assert_eq!(number(&pool, "select count(*) from t").await, 1);
    Ok(())
}

async fn a_lost_race_is_tried_again() -> Outcome {
    let database = Database::start().await?;
    let pool = database.pool(4);
    run(&pool, "create table t (n int); insert into t values (0)").await;
    let (attempts, other) = (AtomicUsize::new(0), database.pool(1));
    let seen = transaction(&pool, &TxOptions::serializable(), async |tx| {
        let n: i32 = sqlx::query_scalar("select n from t")
            .fetch_one(&mut *tx)
            .await?;
        // Somebody else writes after we have read, the first two times.
        if attempts.fetch_add(1, Ordering::Relaxed) < 2 {
            run(&other, "update t set n = n + 1").await;
        }
        sqlx::query("update t set n = $1")
            .bind(n + 10)
            .execute(&mut *tx)
            .await?;
        Ok::<_, sqlx::Error>(n)
    })
    .await
    .unwrap();
    assert_eq!((seen, attempts.into_inner()), (2, 3));
    assert_eq!(number(&pool, "select n::int8 from t").await, 12);
    Ok(())
}

async fn a_deadlock_is_tried_again() -> Outcome {
    let database = Database::start().await?;
    let pool = database.pool(4);
    run(
        &pool,
        "create table t (id int, n int); insert into t values (1, 0), (2, 0)",
    )
    .await;
    let barrier = Arc::new(tokio::sync::Barrier::new(2));
    let attempts = Arc::new(AtomicUsize::new(0));
    let update = async |first: i32, second: i32| {
        let mut met = false;
        transaction(&pool, &TxOptions::default(), async |tx| {
            attempts.fetch_add(1, Ordering::Relaxed);
            let sql = "update t set n = n + 1 where id = $1";
            sqlx::query(sql).bind(first).execute(&mut *tx).await?;
            // Each holds one row before either asks for the other.
            if !std::mem::replace(&mut met, true) {
                barrier.wait().await;
            }
            sqlx::query(sql).bind(second).execute(&mut *tx).await
        })
        .await
    };
    let (one, two) = tokio::join!(update(1, 2), update(2, 1));
    one.unwrap();
    two.unwrap();
    assert_eq!(number(&pool, "select sum(n) from t where n = 2").await, 4);
    assert_eq!(attempts.load(Ordering::Relaxed), 3);
    Ok(())
}

async fn a_race_that_is_always_lost_ends_after_the_last_attempt() -> Outcome {
    let database = Database::start().await?;
    let pool = database.pool(2);
    let attempts = AtomicUsize::new(0);
    let raise = "do $$ begin raise sqlstate '40001'; end $$";
    let error = transaction(&pool, &TxOptions::default(), async |tx| {
        attempts.fetch_add(1, Ordering::Relaxed);
        sqlx::query(raise).execute(tx).await
    })
    .await
    .unwrap_err();
    assert_eq!((code(&error).as_str(), attempts.into_inner()), ("40001", 5));
    Ok(())
}

async fn other_errors_are_not_tried_again() -> Outcome {
    let database = Database::start().await?;
    let pool = database.pool(2);
    run(
        &pool,
        "create table t (n int primary key); insert into t values (1)",
    )
    .await;
    let attempts = AtomicUsize::new(0);
    let error = transaction(&pool, &TxOptions::default(), async |tx| {
        attempts.fetch_add(1, Ordering::Relaxed);
        sqlx::query("insert into t values (1)").execute(tx).await
    })
    .await
    .unwrap_err();
    assert_eq!((code(&error).as_str(), attempts.into_inner()), ("23505", 1));
    Ok(())
}

async fn the_isolation_is_as_asked_for() -> Outcome {
    let database = Database::start().await?;
    let pool = database.pool(1);
    let cases = [
        (Isolation::ReadCommitted, "read committed"),
        (Isolation::RepeatableRead, "repeatable read"),
        (Isolation::Serializable, "serializable"),
    ];
    for ((isolation, expected), read_only) in cases.into_iter().zip([false, true, false]) {
        let options = TxOptions {
            isolation,
            read_only,
            ..TxOptions::default()
        };
        let sql = "select current_setting('transaction_isolation') || ' ' \
                   || current_setting('transaction_read_only')";
        let found: String = transaction(&pool, &options, async |tx| {
            sqlx::query_scalar(sql).fetch_one(tx).await
        })
        .await
        .unwrap();
        let mode = if read_only { "on" } else { "off" };
        assert_eq!(found, format!("{expected} {mode}"));
    }
    Ok(())
}

async fn a_transaction_can_be_used_in_a_spawned_task() -> Outcome {
    let database = Database::start().await?;
    let pool = database.pool(2);
    let words = vec!["a".to_owned(), "b".to_owned()];
    let task = tokio::spawn(async move {
        transaction(&pool, &TxOptions::default(), async move |tx| {
            count(tx, &words).await
        })
        .await
        .unwrap()
    });
    assert_eq!(task.await.unwrap(), 2);
    Ok(())
}

async fn count(tx: &mut sqlx::PgConnection, words: &[String]) -> Result<i64, sqlx::Error> {
    let sql = "select count(*) from unnest($1::text[])";
    sqlx::query_scalar(sql).bind(words).fetch_one(tx).await
}

const ORDERS: Migration = Migration {
    version: 1,
    name: "orders",
    sql: "create table orders (id bigint primary key)",
};
const TOTAL: Migration = Migration {
    version: 2,
    name: "total",
    sql: "alter table orders add total_cents bigint; create index on orders (total_cents)",
};

fn shop(steps: &[Migration]) -> Migrations<'_> {
    let owner = "shop";
    Migrations { owner, steps }
}

async fn owners_number_their_migrations_apart() -> Outcome {
    let database = Database::start().await?;
    let pool = database.pool(1);
    let bonus = Migrations {
        owner: "bonus",
        steps: &[Migration {
            version: 1,
            name: "points",
            sql: "create table points (order_id bigint references orders)",
        }],
    };
    // In the order of the list, since one's tables may refer to another's.
    assert_eq!(migrate(&pool, &[shop(&[ORDERS]), bonus]).await.unwrap(), 2);
    // Each goes on by itself, whatever the other has come to.
    assert_eq!(migrate(&pool, &[shop(&[ORDERS, TOTAL])]).await.unwrap(), 1);
    assert_eq!(migrate(&pool, &[bonus]).await.unwrap(), 0);
    let error = migrate(&pool, &[bonus, shop(&[ORDERS]), bonus])
        .await
        .unwrap_err();
    assert_eq!(error.to_string(), "bonus has two lists of migrations");
    Ok(())
}

async fn migrations_are_applied_once_and_in_order() -> Outcome {
    let database = Database::start().await?;
    let pool = database.pool(2);
    assert_eq!(migrate(&pool, &[shop(&[ORDERS])]).await.unwrap(), 1);
    assert_eq!(migrate(&pool, &[shop(&[ORDERS, TOTAL])]).await.unwrap(), 1);
    assert_eq!(migrate(&pool, &[shop(&[ORDERS, TOTAL])]).await.unwrap(), 0);
    assert_eq!(
        number(&pool, "select count(total_cents) from orders").await,
        0
    );
    // A line break of another system does not make it another migration.
    let broken = |sql| Migration {
        version: 3,
        name: "lines",
        sql,
    };
    let lines = [ORDERS, TOTAL, broken("select 1;\nselect 2")];
    assert_eq!(migrate(&pool, &[shop(&lines)]).await.unwrap(), 1);
    let lines = [ORDERS, TOTAL, broken("select 1;\r\nselect 2")];
    assert_eq!(migrate(&pool, &[shop(&lines)]).await.unwrap(), 0);
    // In a schema beside it they are applied again.
    let beside = database.postgres.fresh_schema().await?;
    let beside = connect_lazy(beside.options(), &PoolSettings::default());
    assert_eq!(
        migrate(&beside, &[shop(&[ORDERS, TOTAL])]).await.unwrap(),
        2
    );
    Ok(())
}

async fn instances_that_migrate_at_once_wait_for_each_other() -> Outcome {
    let database = Database::start().await?;
    let pools: Vec<PgPool> = (0..8).map(|_| database.pool(1)).collect();
    let tasks = pools.into_iter().map(|pool| {
        tokio::spawn(async move { migrate(&pool, &[shop(&[ORDERS, TOTAL])]).await.unwrap() })
    });
    let mut applied = 0;
    for task in tasks.collect::<Vec<_>>() {
        applied += task.await.unwrap();
    }
    assert_eq!(applied, 2);
    Ok(())
}

async fn a_failing_migration_applies_nothing() -> Outcome {
    let database = Database::start().await?;
    let pool = database.pool(1);
    let wrong = Migration {
        sql: "alter table orders add total_cents bigint; alter table nothing add x int",
        ..TOTAL
    };
    let error = migrate(&pool, &[shop(&[ORDERS, wrong])]).await.unwrap_err();
    assert!(
        matches!(error, MigrateError::Failed { version: 2, .. }),
        "{error}"
    );
    assert!(
        error
            .to_string()
            .contains("migration 2 of shop (total) fails"),
        "{error}"
    );
    let tables = "select count(*) from pg_tables where schemaname = current_schema()";
    assert_eq!(number(&pool, tables).await, 0);
    assert_eq!(migrate(&pool, &[shop(&[ORDERS, TOTAL])]).await.unwrap(), 2);
    Ok(())
}

async fn a_changed_unknown_or_late_migration_is_refused() -> Outcome {
    let database = Database::start().await?;
    let pool = database.pool(1);
    migrate(&pool, &[shop(&[ORDERS, TOTAL])]).await.unwrap();
    let changed = Migration {
        sql: "create table orders (id uuid primary key)",
        ..ORDERS
    };
    let error = migrate(&pool, &[shop(&[changed, TOTAL])])
        .await
        .unwrap_err();
    assert!(
        matches!(error, MigrateError::Changed { version: 1, .. }),
        "{error}"
    );
    let error = migrate(&pool, &[shop(&[ORDERS])]).await.unwrap_err();
    assert!(
        matches!(error, MigrateError::Unknown { version: 2, .. }),
        "{error}"
    );
    let early = Migration {
        version: 0,
        ..TOTAL
    };
    let error = migrate(&pool, &[shop(&[early, ORDERS, TOTAL])])
        .await
        .unwrap_err();
    assert!(
        matches!(error, MigrateError::Late { version: 0, .. }),
        "{error}"
    );
    let error = migrate(&pool, &[shop(&[TOTAL, ORDERS])]).await.unwrap_err();
    assert!(
        matches!(error, MigrateError::Order { version: 1, .. }),
        "{error}"
    );
    Ok(())
}
