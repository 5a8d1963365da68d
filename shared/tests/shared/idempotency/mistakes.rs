//! The mistakes of published idempotency layers, one test for each.

use std::sync::Arc;
use std::time::Duration;

use shared::db::{PoolSettings, connect_lazy};
use shared::idempotency::BodyForm;

use super::Database;
use super::web::{Call, Till, call, options};
use crate::support::{Outcome, tests};

tests![
    the_same_request_at_once_runs_once_and_the_others_hear_when_to_come_back,
    nothing_runs_while_the_store_is_down,
    nothing_of_the_database_is_told_to_the_client,
    a_handler_slower_than_its_lease_keeps_it,
    a_handler_that_hangs_does_not_hold_its_key_for_ever,
    a_late_handler_does_not_answer_over_its_successor,
    a_late_handler_hears_that_its_successor_is_still_at_work,
    another_body_is_refused_in_every_form_while_the_first_runs_and_after,
    an_answer_that_cannot_be_stored_is_still_given,
];

/// No lock while it runs: the second finds no answer, and runs too.
async fn the_same_request_at_once_runs_once_and_the_others_hear_when_to_come_back() -> Outcome {
    let database = Database::start().await?;
    let (till, mut begun) = Till::new();
    let mut patient = options();
    patient.retry_after = Duration::from_millis(1_500);
    let router = till.router(&database.pool, patient);
    let clients: Vec<_> = (0..8).map(|_| call().begin(&router)).collect();
    assert_eq!(begun.recv().await, Some(1));
    // One is at work. All that come from now on are told to wait, and seven of those that came.
    let late = call().send(&router).await;
    late.problem(409);
    assert_eq!(late.headers["retry-after"], "2", "rounded up");
    let (done, mut results) = tokio::sync::mpsc::unbounded_channel();
    for client in clients {
        let done = done.clone();
        tokio::spawn(async move { done.send(client.await.unwrap()).unwrap() });
    }
    for _ in 0..7 {
        results.recv().await.unwrap().problem(409);
    }
    till.may_finish.add_permits(1);
    assert_eq!(results.recv().await.unwrap().body, "run 1");
    assert_eq!(till.runs(), 1);
    Ok(())
}

/// Fails open: without a store it lets everything pass.
async fn nothing_runs_while_the_store_is_down() -> Outcome {
    let settings = PoolSettings {
        acquire_timeout: Duration::from_millis(200),
        ..PoolSettings::default()
    };
    // Nobody listens there.
    let pool = connect_lazy("postgres://a:b@127.0.0.1:9/x".parse().unwrap(), &settings);
    let till = Till::open();
    let router = till.router(&pool, options());
    let got = call().send(&router).await;
    got.problem(503);
    assert!(got.headers.contains_key("retry-after"));
    assert_eq!(till.runs(), 0);
    Ok(())
}

async fn nothing_of_the_database_is_told_to_the_client() -> Outcome {
    let database = Database::start().await?;
    database.run("drop table idempotency_keys").await;
    let till = Till::open();
    let router = till.router(&database.pool, options());
    let got = call().send(&router).await;
    let text = got.problem(503);
    assert!(
        !text.contains("idempotency_keys") && !text.contains("relation"),
        "{text}"
    );
    assert_eq!(till.runs(), 0);
    Ok(())
}

/// A lock that runs out under a slow handler: the second runs beside it.
async fn a_handler_slower_than_its_lease_keeps_it() -> Outcome {
    let database = Database::start().await?;
    let (till, mut begun) = Till::new();
    let mut short = options();
    short.terms.lease = Duration::from_millis(300);
    let router = till.router(&database.pool, short);
    let client = call().begin(&router);
    assert_eq!(begun.recv().await, Some(1));
    // The first lease is over, and the next ones as well.
    database
        .run("create table began as select now() as at")
        .await;
    database
        .until(
            "many leases have passed",
            "select now() > at + interval '1500 ms' and locked_until > now()
             from began, idempotency_keys",
        )
        .await;
    call().send(&router).await.problem(409);
    till.may_finish.add_permits(1);
    assert_eq!(client.await.unwrap().body, "run 1");
    assert!(call().send(&router).await.is_replayed());
    assert_eq!(till.runs(), 1);
    Ok(())
}

/// The other end of it: a heartbeat that never stops makes a deadlock of ours everybody's.
async fn a_handler_that_hangs_does_not_hold_its_key_for_ever() -> Outcome {
    let database = Database::start().await?;
    let (till, mut begun) = Till::new();
    let mut short = options();
    short.terms.lease = Duration::from_millis(150);
    short.longest_run = Duration::from_millis(300);
    let router = till.router(&database.pool, short);
    let hangs = call().begin(&router);
    assert_eq!(begun.recv().await, Some(1));
    database
        .until(
            "the lease has run out",
            "select locked_until < now() from idempotency_keys",
        )
        .await;
    let second = call().begin(&router);
    assert_eq!(begun.recv().await, Some(2));
    hangs.abort();
    till.may_finish.add_permits(2);
    assert_eq!(second.await.unwrap().status, 201);
    Ok(())
}

/// No fencing: the slow handler's answer replaces the one that was given to somebody already.
async fn a_late_handler_does_not_answer_over_its_successor() -> Outcome {
    let database = Database::start().await?;
    let (late, mut late_begun) = Till::new();
    let successor = Till::open();
    let late_router = late.router(&database.pool, options());
    let successors_router = successor.router_with(&database.pool, options(), |_, _| {
        axum::response::IntoResponse::into_response("the successor's")
    });
    let late_client = call().begin(&late_router);
    assert_eq!(late_begun.recv().await, Some(1));
    // Cut off from the database for longer than its lease, say; the next heartbeat is 3 s away.
    database.end_leases().await;
    let got = call().send(&successors_router).await;
    assert_eq!(
        (got.body.as_str(), got.is_replayed()),
        ("the successor's", false)
    );
    late.may_finish.add_permits(1);
    let late_got = late_client.await.unwrap();
    assert_eq!(
        (late_got.body.as_str(), late_got.is_replayed()),
        ("the successor's", true)
    );
    let again = call().send(&late_router).await;
    assert_eq!(again.body, "the successor's");
    Ok(())
}

async fn a_late_handler_hears_that_its_successor_is_still_at_work() -> Outcome {
    let database = Database::start().await?;
    let (late, mut late_begun) = Till::new();
    let (successor, mut successor_begun) = Till::new();
    let late_client = call().begin(&late.router(&database.pool, options()));
    assert_eq!(late_begun.recv().await, Some(1));
    database.end_leases().await;
    let successors_router = successor.router(&database.pool, options());
    let successors_client = call().begin(&successors_router);
    assert_eq!(successor_begun.recv().await, Some(1));
    late.may_finish.add_permits(1);
    late_client.await.unwrap().problem(409);
    successor.may_finish.add_permits(1);
    assert_eq!(successors_client.await.unwrap().status, 201);
    Ok(())
}

/// The body is not looked at in some mode: a key pays one thing and answers for another.
async fn another_body_is_refused_in_every_form_while_the_first_runs_and_after() -> Outcome {
    let database = Database::start().await?;
    for (form, caller) in [(BodyForm::Bytes, "bytes"), (BodyForm::Json, "json")] {
        let (till, mut begun) = Till::new();
        let mut options = options();
        options.body_form = form;
        let router = till.router(&database.pool, options);
        let call = Call { caller, ..call() };
        let others = [
            Call {
                body: r#"{"amount_cents":900,"currency":"EUR"}"#.into(),
                ..call.clone()
            },
            Call {
                body: r#"{"amount_cents":100,"currency":"EUR","amount_cents":900}"#.into(),
                ..call.clone()
            },
            Call {
                uri: "/pay/8",
                ..call.clone()
            },
            Call {
                uri: "/pay/7?currency=USD",
                ..call.clone()
            },
            Call {
                content_type: "text/plain",
                ..call.clone()
            },
        ];
        let client = call.begin(&router);
        assert_eq!(begun.recv().await, Some(1));
        for other in &others {
            other.send(&router).await.problem(422);
        }
        till.may_finish.add_permits(1);
        assert_eq!(client.await.unwrap().status, 201);
        for other in &others {
            other.send(&router).await.problem(422);
        }
        assert!(call.send(&router).await.is_replayed());
        assert_eq!(till.runs(), 1);
    }
    Ok(())
}

/// The effect has happened. To answer 503 would ask for it a second time.
async fn an_answer_that_cannot_be_stored_is_still_given() -> Outcome {
    let database = Database::start().await?;
    let (till, mut begun) = Till::new();
    let router = till.router(&database.pool, options());
    let client = call().begin(&router);
    assert_eq!(begun.recv().await, Some(1));
    database
        .run("alter table idempotency_keys rename to gone")
        .await;
    till.may_finish.add_permits(1);
    let got = Arc::new(client.await.unwrap());
    assert_eq!((got.status, got.body.as_str()), (201, "run 1"));
    database
        .run("alter table gone rename to idempotency_keys")
        .await;
    // Nobody knows the answer, so the key is held for as long as the lease.
    call().send(&router).await.problem(409);
    Ok(())
}
