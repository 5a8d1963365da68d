//! What is left when the process dies. It dies by the loss of its runtime: every task ends at its
//! next await, nothing is flushed, nothing says goodbye.

use std::future::Future;
use std::time::Duration;

use axum::response::IntoResponse;
use shared::db::{TxOptions, begin};
use shared::idempotency::{Claim, claim, complete};
use tokio::runtime::Runtime;
use tokio::sync::mpsc;

use super::keys::answer;
use super::web::{call, options, router};
use super::{Database, key, request, scope};
use crate::support::{End, Outcome, tests};

tests![
    dead_before_the_effect_it_happens_once,
    dead_between_effect_and_answer_it_happens_again_after_the_lease,
    dead_after_the_answer_was_stored_it_is_given_again,
    dead_anywhere_in_a_transaction_it_happens_once,
];

/// A runtime that can be lost.
struct Process(Option<Runtime>);

impl Process {
    fn start(work: impl Future<Output = ()> + Send + 'static) -> Self {
        let runtime = Runtime::new().unwrap();
        runtime.spawn(work);
        Self(Some(runtime))
    }

    fn crash(mut self) {
        self.0.take().unwrap().shutdown_background();
    }
}

/// A test that fails in between must not panic a second time.
impl Drop for Process {
    fn drop(&mut self) {
        if let Some(runtime) = self.0.take() {
            runtime.shutdown_background();
        }
    }
}

async fn started() -> Result<Database, End> {
    let database = Database::start().await?;
    database.run("create table effects (n bigint)").await;
    Ok(database)
}

async fn effects(database: &Database) -> i64 {
    database.number("select count(*) from effects").await
}

fn short() -> shared::idempotency::Options {
    let mut short = options();
    short.terms.lease = Duration::from_millis(300);
    short
}

#[derive(Clone, Copy, PartialEq, Eq)]
enum Dies {
    BeforeTheEffect,
    AfterTheEffect,
    AfterTheAnswer,
}

/// Serves one request with an effect of one committed statement, and dies in the middle of it.
async fn dies(database: &Database, moment: Dies) {
    let pool = database.another_pool_later();
    let (say, mut said) = mpsc::unbounded_channel();
    let process = Process::start(async move {
        let pool = pool();
        let effects = pool.clone();
        let router = router(&pool, short(), move |_| {
            let (effects, say) = (effects.clone(), say.clone());
            async move {
                if moment != Dies::BeforeTheEffect {
                    let sql = "insert into effects values (1)";
                    sqlx::query(sql).execute(&effects).await.unwrap();
                }
                say.send(()).unwrap();
                if moment != Dies::AfterTheAnswer {
                    std::future::pending::<()>().await;
                }
                "first".into_response()
            }
        });
        call().send(&router).await;
    });
    said.recv().await.unwrap();
    if moment == Dies::AfterTheAnswer {
        let stored = "select bool_or(status = 200) from idempotency_keys";
        database.until("the answer is stored", stored).await;
    }
    process.crash();
}

/// The same request to a process that lives, until it is answered.
async fn asked_again(database: &Database) -> super::web::Got {
    let pool = database.pool.clone();
    let router = router(&database.pool, short(), move |_| {
        let pool = pool.clone();
        async move {
            let sql = "insert into effects values (2)";
            sqlx::query(sql).execute(&pool).await.unwrap();
            "second".into_response()
        }
    });
    // Nobody renews the lease of the dead.
    let over = "select coalesce(bool_and(status is not null or locked_until < now()), true)
                from idempotency_keys";
    database.until("the lease is over", over).await;
    call().send(&router).await
}

async fn dead_before_the_effect_it_happens_once() -> Outcome {
    let database = started().await?;
    dies(&database, Dies::BeforeTheEffect).await;
    assert_eq!(effects(&database).await, 0);
    let got = asked_again(&database).await;
    assert_eq!((got.body.as_str(), effects(&database).await), ("second", 1));
    Ok(())
}

/// The gap that no layer can close, as its documentation says.
async fn dead_between_effect_and_answer_it_happens_again_after_the_lease() -> Outcome {
    let database = started().await?;
    dies(&database, Dies::AfterTheEffect).await;
    assert_eq!(effects(&database).await, 1);
    let got = asked_again(&database).await;
    assert_eq!((got.body.as_str(), effects(&database).await), ("second", 2));
    Ok(())
}

async fn dead_after_the_answer_was_stored_it_is_given_again() -> Outcome {
    let database = started().await?;
    dies(&database, Dies::AfterTheAnswer).await;
    let got = asked_again(&database).await;
    assert!(got.is_replayed());
    assert_eq!((got.body.as_str(), effects(&database).await), ("first", 1));
    Ok(())
}

const TTL: Duration = Duration::from_secs(60);

/// Claims, does the effect, completes; stops for ever after so many of these steps.
async fn in_transaction(pool: sqlx::PgPool, steps: usize) -> Option<Claim> {
    let mut tx = begin(&pool, &TxOptions::default()).await.unwrap();
    let found = claim(&mut tx, &scope(), &key("k"), &request("a"))
        .await
        .unwrap();
    let Claim::Fresh(token) = &found else {
        // Dropped, it would be rolled back later, and hold its locks for so long.
        tx.rollback().await.unwrap();
        return Some(found);
    };
    if steps >= 2 {
        let sql = "insert into effects values (1)";
        sqlx::query(sql).execute(&mut *tx).await.unwrap();
    }
    if steps >= 3 {
        let paid = answer("paid");
        complete(&mut tx, token, &paid, TTL).await.unwrap();
    }
    if steps < 4 {
        // Not dropped, for that would be a polite rollback.
        std::mem::forget(tx);
        return None;
    }
    tx.commit().await.unwrap();
    Some(found)
}

async fn dead_anywhere_in_a_transaction_it_happens_once() -> Outcome {
    for steps in 1..=3 {
        let database = started().await?;
        let pool = database.another_pool_later();
        let (say, mut said) = mpsc::unbounded_channel();
        let process = Process::start(async move {
            let stopped = in_transaction(pool(), steps).await;
            say.send(stopped.is_none()).unwrap();
            std::future::pending::<()>().await;
        });
        assert_eq!(said.recv().await, Some(true));
        // Whatever it did is invisible, and the key is its own.
        let alive = in_transaction(database.pool.clone(), 4).await;
        assert_eq!(alive, Some(Claim::InFlight));
        process.crash();
        // What a crash leaves to the server: it ends the session when it meets the broken connection.
        sqlx::query(
            "select pg_terminate_backend(pid) from pg_stat_activity
             where usename = current_user and state = 'idle in transaction'",
        )
        .execute(&database.pool)
        .await
        .unwrap();
        database
            .until(
                "the dead session has ended",
                "select count(*) = 0 from pg_stat_activity
                 where usename = current_user and state = 'idle in transaction'",
            )
            .await;
        assert_eq!(effects(&database).await, 0, "{steps} steps");
        let again = in_transaction(database.pool.clone(), 4).await;
        assert!(
            matches!(again, Some(Claim::Fresh(_))),
            "{steps} steps: {again:?}"
        );
        let replay = in_transaction(database.pool.clone(), 4).await;
        assert_eq!(replay, Some(Claim::Replay(answer("paid"))));
        assert_eq!(effects(&database).await, 1, "{steps} steps");
    }
    Ok(())
}
