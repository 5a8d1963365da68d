//! Silence, cuts, delays, and the end of a front.

use std::time::{Duration, Instant};

use kata_lab::proxy::{Point, RoundTrip, Unsprung};
use sqlx::{Connection, Executor, PgConnection};
use tokio::io::AsyncWriteExt;

use super::{
    DEADLINE, Scene,
    wire::{Wire, query, tags},
    within,
};

/// Waits until the front has read the program's next round trip.
async fn until_round_trips(scene: &Scene, count: u64) {
    let began = Instant::now();
    while scene.front.round_trips() < count {
        assert!(began.elapsed() < DEADLINE, "the front has not read it");
        tokio::task::yield_now().await;
    }
}

#[tokio::test]
async fn in_a_silence_nothing_passes_and_nothing_is_lost() {
    let Some(mut scene) = Scene::open().await else {
        return;
    };
    let mut wire = scene.wire().await;
    scene.front.count_from_now();
    scene.front.silence();
    wire.send(&query("insert into notes values ('a')")).await;
    until_round_trips(&scene, 1).await;
    // A newcomer is accepted and stays mute.
    let options = scene.through();
    let newcomer = tokio::spawn(async move { PgConnection::connect_with(&options).await });
    until_round_trips(&scene, 2).await;
    assert!(scene.notes().await.is_empty());
    assert!(wire.has_heard_nothing() && !newcomer.is_finished());
    scene.front.speak();
    assert_eq!(tags(&within(wire.until_ready()).await), "CZ");
    within(newcomer).await.unwrap().unwrap();
    assert_eq!(scene.notes().await, ["a"]);
    scene.close().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn silences_under_load_lose_no_byte() {
    let Some(mut scene) = Scene::open().await else {
        return;
    };
    let pool = scene.pool(4);
    let writers: Vec<_> = (0..4)
        .map(|writer| {
            let pool = pool.clone();
            tokio::spawn(async move {
                for n in 0..50 {
                    let (note, filler) = (format!("{writer}-{n}"), "x".repeat(20_000));
                    let back: String =
                        sqlx::query_scalar("insert into notes values ($1) returning $2")
                            .bind(note)
                            .bind(&filler)
                            .fetch_one(&pool)
                            .await
                            .unwrap();
                    assert_eq!(back, filler);
                }
            })
        })
        .collect();
    let mut silences = 0;
    while writers.iter().any(|writer| !writer.is_finished()) {
        scene.front.silence();
        tokio::task::yield_now().await;
        scene.front.speak();
        tokio::time::sleep(Duration::from_micros(200)).await;
        silences += 1;
    }
    for writer in writers {
        within(writer).await.unwrap();
    }
    assert!(silences > 10, "only {silences} silences");
    assert_eq!(scene.notes().await.len(), 200);
    scene.close().await;
}

#[tokio::test]
async fn a_cut_ends_the_sessions_and_rolls_back_and_a_heal_lets_in() {
    let Some(mut scene) = Scene::open().await else {
        return;
    };
    let pool = scene.pool(2);
    let mut open = pool.begin().await.unwrap();
    let _ = open
        .execute("insert into notes values ('a')")
        .await
        .unwrap();
    let mut idle = scene.wire().await;
    let pids = scene.front.backend_pids();
    assert_eq!(pids.len(), 2);
    assert!(scene.are_alive(&pids[..1]).await && scene.are_alive(&pids[1..]).await);

    assert_eq!(scene.front.cut(), pids);
    scene.until_gone(&pids).await;
    assert!(scene.notes().await.is_empty());
    assert!(scene.front.backend_pids().is_empty());
    let reset = within(idle.answer()).await.unwrap_err();
    assert_eq!(reset.kind(), std::io::ErrorKind::ConnectionReset);
    let error = open.execute("select 1").await.unwrap_err();
    assert!(matches!(error, sqlx::Error::Io(_)), "{error}");
    drop(open);
    assert!(PgConnection::connect_with(&scene.through()).await.is_err());

    scene.front.heal();
    let one: i32 = sqlx::query_scalar("select 1")
        .fetch_one(&pool)
        .await
        .unwrap();
    assert_eq!(one, 1);
    scene.close().await;
}

#[tokio::test]
async fn a_reset_lets_new_connections_in_at_once() {
    let Some(mut scene) = Scene::open().await else {
        return;
    };
    let mut idle = scene.wire().await;
    let pids = scene.front.backend_pids();
    assert_eq!(scene.front.reset(), pids);
    let mut next = scene.wire().await;
    next.send(&query("insert into notes values ('next')")).await;
    within(next.until_ready()).await;
    within(idle.answer()).await.unwrap_err();
    assert_eq!(scene.notes().await, ["next"]);
    scene.until_gone(&pids).await;
    scene.close().await;
}

#[tokio::test]
async fn one_connection_is_reset_where_a_trap_holds_it_and_the_others_live() {
    let Some(mut scene) = Scene::open().await else {
        return;
    };
    let (mut held, mut other) = (scene.wire().await, scene.wire().await);
    let trap = scene.front.arm(RoundTrip(1), Point::Late);
    held.send(&query("insert into notes values ('held')")).await;
    let caught = within(trap.sprung()).await.unwrap();
    assert_eq!(
        scene.front.reset_connection(caught.connection),
        caught.backend_pid
    );
    drop(trap);
    within(held.answer()).await.unwrap_err();
    other
        .send(&query("insert into notes values ('other')"))
        .await;
    within(other.until_ready()).await;
    assert_eq!(scene.notes().await, ["held", "other"]);
    assert_eq!(scene.front.reset_connection(caught.connection), None);
    scene.close().await;
}

#[tokio::test]
async fn a_front_is_quiet_when_what_was_asked_is_answered() {
    let Some(scene) = Scene::open().await else {
        return;
    };
    let mut wire = scene.wire().await;
    scene.front.count_from_now();
    let began = Instant::now();
    wire.send(&query("select pg_sleep(0.2)")).await;
    until_round_trips(&scene, 1).await;
    within(scene.front.quiet()).await;
    assert!(began.elapsed() >= Duration::from_millis(200));
    scene.close().await;
}

#[tokio::test]
async fn a_cut_discards_what_was_held_or_frozen() {
    let Some(mut scene) = Scene::open().await else {
        return;
    };
    let (mut held, mut frozen) = (scene.wire().await, scene.wire().await);
    let pids = scene.front.backend_pids();
    let trap = scene.front.arm(RoundTrip(1), Point::Early);
    held.send(&query("insert into notes values ('held')")).await;
    within(trap.sprung()).await.unwrap();
    scene.front.silence();
    frozen
        .send(&query("insert into notes values ('frozen')"))
        .await;
    until_round_trips(&scene, 2).await;
    scene.front.cut();
    drop(trap);
    scene.front.speak();
    scene.front.heal();
    scene.until_gone(&pids).await;
    assert!(scene.notes().await.is_empty());
    scene.close().await;
}

/// Cuts at random moments; what the server has can only be what was sent before the cut.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn once_a_cut_returns_no_byte_reaches_the_server() {
    let Some(mut scene) = Scene::open().await else {
        return;
    };
    for round in 0..20_u32 {
        let mut wire = scene.wire().await;
        let pids = scene.front.backend_pids();
        scene.front.count_from_now();
        let flood = tokio::spawn(async move {
            for n in 0.. {
                let sql = format!("insert into notes values ('{round}-{n}')");
                if wire.stream.write_all(&query(&sql)).await.is_err() {
                    return;
                }
            }
        });
        until_round_trips(&scene, u64::from(round) * 7 + 1).await;
        scene.front.cut();
        let begun = scene.front.round_trips();
        within(flood).await.unwrap();
        scene.until_gone(&pids).await;
        let stored = scene.notes().await.len() as u64;
        assert!(stored <= begun, "{stored} of {begun}");
        let _ = scene.direct.execute("delete from notes").await.unwrap();
        scene.front.heal();
    }
    scene.close().await;
}

#[tokio::test]
async fn a_delay_is_felt_once_for_each_round_trip() {
    let Some(scene) = Scene::open().await else {
        return;
    };
    let mut wire = scene.wire().await;
    let delay = Duration::from_millis(30);
    scene.front.delay(delay);
    let began = Instant::now();
    for _ in 0..3 {
        wire.send(&query("select 1")).await;
        within(wire.until_ready()).await;
    }
    assert!(began.elapsed() >= delay * 3, "{:?}", began.elapsed());
    scene.front.delay(Duration::ZERO);
    scene.close().await;
}

#[tokio::test]
async fn a_program_that_hangs_up_ends_its_session() {
    let Some(mut scene) = Scene::open().await else {
        return;
    };
    let mut wire = scene.wire().await;
    wire.send(&query("begin; insert into notes values ('a')"))
        .await;
    within(wire.until_ready()).await;
    let pids = scene.front.backend_pids();
    drop(wire);
    scene.until_gone(&pids).await;
    assert!(scene.notes().await.is_empty());
    let began = Instant::now();
    while !scene.front.backend_pids().is_empty() {
        assert!(began.elapsed() < DEADLINE, "the front still names it");
        tokio::task::yield_now().await;
    }
    scene.close().await;
}

#[tokio::test]
async fn a_front_that_is_dropped_ends_all_that_it_started() {
    let Some(mut scene) = Scene::open().await else {
        return;
    };
    let mut wire = scene.wire().await;
    let (port, pids) = (scene.front.port(), scene.front.backend_pids());
    let trap = scene.front.arm(RoundTrip(9), Point::Late);
    let other = kata_lab::proxy::Front::open(kata_lab::proxy::Upstream::Unix("/nowhere".into()));
    drop(std::mem::replace(&mut scene.front, other.unwrap()));
    assert_eq!(within(trap.sprung()).await, Err(Unsprung::Lost));
    within(wire.answer()).await.unwrap_err();
    scene.until_gone(&pids).await;
    let began = Instant::now();
    // Not only a reset: nobody listens any more.
    while !matches!(
        tokio::net::TcpStream::connect(("127.0.0.1", port)).await,
        Err(error) if error.kind() == std::io::ErrorKind::ConnectionRefused
    ) {
        assert!(began.elapsed() < DEADLINE, "the port is still open");
    }
    // A server that cannot be reached is a connection that ends.
    let mut nowhere = Wire::connect(scene.front.port()).await;
    nowhere.start("postgres", "postgres", "public").await;
    within(nowhere.answer()).await.unwrap_err();
    scene.close().await;
}
