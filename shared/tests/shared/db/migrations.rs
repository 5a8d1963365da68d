//! Migrations: each once, in order, whoever comes first.

use shared::db::{MigrateError, Migration, Migrations, PoolSettings, connect_lazy, migrate};
use sqlx::PgPool;

use super::support::{Database, number};
use crate::support::{Outcome, tests};

tests![
    owners_number_their_migrations_apart,
    migrations_are_applied_once_and_in_order,
    instances_that_migrate_at_once_wait_for_each_other,
    a_failing_migration_applies_nothing,
    a_changed_unknown_or_late_migration_is_refused,
];

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
