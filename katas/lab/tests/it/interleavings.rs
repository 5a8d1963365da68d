//! Interleaving enumeration against a program of a few lines: a race is found at some point, a lock
//! holds at all of them, and a single simple statement has only one.

use std::{
    sync::{
        Arc,
        atomic::{AtomicUsize, Ordering},
    },
    time::Duration,
};

use axum::{
    Router,
    extract::{Path, State},
    http::StatusCode,
    routing::post,
};
use kata_lab::{
    App, BoxError, Env, Given, Grounds, Implementation, Instance, Interleaving, Judged, Kata, Kind,
    Lab, Reached, Session, Variant, at_every_hold_point,
};
use sqlx::{AssertSqlSafe, PgPool, postgres::PgPoolOptions};

const TABLES: &str = "create table counters (n bigint not null); insert into counters values (0);";

/// Adds one, in the way that the path names.
async fn add(State(db): State<PgPool>, Path(way): Path<String>) -> StatusCode {
    match added(&db, &way).await {
        Ok(()) => StatusCode::NO_CONTENT,
        Err(_) => StatusCode::SERVICE_UNAVAILABLE,
    }
}

async fn added(db: &PgPool, way: &str) -> Result<(), sqlx::Error> {
    let mut tx = match way {
        "racy" => {
            let n: i64 = sqlx::query_scalar("select n from counters")
                .fetch_one(db)
                .await?;
            let write = sqlx::query("update counters set n = $1").bind(n + 1);
            return write.execute(db).await.map(drop);
        }
        "simple" => {
            let sql = "update counters set n = n + 1";
            return sqlx::raw_sql(sql).execute(db).await.map(drop);
        }
        _ => db.begin().await?,
    };
    let n: i64 = sqlx::query_scalar("select n from counters for update")
        .fetch_one(&mut *tx)
        .await?;
    sqlx::query("update counters set n = $1")
        .bind(n + 1)
        .execute(&mut *tx)
        .await?;
    tx.commit().await
}

async fn app(env: Env) -> Result<App, BoxError> {
    let db = PgPoolOptions::new()
        .max_connections(4)
        .test_before_acquire(false)
        .connect_lazy(env.text("DATABASE_URL")?)?;
    Ok(App::new(
        Router::new().route("/add/{way}", post(add)).with_state(db),
    ))
}

fn kata() -> Kata {
    Kata {
        name: "kata-98-counter",
        title: "counter",
        promise: "every addition counts",
        readme: "",
        readme_es: "",
        exercise_file: "",
        given: Given {
            database: true,
            tables: TABLES,
            ..Given::default()
        },
        labs_per_core: 4,
        steps: Vec::new(),
        variants: vec![Variant::new("counter", "counter", Kind::Exercise, app)],
        curl: &[],
        experiment: |_| Box::pin(async { Ok(()) }),
        commands: &[],
    }
}

async fn count(lab: &Lab) -> i64 {
    let sql = format!("select n from {}.counters", lab.schema());
    sqlx::query_scalar(AssertSqlSafe(sql))
        .fetch_one(lab.admin())
        .await
        .unwrap()
}

/// At how many points two additions were not two, of how many at which the first was held; and the
/// note.
async fn enumerate(way: &'static str) -> (usize, usize, String) {
    let kata = Arc::new(kata());
    let grounds = Grounds::open(&kata.given).await.unwrap();
    let session = Session::new(kata.clone(), grounds.clone(), 7, Duration::from_secs(60));
    let implementation = Implementation::in_process(kata.exercise());
    let lab = session.lab(&implementation, way).await.unwrap();
    let [lost, held] = [(); 2].map(|()| Arc::new(AtomicUsize::new(0)));
    let counters = (lost.clone(), held.clone());
    let warm = move |_: Lab, at: Instance| async move {
        at.post(format!("/add/{way}")).send().await.map(drop)
    };
    let scene = move |stage: Lab, both: Interleaving| {
        let (lost, held) = counters.clone();
        async move {
            let before = count(&stage).await;
            let path = format!("/add/{way}");
            let played = both
                .play(both.first.post(path.clone()), both.second.post(path))
                .await?;
            for answer in [&played.first, &played.second] {
                assert!(answer.as_ref().is_ok_and(|reply| reply.status.is_success()));
            }
            if count(&stage).await != before + 2 {
                lost.fetch_add(1, Ordering::Relaxed);
            }
            if played.reached == Reached::Held {
                held.fetch_add(1, Ordering::Relaxed);
            }
            Judged::Ok(played.reached)
        }
    };
    let note = at_every_hold_point(&lab, warm, scene).await.unwrap();
    lab.close().await;
    grounds.close().await.unwrap();
    let read = |counter: &AtomicUsize| counter.load(Ordering::Relaxed);
    (read(&lost), read(&held), note)
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_race_is_found_at_some_point() {
    let (lost, held, note) = enumerate("racy").await;
    assert!(lost > 0, "{note}");
    assert!(held > lost, "{note}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_lock_holds_at_every_point() {
    let (lost, held, note) = enumerate("locked").await;
    assert_eq!(lost, 0, "{note}");
    // Begin, two statements and a commit; the two statements have run before they are committed.
    assert!(held >= 6, "{note}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_single_simple_statement_is_held_before_it_only() {
    let (lost, _, note) = enumerate("simple").await;
    assert_eq!(lost, 0, "{note}");
    assert!(note.ends_with(" 0 within one"), "{note}");
}
