//! Where a trap holds, what has happened by then, and what has not.

use std::time::Instant;

use kata_lab::proxy::{Point, RoundTrip, Unsprung};
use sqlx::{Connection, Executor, PgConnection};

use super::{
    DEADLINE, Scene,
    wire::{extended, frame, query, sync, tags},
    within,
};

/// Enumerates the crash points of one transaction: for every k, until the trap does not spring
/// before the answer, the connection is cut. Returns for each k how many of the two notes the
/// server has afterwards.
async fn enumerate<F>(
    scene: &mut Scene,
    point: Point,
    run: impl Fn(sqlx::PgPool) -> F,
) -> Vec<usize>
where
    F: Future<Output = ()> + Send + 'static,
{
    let mut left = Vec::new();
    for k in 1.. {
        let _ = scene.direct.execute("delete from notes").await.unwrap();
        let pool = scene.pool(1);
        let trap = scene.front.arm(RoundTrip(k), point);
        let mut program = tokio::spawn(run(pool.clone()));
        let fired = within(async {
            tokio::select! {
                sprung = trap.sprung() => sprung.is_ok(),
                _ = &mut program => false,
            }
        })
        .await;
        assert_eq!(trap.has_sprung(), fired);
        let pids = scene.front.cut();
        program.abort();
        scene.until_gone(&pids).await;
        scene.front.heal();
        left.push(scene.notes().await.len());
        if !fired {
            return left;
        }
    }
    unreachable!()
}

async fn two_notes(pool: sqlx::PgPool) {
    let mut transaction = pool.begin().await.unwrap();
    for note in ["a", "b"] {
        sqlx::query("insert into notes(note) values ($1)")
            .bind(note)
            .execute(&mut *transaction)
            .await
            .unwrap();
    }
    transaction.commit().await.unwrap();
}

#[tokio::test]
async fn enumeration_visits_every_point_of_a_transaction_and_ends() {
    let Some(mut scene) = Scene::open().await else {
        return;
    };
    // connect, begin, insert, insert, commit; the sixth never begins.
    let early = enumerate(&mut scene, Point::Early, two_notes).await;
    assert_eq!(early, [0, 0, 0, 0, 0, 2]);
    // Only the last differs: the server has committed, and nobody has heard of it.
    let late = enumerate(&mut scene, Point::Late, two_notes).await;
    assert_eq!(late, [0, 0, 0, 0, 2, 2]);
    scene.close().await;
}

#[tokio::test]
async fn early_has_no_effect_on_the_server() {
    let Some(mut scene) = Scene::open().await else {
        return;
    };
    let mut wire = scene.wire().await;
    let trap = scene.front.arm(RoundTrip(1), Point::Early);
    wire.send(&query("insert into notes values ('a')")).await;
    let held = within(trap.sprung()).await.unwrap();
    assert_eq!(held.connection, 1);
    assert_eq!(
        held.statement.as_deref(),
        Some("insert into notes values ('a')")
    );
    let state: (String, String) =
        sqlx::query_as("select state, query from pg_stat_activity where pid = $1")
            .bind(held.backend_pid)
            .fetch_one(&mut scene.direct)
            .await
            .unwrap();
    assert_eq!(state, ("idle".to_owned(), String::new()));
    drop(trap);
    assert_eq!(tags(&within(wire.until_ready()).await), "CZ");
    assert_eq!(scene.notes().await, ["a"]);
    scene.close().await;
}

#[tokio::test]
async fn late_has_its_effect_and_no_answer_and_holds_no_other_connection() {
    let Some(mut scene) = Scene::open().await else {
        return;
    };
    let (mut wire, mut other) = (scene.wire().await, scene.wire().await);
    let trap = scene.front.arm(RoundTrip(1), Point::Late);
    wire.send(&query("insert into notes values ('a') returning note"))
        .await;
    within(trap.sprung()).await.unwrap();
    assert_eq!(scene.notes().await, ["a"]);
    other.send(&query("select note from notes")).await;
    assert_eq!(tags(&within(other.until_ready()).await), "TDCZ");
    assert!(wire.has_heard_nothing());
    trap.let_go();
    assert!(trap.has_sprung());
    assert_eq!(tags(&within(wire.until_ready()).await), "TDCZ");
    scene.close().await;
}

#[tokio::test]
async fn unsynced_holds_row_locks_that_another_session_waits_for() {
    let Some(mut scene) = Scene::open().await else {
        return;
    };
    let _ = scene
        .direct
        .execute("insert into notes values ('a')")
        .await
        .unwrap();
    let mut connection = PgConnection::connect_with(&scene.through()).await.unwrap();
    let trap = scene.front.arm(RoundTrip(1), Point::Unsynced);
    let add = "update notes set n = n + 1 where note = $1 returning n";
    let first = tokio::spawn(async move {
        sqlx::query_scalar::<_, i64>(add)
            .bind("a")
            .fetch_one(&mut connection)
            .await
            .unwrap()
    });
    let held = within(trap.sprung()).await.unwrap();
    assert_eq!(
        held.statement.as_deref(),
        Some("update notes set n = n + 1 where note = 'a' returning n")
    );
    let mut other = PgConnection::connect_with(&scene.server).await.unwrap();
    let pid: i32 = sqlx::query_scalar("select pg_backend_pid()")
        .fetch_one(&mut other)
        .await
        .unwrap();
    let second = tokio::spawn(async move {
        sqlx::query_scalar::<_, i64>(add)
            .bind("a")
            .fetch_one(&mut other)
            .await
            .unwrap()
    });
    let began = Instant::now();
    loop {
        let blockers: Vec<i32> = sqlx::query_scalar("select pg_blocking_pids($1)")
            .bind(pid)
            .fetch_one(&mut scene.direct)
            .await
            .unwrap();
        if !blockers.is_empty() {
            assert_eq!(blockers, [held.backend_pid.unwrap()]);
            break;
        }
        assert!(began.elapsed() < DEADLINE, "nobody waits for the row");
    }
    assert!(!first.is_finished());
    let n: i64 = sqlx::query_scalar("select n from notes")
        .fetch_one(&mut scene.direct)
        .await
        .unwrap();
    assert_eq!(n, 0, "nothing is committed");
    trap.let_go();
    assert_eq!(within(first).await.unwrap(), 1);
    assert_eq!(within(second).await.unwrap(), 2);
    scene.close().await;
}

#[tokio::test]
async fn unsynced_keeps_the_answer_back_and_a_cut_rolls_the_statement_back() {
    let Some(mut scene) = Scene::open().await else {
        return;
    };
    let mut wire = scene.wire().await;
    let trap = scene.front.arm(RoundTrip(1), Point::Unsynced);
    // The Sync comes on its own, after all else has gone ahead.
    wire.send(&extended("insert into notes values ('a') returning note"))
        .await;
    wire.send(&sync()).await;
    let held = within(trap.sprung()).await.unwrap();
    assert!(wire.has_heard_nothing());
    assert_eq!(scene.front.cut(), [held.backend_pid.unwrap()]);
    drop(trap);
    scene.until_gone(&[held.backend_pid.unwrap()]).await;
    assert!(scene.notes().await.is_empty());
    within(wire.answer()).await.unwrap_err();
    scene.close().await;
}

#[tokio::test]
async fn a_statement_that_fails_is_held_unsynced_as_well() {
    let Some(scene) = Scene::open().await else {
        return;
    };
    let mut wire = scene.wire().await;
    let trap = scene.front.arm(RoundTrip(1), Point::Unsynced);
    wire.send(&[extended("select 1/0"), sync()].concat()).await;
    within(trap.sprung()).await.unwrap();
    assert!(wire.has_heard_nothing());
    trap.let_go();
    // The planner already divides, at the Bind.
    assert_eq!(tags(&within(wire.until_ready()).await), "1EZ");
    scene.close().await;
}

#[tokio::test]
async fn a_simple_query_and_a_start_have_no_unsynced_point() {
    let Some(scene) = Scene::open().await else {
        return;
    };
    let trap = scene.front.arm(RoundTrip(1), Point::Unsynced);
    let mut wire = scene.wire().await;
    assert_eq!(within(trap.sprung()).await, Err(Unsprung::NoSuchPoint));
    let trap = scene.front.arm(RoundTrip(1), Point::Unsynced);
    wire.send(&query("select 1")).await;
    within(wire.until_ready()).await;
    assert_eq!(within(trap.sprung()).await, Err(Unsprung::NoSuchPoint));
    assert!(!trap.has_sprung());
    scene.close().await;
}

#[tokio::test]
async fn a_sync_alone_is_no_round_trip() {
    let Some(scene) = Scene::open().await else {
        return;
    };
    let mut wire = scene.wire().await;
    let trap = scene.front.arm(RoundTrip(1), Point::Early);
    wire.send(&sync()).await;
    assert_eq!(tags(&within(wire.until_ready()).await), "Z");
    assert_eq!(scene.front.round_trips(), 0);
    wire.send(&query("select 1")).await;
    within(trap.sprung()).await.unwrap();
    scene.close().await;
}

#[tokio::test]
async fn the_start_of_a_session_is_held_early_and_late() {
    let Some(mut scene) = Scene::open().await else {
        return;
    };
    for point in [Point::Early, Point::Late] {
        let trap = scene.front.arm(RoundTrip(1), point);
        let options = scene.through();
        let program = tokio::spawn(async move { PgConnection::connect_with(&options).await });
        let held = within(trap.sprung()).await.unwrap();
        assert_eq!(held.statement.as_deref(), Some("connect"));
        match held.backend_pid {
            None => assert_eq!(point, Point::Early),
            Some(pid) => assert!(scene.are_alive(&[pid]).await),
        }
        assert!(!program.is_finished());
        trap.let_go();
        within(program).await.unwrap().unwrap();
    }
    scene.close().await;
}

#[tokio::test]
async fn late_passes_what_a_flush_asks_for_and_holds_the_rest() {
    let Some(mut scene) = Scene::open().await else {
        return;
    };
    let mut wire = scene.wire().await;
    let trap = scene.front.arm(RoundTrip(1), Point::Late);
    wire.send(&frame(b'P', b"\0insert into notes values ('a')\0\0\0"))
        .await;
    wire.send(&frame(b'H', b"")).await;
    assert_eq!(within(wire.answer()).await.unwrap().0, b'1');
    let rest = [frame(b'B', b"\0\0\0\0\0\0\0\0"), frame(b'E', b"\0\0\0\0\0")];
    wire.send(&rest.concat()).await;
    wire.send(&frame(b'H', b"")).await;
    assert_eq!(tags(&within(wire.until(b'C')).await), "2C");
    assert!(!trap.has_sprung());
    wire.send(&sync()).await;
    within(trap.sprung()).await.unwrap();
    assert_eq!(scene.notes().await, ["a"]);
    assert!(wire.has_heard_nothing());
    drop(trap);
    assert_eq!(tags(&within(wire.until_ready()).await), "Z");
    scene.close().await;
}

#[tokio::test]
async fn late_passes_the_readiness_to_copy_and_holds_the_rest() {
    let Some(mut scene) = Scene::open().await else {
        return;
    };
    let mut wire = scene.wire().await;
    let copied = |note: &str| {
        let row = format!("{note}\t1\n");
        [frame(b'd', row.as_bytes()), frame(b'c', b"")].concat()
    };

    let trap = scene.front.arm(RoundTrip(1), Point::Late);
    wire.send(&query("copy notes from stdin")).await;
    assert_eq!(tags(&within(wire.until(b'G')).await), "G");
    wire.send(&copied("simple")).await;
    within(trap.sprung()).await.unwrap();
    assert_eq!(scene.notes().await, ["simple"]);
    assert!(wire.has_heard_nothing());
    drop(trap);
    assert_eq!(tags(&within(wire.until_ready()).await), "CZ");

    // The server ignores the Sync that reaches it while it copies in, so this is one round trip.
    let trap = scene.front.arm(RoundTrip(1), Point::Late);
    wire.send(&[extended("copy notes from stdin"), sync()].concat())
        .await;
    assert_eq!(tags(&within(wire.until(b'G')).await), "12G");
    wire.send(&copied("extended")).await;
    wire.send(&sync()).await;
    within(trap.sprung()).await.unwrap();
    assert_eq!(scene.notes().await, ["extended", "simple"]);
    assert!(wire.has_heard_nothing());
    drop(trap);
    assert_eq!(tags(&within(wire.until_ready()).await), "CZ");
    assert_eq!(scene.front.round_trips(), 1);

    let trap = scene.front.arm(RoundTrip(1), Point::Unsynced);
    wire.send(&[extended("copy notes from stdin"), sync()].concat())
        .await;
    assert_eq!(tags(&within(wire.until(b'G')).await), "12G");
    assert_eq!(within(trap.sprung()).await, Err(Unsprung::NoSuchPoint));
    wire.send(&copied("again")).await;
    wire.send(&sync()).await;
    assert_eq!(tags(&within(wire.until_ready()).await), "CZ");

    let trap = scene.front.arm(RoundTrip(1), Point::Late);
    wire.send(&query("copy notes to stdout")).await;
    within(trap.sprung()).await.unwrap();
    assert!(wire.has_heard_nothing());
    drop(trap);
    assert_eq!(tags(&within(wire.until_ready()).await), "HdddcCZ");
    scene.close().await;
}

#[tokio::test]
async fn several_traps_wait_at_their_own_round_trips() {
    let Some(scene) = Scene::open().await else {
        return;
    };
    let mut wire = scene.wire().await;
    let traps: Vec<_> = (1..=3)
        .flat_map(|k| [Point::Early, Point::Late].map(|point| scene.front.arm(RoundTrip(k), point)))
        .collect();
    let program = tokio::spawn(async move {
        for _ in 0..3 {
            wire.send(&query("select 1")).await;
            within(wire.until_ready()).await;
        }
    });
    for trap in traps {
        within(trap.sprung()).await.unwrap();
        assert!(!program.is_finished());
    }
    within(program).await.unwrap();
    scene.close().await;
}

#[tokio::test]
async fn a_trap_that_is_dropped_in_time_holds_nothing() {
    let Some(scene) = Scene::open().await else {
        return;
    };
    let mut wire = scene.wire().await;
    for point in [Point::Early, Point::Unsynced, Point::Late] {
        drop(scene.front.arm(RoundTrip(1), point));
        wire.send(&[extended("select 1"), sync()].concat()).await;
        within(wire.until_ready()).await;
    }
    // Dropped while the answer is on its way: what was kept back is passed.
    let trap = scene.front.arm(RoundTrip(1), Point::Late);
    wire.send(&extended("select 1")).await;
    drop(trap);
    wire.send(&sync()).await;
    assert_eq!(tags(&within(wire.until_ready()).await), "12DCZ");
    scene.close().await;
}

#[tokio::test]
async fn a_trap_whose_connection_ends_is_lost() {
    let Some(scene) = Scene::open().await else {
        return;
    };
    let mut wire = scene.wire().await;
    let trap = scene.front.arm(RoundTrip(1), Point::Late);
    wire.send(&query("select pg_terminate_backend(pg_backend_pid())"))
        .await;
    assert_eq!(within(trap.sprung()).await, Err(Unsprung::Lost));
    assert!(tags(&within(wire.until(b'E')).await).ends_with('E'));
    scene.close().await;
}
