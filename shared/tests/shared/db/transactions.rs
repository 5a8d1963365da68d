//! Transactions that come to their end: all of it or nothing, and again after a lost race.

use std::sync::Arc;
use std::sync::atomic::AtomicUsize;
use std::sync::atomic::Ordering;

use shared::db::{Isolation, SqlFailure, TxOptions, transaction};

use super::support::{Database, code, number, run};
use crate::support::{Outcome, tests};

tests![
    a_transaction_commits_or_leaves_no_trace,
    a_lost_race_is_tried_again,
    a_deadlock_is_tried_again,
    a_race_that_is_always_lost_ends_after_the_last_attempt,
    other_errors_are_not_tried_again,
    the_isolation_is_as_asked_for,
    a_transaction_can_be_used_in_a_spawned_task,
];

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
