//! No wait without an end.

use std::time::Duration;

use shared::db::{PoolSettings, TxOptions, begin, connect, connect_lazy};

use super::support::{Database, code, number, run};
use crate::support::{Outcome, tests};

tests![
    every_wait_in_the_pool_has_an_end,
    a_server_that_is_not_there_is_an_error_and_no_panic,
];

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
