//! `Keys` and the clean-up, statement by statement.

use std::time::Duration;

use http::{HeaderMap, HeaderValue, StatusCode, header};
use shared::idempotency::{
    Answer, Claim, IdempotencyError, Key, Keys, Scope, Terms, Token, clean_up,
};

use super::{Database, key, request, scope};
use crate::support::{Outcome, tests};

tests![
    one_of_many_gets_the_key,
    an_answer_is_kept_as_it_was_given,
    a_key_longer_than_any_index_entry_may_be_is_kept,
    another_request_is_told_so_whatever_state_the_key_is_in,
    a_renewed_lease_lasts_beyond_the_time_of_the_key,
    a_token_is_worth_nothing_after_the_next_claim,
    the_clean_up_takes_a_bounded_number_and_only_what_is_over,
    the_clean_up_reads_an_index_and_not_the_table,
    several_clean_ups_at_once_take_each_key_once,
    terms_that_cannot_work_are_refused,
];

pub(super) fn keys(database: &Database) -> Keys {
    Keys::new(database.pool.clone(), Terms::default()).unwrap()
}

pub(super) fn fresh(claim: Claim) -> Token {
    match claim {
        Claim::Fresh(token) => token,
        other => panic!("not fresh: {other:?}"),
    }
}

pub(super) fn answer(text: &'static str) -> Answer {
    Answer {
        status: StatusCode::CREATED,
        headers: HeaderMap::new(),
        body: Some(text.into()),
    }
}

async fn one_of_many_gets_the_key() -> Outcome {
    let database = Database::start().await?;
    for round in 0..20 {
        let name = format!("k-{round}");
        let tasks: Vec<_> = (0..8)
            .map(|_| {
                let (keys, name) = (keys(&database), name.clone());
                tokio::spawn(async move {
                    keys.claim(&scope(), &key(&name), &request("a"))
                        .await
                        .unwrap()
                })
            })
            .collect();
        let mut fresh = 0;
        for task in tasks {
            match task.await.unwrap() {
                Claim::Fresh(_) => fresh += 1,
                other => assert_eq!(other, Claim::InFlight),
            }
        }
        assert_eq!(fresh, 1, "round {round}");
    }
    Ok(())
}

async fn an_answer_is_kept_as_it_was_given() -> Outcome {
    let database = Database::start().await?;
    let keys = keys(&database);
    let mut headers = HeaderMap::new();
    headers.append(header::CONTENT_TYPE, HeaderValue::from_static("image/png"));
    headers.append(header::LINK, HeaderValue::from_static("</a>; rel=next"));
    headers.append(header::LINK, HeaderValue::from_static("</b>; rel=prev"));
    // A header's value need not be UTF-8, nor a body text.
    headers.append(header::ETAG, HeaderValue::from_bytes(b"\"\xff\"").unwrap());
    let given = [
        Answer {
            status: StatusCode::CREATED,
            headers,
            body: Some(vec![0, 255, 10, 0].into()),
        },
        Answer {
            status: StatusCode::NO_CONTENT,
            headers: HeaderMap::new(),
            body: Some(Vec::new().into()),
        },
        Answer {
            status: StatusCode::OK,
            headers: HeaderMap::new(),
            body: None,
        },
    ];
    for (n, answer) in given.into_iter().enumerate() {
        let (key, request) = (key(&format!("k-{n}")), request("a"));
        let token = fresh(keys.claim(&scope(), &key, &request).await.unwrap());
        assert!(keys.complete(&token, &answer).await.unwrap());
        let again = keys.claim(&scope(), &key, &request).await.unwrap();
        assert_eq!(again, Claim::Replay(answer));
    }
    Ok(())
}

async fn a_key_longer_than_any_index_entry_may_be_is_kept() -> Outcome {
    let database = Database::start().await?;
    let keys = keys(&database);
    let scope = Scope::new(&[&"subject ".repeat(2_000), "POST", "/pay"]);
    let key = Key::new("~".repeat(255)).unwrap();
    let token = fresh(keys.claim(&scope, &key, &request("a")).await.unwrap());
    assert!(keys.release(&token).await.unwrap());
    Ok(())
}

async fn another_request_is_told_so_whatever_state_the_key_is_in() -> Outcome {
    let database = Database::start().await?;
    let keys = keys(&database);
    let other = async || {
        keys.claim(&scope(), &key("k"), &request("b"))
            .await
            .unwrap()
    };
    let token = fresh(
        keys.claim(&scope(), &key("k"), &request("a"))
            .await
            .unwrap(),
    );
    assert_eq!(other().await, Claim::Mismatch, "while the first one runs");
    database.end_leases().await;
    assert_eq!(
        other().await,
        Claim::Mismatch,
        "while the first one is dead"
    );
    assert!(keys.complete(&token, &answer("done")).await.unwrap());
    assert_eq!(other().await, Claim::Mismatch, "when it was answered");
    database.pass(keys.terms().ttl).await;
    fresh(other().await);
    Ok(())
}

async fn a_renewed_lease_lasts_beyond_the_time_of_the_key() -> Outcome {
    let database = Database::start().await?;
    let keys = keys(&database);
    let claim = async |text| {
        keys.claim(&scope(), &key("k"), &request(text))
            .await
            .unwrap()
    };
    let token = fresh(claim("a").await);
    // All but five seconds of its time; the lease is twice as long.
    database
        .run(
            "update idempotency_keys
              set expires_at = now() + interval '5 s', locked_until = now() + interval '1 s'",
        )
        .await;
    assert!(keys.renew(&token).await.unwrap());
    database.pass(Duration::from_secs(7)).await;
    assert_eq!(claim("b").await, Claim::Mismatch);
    assert_eq!(clean_up(&database.pool, 10).await.unwrap(), 0);
    assert!(keys.complete(&token, &answer("late")).await.unwrap());
    assert_eq!(claim("a").await, Claim::Replay(answer("late")));
    Ok(())
}

async fn a_token_is_worth_nothing_after_the_next_claim() -> Outcome {
    let database = Database::start().await?;
    let keys = keys(&database);
    let claim = async || {
        keys.claim(&scope(), &key("k"), &request("a"))
            .await
            .unwrap()
    };
    let late = fresh(claim().await);
    database.end_leases().await;
    let successor = fresh(claim().await);
    assert!(successor.number() > late.number());
    assert!(!keys.renew(&late).await.unwrap());
    assert!(!keys.release(&late).await.unwrap());
    assert!(!keys.complete(&late, &answer("late")).await.unwrap());
    assert_eq!(claim().await, Claim::InFlight);
    assert!(keys.complete(&successor, &answer("in time")).await.unwrap());
    assert!(!keys.complete(&late, &answer("late")).await.unwrap());
    assert!(!keys.release(&late).await.unwrap());
    // Nor can the successor take back what was answered.
    assert!(!keys.release(&successor).await.unwrap());
    assert_eq!(claim().await, Claim::Replay(answer("in time")));
    Ok(())
}

/// So many keys, of which every tenth is not over.
async fn fill(database: &Database, count: i64) {
    sqlx::query(
        "insert into idempotency_keys
             (scope, key, fingerprint, token, locked_until, expires_at)
         select 'filled', n::text, decode(repeat('00', 32), 'hex'), n,
                now() - interval '1 day',
                case when n % 10 = 0 then now() + interval '1 day'
                     else now() - n * interval '1 second' end
         from generate_series(1, $1) n",
    )
    .bind(count)
    .execute(&database.pool)
    .await
    .unwrap();
}

async fn the_clean_up_takes_a_bounded_number_and_only_what_is_over() -> Outcome {
    let database = Database::start().await?;
    fill(&database, 100).await;
    let oldest = "select count(*) from idempotency_keys where token > 80 and token % 10 > 0";
    assert_eq!(clean_up(&database.pool, 18).await.unwrap(), 18);
    assert_eq!(database.number(oldest).await, 0, "the oldest come first");
    assert_eq!(clean_up(&database.pool, 60).await.unwrap(), 60);
    assert_eq!(clean_up(&database.pool, 60).await.unwrap(), 12);
    assert_eq!(clean_up(&database.pool, 60).await.unwrap(), 0);
    let left = "select count(*) from idempotency_keys where token % 10 = 0";
    assert_eq!(database.number(left).await, 10);
    Ok(())
}

async fn the_clean_up_reads_an_index_and_not_the_table() -> Outcome {
    let database = Database::start().await?;
    // Many more than it may take, so that a plan that reads all of them would be a costly one.
    fill(&database, 50_000).await;
    database.run("analyze idempotency_keys").await;
    let reads = "select coalesce(seq_tup_read, 0) from pg_stat_xact_user_tables
                 where relname = 'idempotency_keys' and schemaname = current_schema()";
    let mut tx = shared::db::begin(&database.pool, &shared::db::TxOptions::default())
        .await
        .unwrap();
    let rows = |sql: &'static str| sqlx::query_scalar::<_, i64>(sql);
    let before = rows(reads).fetch_one(&mut *tx).await.unwrap();
    // The very statement, on the connection whose reads are counted.
    let removed = clean_up(&mut *tx, 100).await.unwrap();
    let after = rows(reads).fetch_one(&mut *tx).await.unwrap();
    assert_eq!((removed, after - before), (100, 0));
    // The counter counts: here is the plan that it must not be.
    rows("select count(*) from idempotency_keys where token < 0 or fingerprint is null")
        .fetch_one(&mut *tx)
        .await
        .unwrap();
    assert!(rows(reads).fetch_one(&mut *tx).await.unwrap() >= after + 49_000);
    Ok(())
}

async fn several_clean_ups_at_once_take_each_key_once() -> Outcome {
    let database = Database::start().await?;
    fill(&database, 2_000).await;
    let tasks: Vec<_> = (0..4)
        .map(|_| {
            let pool = database.pool.clone();
            tokio::spawn(async move {
                let mut removed = 0;
                // What is locked by another one is left to it, so an empty hand is no end.
                for _ in 0..20 {
                    removed += clean_up(&pool, 50).await.unwrap();
                }
                removed
            })
        })
        .collect();
    let mut removed = 0;
    for task in tasks {
        removed += task.await.unwrap();
    }
    removed += clean_up(&database.pool, 2_000).await.unwrap();
    assert_eq!(removed, 1_800);
    assert_eq!(
        database
            .number("select count(*) from idempotency_keys")
            .await,
        200
    );
    Ok(())
}

async fn terms_that_cannot_work_are_refused() -> Outcome {
    let pool = shared::db::connect_lazy(
        "postgres://a@127.0.0.1:9/x".parse().unwrap(),
        &shared::db::PoolSettings::default(),
    );
    let seconds = Duration::from_secs;
    for (lease, ttl) in [
        (Duration::ZERO, seconds(60)),
        (Duration::from_nanos(1), seconds(60)),
        (seconds(60), seconds(59)),
        (seconds(1), Duration::MAX),
        (Duration::MAX, Duration::MAX),
    ] {
        let refused = Keys::new(pool.clone(), Terms { lease, ttl });
        assert!(
            matches!(refused, Err(IdempotencyError::Unusable(_))),
            "{lease:?} {ttl:?}"
        );
    }
    // Thirds of a second are no number of microseconds.
    let terms = Terms {
        lease: seconds(1) / 3,
        ttl: seconds(2) / 3,
    };
    assert!(Keys::new(pool, terms).is_ok());
    Ok(())
}
