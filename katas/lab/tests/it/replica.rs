//! A replica for the checks that ask for one: given, cut, held, and handed on in order.

use std::{
    future::Future,
    sync::{Arc, Mutex},
    time::Duration,
};

use axum::Router;
use kata_lab::{
    App, Env, Given, Grounds, Implementation, Kata, Kind, Lab, Session, Step, Variant, check,
};
use sqlx::{AssertSqlSafe, Connection, PgConnection, PgPool};

const DEADLINE: Duration = Duration::from_secs(60);

/// What the program was started with.
type Seen = Arc<Mutex<Option<Env>>>;

struct Scene {
    session: Session,
    program: Implementation,
    seen: Seen,
}

impl Scene {
    /// `None` where there is no PostgreSQL.
    async fn open() -> Option<Self> {
        let seen = Seen::default();
        let kata = Arc::new(kata(&seen));
        let grounds = match Grounds::open(&kata.given).await {
            Ok(grounds) => grounds,
            Err(error) if error.is_missing() => return None,
            Err(error) => panic!("{error}"),
        };
        let program = Implementation::in_process(kata.exercise());
        Some(Self {
            session: Session::new(kata, grounds, 1, DEADLINE),
            program,
            seen,
        })
    }

    async fn lab(&self) -> Lab {
        let lab = self.session.lab_with_replica(&self.program, "a test");
        within(lab).await.unwrap()
    }

    fn variable(&self, name: &str) -> Option<String> {
        let seen = self.seen.lock().unwrap();
        let text = seen.as_ref().unwrap().text(name);
        text.ok().map(str::to_owned)
    }

    async fn close(&self) {
        within(self.session.grounds().close()).await.unwrap();
    }
}

fn kata(seen: &Seen) -> Kata {
    let seen = seen.clone();
    Kata {
        name: "kata-98-replica",
        title: "replica",
        promise: "one has what the other has",
        readme: "",
        readme_es: "",
        exercise_file: "",
        given: Given {
            database: true,
            replica: true,
            ..Given::default()
        },
        labs_per_core: 4,
        steps: vec![Step {
            title: "one",
            hints: ["a", "b", "c"],
            checks: vec![check!(has_a_replica, "who knows?").with_replica()],
        }],
        variants: vec![Variant::new(
            "exercise",
            "yours",
            Kind::Exercise,
            move |env| {
                *seen.lock().unwrap() = Some(env);
                async { Ok(App::new(Router::new())) }
            },
        )],
        curl: &[],
        experiment: |_| Box::pin(async { Ok(()) }),
        commands: &[],
    }
}

async fn has_a_replica(lab: Lab) -> kata_lab::Judged {
    lab.start().await?;
    lab.replica().caught_up().await
}

async fn within<T>(future: impl Future<Output = T>) -> T {
    tokio::time::timeout(DEADLINE, future)
        .await
        .expect("it is done before the deadline")
}

async fn execute(lab: &Lab, sql: &str) {
    let sql = sql.replace("notes", &format!("{}.notes", lab.schema()));
    let done = sqlx::raw_sql(AssertSqlSafe(sql)).execute(lab.admin()).await;
    done.unwrap();
}

async fn notes(lab: &Lab, server: &PgPool) -> i64 {
    let sql = format!("select count(*) from {}.notes", lab.schema());
    let counted = sqlx::query_scalar(AssertSqlSafe(sql)).fetch_one(server);
    counted.await.unwrap()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn only_who_asks_for_a_replica_is_given_its_address() {
    let Some(scene) = Scene::open().await else {
        return;
    };
    let lab = scene.session.lab(&scene.program, "a test").await.unwrap();
    lab.start().await.unwrap();
    assert!(scene.variable("DATABASE_URL").is_some());
    assert_eq!(scene.variable("REPLICA_URL"), None);
    lab.close().await;

    let lab = scene.lab().await;
    lab.start().await.unwrap();
    let url = scene.variable("REPLICA_URL").unwrap();
    assert_ne!(scene.variable("DATABASE_URL").unwrap(), url);
    // The role of the primary is the replica's too, with its search path.
    execute(&lab, "create table notes (n int)").await;
    let role = lab.schema().to_owned();
    let grant = format!("grant all on {role}.notes to {role}");
    sqlx::raw_sql(AssertSqlSafe(grant))
        .execute(lab.admin())
        .await
        .unwrap();
    lab.replica().caught_up().await.unwrap();
    let mut session = PgConnection::connect(&url).await.unwrap();
    let sql = "select count(*) from notes where pg_is_in_recovery()";
    let counted: i64 = sqlx::query_scalar(sql)
        .fetch_one(&mut session)
        .await
        .unwrap();
    assert_eq!(counted, 0);
    lab.close().await;
    scene.close().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_replica_that_is_held_or_cut_off_lacks_what_is_written() {
    let Some(scene) = Scene::open().await else {
        return;
    };
    let lab = scene.lab().await;
    let replica = lab.replica();
    execute(&lab, "create table notes (n int)").await;
    replica.caught_up().await.unwrap();
    assert!(replica.positions().await.unwrap().is_complete());

    replica.hold().await.unwrap();
    execute(&lab, "insert into notes values (1)").await;
    assert_eq!(notes(&lab, replica.reader()).await, 0);
    assert!(replica.positions().await.unwrap().lag_bytes() > 0);
    replica.release().await.unwrap();
    replica.caught_up().await.unwrap();
    assert_eq!(notes(&lab, replica.reader()).await, 1);

    replica.cut().await.unwrap();
    execute(&lab, "insert into notes values (2)").await;
    let apart = replica.positions().await.unwrap();
    assert!(apart.received < apart.flushed, "{apart:?}");
    assert_eq!(notes(&lab, replica.reader()).await, 1);
    replica.heal().await.unwrap();
    replica.caught_up().await.unwrap();
    assert_eq!(notes(&lab, replica.reader()).await, 2);

    let told: Vec<_> = lab.history().events().into_iter().map(|e| e.what).collect();
    assert_eq!(
        told,
        [
            "the replica replays nothing from now on",
            "the replica replays again",
            "primary and replica are cut apart",
            "primary and replica are joined again",
        ]
    );
    lab.close().await;
    scene.close().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn each_front_is_cut_by_itself() {
    let Some(scene) = Scene::open().await else {
        return;
    };
    let lab = scene.lab().await;
    let program = lab.start().await.unwrap();
    let primary = scene.variable("DATABASE_URL").unwrap();
    let replica = scene.variable("REPLICA_URL").unwrap();
    let ping = async |session: &mut PgConnection| session.ping().await;

    let mut there = PgConnection::connect(&primary).await.unwrap();
    let mut here = PgConnection::connect(&replica).await.unwrap();
    program.replica_front().cut();
    assert!(ping(&mut here).await.is_err());
    assert!(PgConnection::connect(&replica).await.is_err());
    assert!(ping(&mut there).await.is_ok());
    program.replica_front().heal();
    let mut here = PgConnection::connect(&replica).await.unwrap();

    program.front().cut();
    assert!(ping(&mut there).await.is_err());
    assert!(PgConnection::connect(&primary).await.is_err());
    assert!(ping(&mut here).await.is_ok());
    program.front().heal();
    PgConnection::connect(&primary).await.unwrap();

    // A crash takes the sessions of both along, and a restart finds both.
    program.crash().await.unwrap();
    assert!(ping(&mut here).await.is_err());
    program.restart().await.unwrap();
    PgConnection::connect(&replica).await.unwrap();
    lab.close().await;
    scene.close().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_replica_is_handed_on_in_order_whatever_was_done_to_it() {
    let Some(scene) = Scene::open().await else {
        return;
    };
    for _ in 0..3 {
        let lab = scene.lab().await;
        let replica = lab.replica();
        replica.delay(Duration::from_secs(3600)).await.unwrap();
        replica.synchronous(true).await.unwrap();
        replica.cut().await.unwrap();
        replica.hold().await.unwrap();
        lab.close().await;
        let lab = scene.lab().await;
        execute(&lab, "create table notes (n int)").await;
        within(lab.replica().caught_up()).await.unwrap();
        assert_eq!(notes(&lab, lab.replica().reader()).await, 0);
        lab.close().await;
    }
    scene.close().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_lab_that_is_only_dropped_keeps_nobody_from_having_a_replica() {
    let Some(scene) = Scene::open().await else {
        return;
    };
    for _ in 0..3 {
        let lab = scene.lab().await;
        lab.replica().cut().await.unwrap();
        drop(lab);
    }
    let lab = scene.lab().await;
    lab.replica().caught_up().await.unwrap();
    lab.close().await;
    scene.close().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_third_lab_waits_for_one_of_two_replicas() {
    let Some(scene) = Scene::open().await else {
        return;
    };
    let (one, two) = (scene.lab().await, scene.lab().await);
    assert_ne!(one.schema(), two.schema());
    let third = scene.session.lab_with_replica(&scene.program, "a test");
    let mut third = std::pin::pin!(third);
    // The absence of a turn has no event to wait for.
    let at_once = tokio::time::timeout(Duration::from_millis(100), third.as_mut()).await;
    assert!(at_once.is_err());
    one.close().await;
    let third = within(third).await.unwrap();
    third.replica().caught_up().await.unwrap();
    third.close().await;
    two.close().await;
    scene.close().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_check_that_asks_for_a_replica_has_one() {
    let Some(scene) = Scene::open().await else {
        return;
    };
    let (step, check) = scene.session.kata().checks().next().unwrap();
    let outcome = scene
        .session
        .check(&scene.program, step, check.clone())
        .await;
    assert_eq!(outcome.verdict, kata_lab::Verdict::Passed(None));
    scene.close().await;
}

#[test]
fn a_replica_that_the_kata_does_not_give_is_a_mistake_in_the_map() {
    let mut kata = kata(&Seen::default());
    let asks = "has_a_replica asks for a replica, which is not given";
    let mentions = |kata: &Kata| kata.mistakes().iter().any(|mistake| mistake == asks);
    assert!(!mentions(&kata));
    kata.given.replica = false;
    assert!(mentions(&kata));
}
