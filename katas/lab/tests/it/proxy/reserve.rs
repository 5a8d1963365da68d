//! Sessions that outlive their programs.

use std::time::Instant;

use kata_lab::proxy::{Point, RoundTrip};
use sqlx::{Connection, Executor, PgConnection};

use super::{DEADLINE, Scene, wire::query, within};

/// Opens a session, does something in it, and hands it over with its server process.
async fn session(scene: &Scene, statements: &[&'static str]) -> (PgConnection, i32) {
    let mut program = PgConnection::connect_with(&scene.through()).await.unwrap();
    for statement in statements {
        program.execute(*statement).await.unwrap();
    }
    let pid = pid(&mut program).await;
    (program, pid)
}

async fn pid(program: &mut PgConnection) -> i32 {
    let asked = sqlx::query_scalar("select pg_backend_pid()");
    asked.fetch_one(program).await.unwrap()
}

async fn ask(program: &mut PgConnection, question: &'static str) -> String {
    let asked = sqlx::query_scalar(question);
    asked.fetch_one(program).await.unwrap()
}

/// Cuts as in a crash; what the server may still be at work for.
async fn crash(scene: &Scene) -> Vec<i32> {
    let pids = scene.front.cut();
    let left = within(scene.front.not_kept(pids)).await;
    scene.front.heal();
    left
}

/// Waits until what the program has left behind is kept or gone.
async fn until_it_has_left(scene: &Scene) {
    let began = Instant::now();
    while !scene.front.backend_pids().is_empty() {
        assert!(began.elapsed() < DEADLINE, "its session is still open");
        tokio::task::yield_now().await;
    }
}

#[tokio::test]
async fn the_next_program_gets_the_session_as_new() {
    let Some(mut scene) = Scene::keeping(4).await else {
        return;
    };
    let done = [
        "set timezone = 'Pacific/Auckland'",
        "set statement_timeout = 12345",
        "create temp table scratch(n int)",
        "select pg_advisory_lock(4711)",
        "listen news",
        "prepare mine as select 1",
        "insert into notes values ('kept')",
        "begin",
        "insert into notes values ('lost')",
    ];
    let (_program, first) = session(&scene, &done).await;
    assert!(crash(&scene).await.is_empty());
    // As soon as that is said, what it had open is rolled back and what it held is free.
    assert_eq!(scene.notes().await, ["kept"]);
    let free = "select pg_try_advisory_lock(4711)::text";
    assert_eq!(ask(&mut scene.direct, free).await, "true");

    let (mut program, second) = session(&scene, &[]).await;
    assert_eq!(first, second, "the session was kept");
    for (question, answer) in [
        ("show timezone", "UTC"),
        ("show statement_timeout", "0"),
        ("show search_path", scene.schema.as_str()),
        (
            "select coalesce(to_regclass('scratch')::text, 'none')",
            "none",
        ),
        ("select count(*)::text from pg_listening_channels()", "0"),
        (
            "select count(*)::text from pg_prepared_statements where name = 'mine'",
            "0",
        ),
    ] {
        assert_eq!(ask(&mut program, question).await, answer, "{question}");
    }
    scene.close().await;
}

#[tokio::test]
async fn a_program_that_takes_its_leave_hands_its_session_on() {
    let Some(scene) = Scene::keeping(4).await else {
        return;
    };
    let (program, first) = session(&scene, &[]).await;
    within(program.close()).await.unwrap();
    until_it_has_left(&scene).await;
    assert_eq!(session(&scene, &[]).await.1, first);
    scene.close().await;
}

#[tokio::test]
async fn a_session_is_kept_for_the_same_first_packet_alone_and_makes_room_for_others() {
    let Some(mut scene) = Scene::keeping(4).await else {
        return;
    };
    let (_program, first) = session(&scene, &[]).await;
    assert!(crash(&scene).await.is_empty());
    let other = scene.through().application_name("somebody else");
    let mut other = PgConnection::connect_with(&other).await.unwrap();
    assert_ne!(pid(&mut other).await, first);
    // A role may have so many sessions and no more: one that nobody uses is in the way.
    scene.until_gone(&[first]).await;
    scene.close().await;
}

#[tokio::test]
async fn no_more_are_kept_than_there_is_room_for() {
    let Some(mut scene) = Scene::keeping(1).await else {
        return;
    };
    let (_a, first) = session(&scene, &[]).await;
    let (_b, second) = session(&scene, &[]).await;
    let left = crash(&scene).await;
    assert_eq!(left.len(), 1);
    assert!(left == [first] || left == [second]);
    scene.until_gone(&left).await;
    scene.close().await;
}

#[tokio::test]
async fn a_session_at_work_is_let_go() {
    let Some(mut scene) = Scene::keeping(4).await else {
        return;
    };
    let mut wire = scene.wire().await;
    wire.send(&query("select pg_sleep(0.2)")).await;
    let (_idle, idle) = session(&scene, &[]).await;
    let working: Vec<i32> = scene.front.backend_pids();
    let working: Vec<i32> = working.into_iter().filter(|pid| *pid != idle).collect();
    assert_eq!(crash(&scene).await, working);
    scene.until_gone(&working).await;
    assert_eq!(session(&scene, &[]).await.1, idle);
    scene.close().await;
}

#[tokio::test]
async fn a_session_held_at_a_trap_is_kept_unless_its_statement_is_half_sent() {
    for (point, is_kept) in [
        (Point::Early, true),
        (Point::Late, true),
        (Point::Unsynced, false),
    ] {
        let Some(mut scene) = Scene::keeping(4).await else {
            return;
        };
        let (mut program, first) = session(&scene, &["begin"]).await;
        let trap = scene.front.arm(RoundTrip(1), point);
        let held = tokio::spawn(async move {
            let insert = sqlx::query("insert into notes values ($1)").bind("a");
            insert.persistent(false).execute(&mut program).await
        });
        within(trap.sprung()).await.unwrap();
        let left = crash(&scene).await;
        assert_eq!(left.is_empty(), is_kept, "{point:?}");
        within(held).await.unwrap().unwrap_err();
        scene.until_gone(&left).await;
        assert!(scene.notes().await.is_empty(), "{point:?}");
        assert_eq!(session(&scene, &[]).await.1 == first, is_kept, "{point:?}");
        scene.close().await;
    }
}

/// A program that gives up in a silence is not there, but to the server it is: what it has open
/// stays open until the silence ends.
#[tokio::test]
async fn in_a_silence_a_session_without_a_program_stays_as_it_is() {
    let Some(mut scene) = Scene::keeping(4).await else {
        return;
    };
    let (program, first) = session(&scene, &["begin", "select pg_advisory_lock(4712)"]).await;
    scene.front.silence();
    drop(program);
    let free = "select pg_try_advisory_lock(4712)::text";
    for _ in 0..50 {
        assert_eq!(ask(&mut scene.direct, free).await, "false");
        tokio::task::yield_now().await;
    }
    scene.front.speak();
    until_it_has_left(&scene).await;
    assert_eq!(session(&scene, &[]).await.1, first);
    scene.close().await;
}

#[tokio::test]
async fn a_session_that_the_server_has_ended_is_not_handed_on() {
    let Some(mut scene) = Scene::keeping(4).await else {
        return;
    };
    let (_program, first) = session(&scene, &[]).await;
    assert!(crash(&scene).await.is_empty());
    let ended = sqlx::query("select pg_terminate_backend($1)").bind(first);
    ended.execute(&mut scene.direct).await.unwrap();
    scene.until_gone(&[first]).await;
    assert_ne!(session(&scene, &[]).await.1, first);
    scene.close().await;
}
