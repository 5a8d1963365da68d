//! `claim` and `complete` in a transaction: effect and answer together.

use std::time::Duration;

use shared::db::{TxOptions, begin, transaction};
use shared::idempotency::{Claim, Fingerprint, IdempotencyError, Token, claim, complete, forget};
use sqlx::{PgConnection, PgTransaction};

use super::keys::{answer, fresh, keys};
use super::{Database, key, request, scope};
use crate::support::{Outcome, tests};

tests![
    effect_and_answer_commit_together,
    a_rollback_undoes_the_effect_and_frees_the_key,
    the_same_request_is_told_that_it_runs_and_waits_for_nobody,
    another_request_is_told_so_before_the_first_one_commits,
    whoever_asks_wrongly_disturbs_nobody_who_asks_rightly,
    many_at_once_have_one_effect_at_every_isolation,
    a_claim_that_is_committed_without_an_answer_holds_nothing,
    a_forgotten_key_is_free,
    an_answer_without_a_claim_of_this_transaction_is_refused,
    outside_a_transaction_it_refuses_to_work,
    both_forms_respect_each_other,
    a_key_in_another_schema_is_another_key,
    its_answer_expires,
];

const TTL: Duration = Duration::from_secs(3_600);

async fn payments(database: &Database) -> i64 {
    database.number("select count(*) from payments").await
}

async fn started() -> Result<Database, crate::support::End> {
    let database = Database::start().await?;
    database.run("create table payments (n bigint)").await;
    Ok(database)
}

async fn pay(tx: &mut PgConnection) {
    sqlx::query("insert into payments values (1)")
        .execute(tx)
        .await
        .unwrap();
}

async fn open(database: &Database) -> PgTransaction<'static> {
    begin(&database.pool, &TxOptions::default()).await.unwrap()
}

async fn claimed(tx: &mut PgConnection, name: &str, request: &Fingerprint) -> Claim {
    claim(tx, &scope(), &key(name), request).await.unwrap()
}

/// The key `k` has the answer of the request `a`.
async fn answered(database: &Database) {
    let mut tx = open(database).await;
    let token = fresh(claimed(&mut tx, "k", &request("a")).await);
    paid(&mut tx, &token).await;
    tx.commit().await.unwrap();
}

async fn paid(tx: &mut PgConnection, token: &Token) {
    complete(tx, token, &answer("paid"), TTL).await.unwrap();
}

async fn effect_and_answer_commit_together() -> Outcome {
    let database = started().await?;
    let mut tx = open(&database).await;
    let token = fresh(claimed(&mut tx, "k", &request("a")).await);
    pay(&mut tx).await;
    paid(&mut tx, &token).await;
    tx.commit().await.unwrap();
    let mut tx = open(&database).await;
    let again = claimed(&mut tx, "k", &request("a")).await;
    assert_eq!(again, Claim::Replay(answer("paid")));
    let other = claimed(&mut tx, "k", &request("b")).await;
    assert_eq!(other, Claim::Mismatch);
    assert_eq!(payments(&database).await, 1);
    Ok(())
}

async fn a_rollback_undoes_the_effect_and_frees_the_key() -> Outcome {
    let database = started().await?;
    let mut tx = open(&database).await;
    let token = fresh(claimed(&mut tx, "k", &request("a")).await);
    pay(&mut tx).await;
    paid(&mut tx, &token).await;
    tx.rollback().await.unwrap();
    let mut tx = open(&database).await;
    fresh(claimed(&mut tx, "k", &request("b")).await);
    assert_eq!(payments(&database).await, 0);
    Ok(())
}

async fn the_same_request_is_told_that_it_runs_and_waits_for_nobody() -> Outcome {
    let database = started().await?;
    let mut first = open(&database).await;
    let token = fresh(claimed(&mut first, "k", &request("a")).await);
    // Were it to wait, this would end with the lock timeout, an error.
    let mut second = open(&database).await;
    let same = claimed(&mut second, "k", &request("a")).await;
    assert_eq!(same, Claim::InFlight);
    paid(&mut first, &token).await;
    first.commit().await.unwrap();
    // Also in the transaction that was told to wait.
    let now = claimed(&mut second, "k", &request("a")).await;
    assert_eq!(now, Claim::Replay(answer("paid")));
    Ok(())
}

async fn another_request_is_told_so_before_the_first_one_commits() -> Outcome {
    let database = started().await?;
    let mut first = open(&database).await;
    let _token = fresh(claimed(&mut first, "k", &request("a")).await);
    let mut second = open(&database).await;
    let other = claimed(&mut second, "k", &request("b")).await;
    assert_eq!(other, Claim::Mismatch);
    // Another key is another matter.
    fresh(claimed(&mut second, "l", &request("b")).await);
    Ok(())
}

/// A transaction that was refused may stay open, with the locks that told it so.
async fn whoever_asks_wrongly_disturbs_nobody_who_asks_rightly() -> Outcome {
    let database = started().await?;
    answered(&database).await;
    let mut wrong = open(&database).await;
    let other = claimed(&mut wrong, "k", &request("b")).await;
    assert_eq!(other, Claim::Mismatch);
    let mut right = open(&database).await;
    let same = claimed(&mut right, "k", &request("a")).await;
    assert_eq!(same, Claim::Replay(answer("paid")));
    let mut wrong_too = open(&database).await;
    let other = claimed(&mut wrong_too, "k", &request("b")).await;
    assert_eq!(other, Claim::Mismatch);
    Ok(())
}

async fn many_at_once_have_one_effect_at_every_isolation() -> Outcome {
    let database = started().await?;
    let repeatable = TxOptions {
        isolation: shared::db::Isolation::RepeatableRead,
        ..TxOptions::default()
    };
    for (n, options) in [TxOptions::default(), repeatable, TxOptions::serializable()]
        .into_iter()
        .cycle()
        .take(15)
        .enumerate()
    {
        let name = format!("k-{n}");
        let tasks: Vec<_> = (0..6)
            .map(|_| {
                let (pool, name, options) = (database.pool.clone(), name.clone(), options.clone());
                tokio::spawn(async move {
                    // A client: it comes again until it has its answer.
                    loop {
                        let name = name.clone();
                        let found = transaction(&pool, &options, async move |tx| {
                            let found = claim(tx, &scope(), &key(&name), &request("a")).await?;
                            if let Claim::Fresh(token) = &found {
                                pay(tx).await;
                                complete(tx, token, &answer("paid"), TTL).await?;
                            }
                            Ok::<_, IdempotencyError>(found)
                        });
                        match found.await {
                            Ok(Claim::InFlight) => {}
                            // Five lost races in a row: the next attempt.
                            Err(IdempotencyError::Sql(error))
                                if error.as_database_error().is_some_and(|error| {
                                    error.code().as_deref() == Some("40001")
                                }) => {}
                            Ok(Claim::Fresh(_)) => return 1,
                            Ok(Claim::Replay(_)) => return 0,
                            other => panic!("{other:?}"),
                        }
                    }
                })
            })
            .collect();
        let mut fresh = 0;
        for task in tasks {
            fresh += task.await.unwrap();
        }
        assert_eq!(fresh, 1, "{options:?}");
    }
    assert_eq!(payments(&database).await, 15);
    Ok(())
}

async fn a_claim_that_is_committed_without_an_answer_holds_nothing() -> Outcome {
    let database = started().await?;
    let mut tx = open(&database).await;
    let _token = fresh(claimed(&mut tx, "k", &request("a")).await);
    tx.commit().await.unwrap();
    let mut tx = open(&database).await;
    fresh(claimed(&mut tx, "k", &request("b")).await);
    Ok(())
}

async fn a_forgotten_key_is_free() -> Outcome {
    let database = started().await?;
    let mut tx = open(&database).await;
    let token = fresh(claimed(&mut tx, "k", &request("a")).await);
    pay(&mut tx).await;
    forget(&mut tx, &token).await.unwrap();
    let twice = forget(&mut tx, &token).await.unwrap_err();
    assert!(matches!(twice, IdempotencyError::Unusable(_)), "{twice}");
    tx.commit().await.unwrap();
    let count = "select count(*) from idempotency_keys";
    assert_eq!(database.number(count).await, 0);
    assert_eq!(payments(&database).await, 1);
    Ok(())
}

async fn an_answer_without_a_claim_of_this_transaction_is_refused() -> Outcome {
    let database = started().await?;
    let mut tx = open(&database).await;
    let token = fresh(claimed(&mut tx, "k", &request("a")).await);
    tx.rollback().await.unwrap();
    let mut tx = open(&database).await;
    let refused = complete(&mut tx, &token, &answer("paid"), TTL)
        .await
        .unwrap_err();
    assert!(
        matches!(refused, IdempotencyError::Unusable(_)),
        "{refused}"
    );
    Ok(())
}

async fn outside_a_transaction_it_refuses_to_work() -> Outcome {
    let database = started().await?;
    let mut connection = database.pool.acquire().await.unwrap();
    let refused = claim(&mut connection, &scope(), &key("k"), &request("a")).await;
    assert!(matches!(refused, Err(IdempotencyError::NoTransaction)));
    let mut tx = open(&database).await;
    let token = fresh(claimed(&mut tx, "k", &request("a")).await);
    for refused in [
        complete(&mut connection, &token, &answer("paid"), TTL).await,
        forget(&mut connection, &token).await,
    ] {
        assert!(matches!(refused, Err(IdempotencyError::NoTransaction)));
    }
    Ok(())
}

async fn both_forms_respect_each_other() -> Outcome {
    let database = started().await?;
    let keys = keys(&database);
    let token = fresh(
        keys.claim(&scope(), &key("k"), &request("a"))
            .await
            .unwrap(),
    );
    let mut tx = open(&database).await;
    let same = claimed(&mut tx, "k", &request("a")).await;
    assert_eq!(same, Claim::InFlight);
    let other = claimed(&mut tx, "k", &request("b")).await;
    assert_eq!(other, Claim::Mismatch);
    assert!(keys.complete(&token, &answer("paid")).await.unwrap());
    let same = claimed(&mut tx, "k", &request("a")).await;
    assert_eq!(same, Claim::Replay(answer("paid")));
    Ok(())
}

async fn a_key_in_another_schema_is_another_key() -> Outcome {
    let (one, other) = (started().await?, started().await?);
    let database = "select oid::int8 from pg_database where datname = current_database()";
    assert_eq!(
        one.number(database).await,
        other.number(database).await,
        "the test needs two schemas of one database"
    );
    let (mut first, mut second) = (open(&one).await, open(&other).await);
    let _one = fresh(claimed(&mut first, "k", &request("a")).await);
    let _other = fresh(claimed(&mut second, "k", &request("a")).await);
    let mut third = open(&other).await;
    let same = claimed(&mut third, "k", &request("a")).await;
    assert_eq!(same, Claim::InFlight);
    Ok(())
}

async fn its_answer_expires() -> Outcome {
    let database = started().await?;
    answered(&database).await;
    let look = async |expected: &str| {
        let mut tx = open(&database).await;
        let found = claimed(&mut tx, "k", &request("b")).await;
        assert!(format!("{found:?}").starts_with(expected), "{found:?}");
        // Dropped, it would be rolled back later, and hold its locks for so long.
        tx.rollback().await.unwrap();
    };
    database.pass(TTL - Duration::from_secs(600)).await;
    look("Mismatch").await;
    database.pass(Duration::from_secs(600)).await;
    look("Fresh").await;
    Ok(())
}
