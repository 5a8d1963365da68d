//! What counts as a round trip, and what passes unchanged.

use std::{
    path::Path,
    sync::{Arc, Mutex},
    time::Instant,
};

use kata_lab::proxy::{Front, Point, RoundTrip, Upstream};
use sqlx::{Connection, PgConnection};

use super::{
    DEADLINE, Scene, not_run,
    wire::{Wire, extended, frame, query, sync, tags},
    within,
};

#[tokio::test]
async fn the_start_is_one_round_trip_and_so_is_each_query_and_terminate_is_none() {
    let Some(scene) = Scene::open().await else {
        return;
    };
    assert_eq!(scene.front.round_trips(), 0);
    let mut wire = scene.wire().await;
    assert_eq!(scene.front.round_trips(), 1);
    for count in 2..5 {
        wire.send(&query("select 1")).await;
        assert_eq!(tags(&within(wire.until_ready()).await), "TDCZ");
        assert_eq!(scene.front.round_trips(), count);
    }
    scene.front.count_from_now();
    wire.send(&[extended("select 1"), sync()].concat()).await;
    assert_eq!(tags(&within(wire.until_ready()).await), "12DCZ");
    wire.send(&frame(b'X', b"")).await;
    within(wire.answer()).await.unwrap_err();
    assert_eq!(scene.front.round_trips(), 1);
    scene.close().await;
}

#[tokio::test]
async fn a_query_that_comes_byte_by_byte_is_one_round_trip() {
    let Some(scene) = Scene::open().await else {
        return;
    };
    let mut wire = scene.wire().await;
    scene.front.count_from_now();
    for byte in [extended("select 1"), sync(), query("select 2")].concat() {
        wire.send(&[byte]).await;
        tokio::task::yield_now().await;
    }
    assert_eq!(tags(&within(wire.until_ready()).await), "12DCZ");
    assert_eq!(tags(&within(wire.until_ready()).await), "TDCZ");
    assert_eq!(scene.front.round_trips(), 2);
    scene.close().await;
}

#[tokio::test]
async fn round_trips_that_are_sent_together_are_kept_apart() {
    let Some(mut scene) = Scene::open().await else {
        return;
    };
    let mut wire = scene.wire().await;
    let trap = scene.front.arm(RoundTrip(2), Point::Late);
    let together = [
        query("insert into notes values ('a')"),
        [extended("insert into notes values ('b')"), sync()].concat(),
        query("insert into notes values ('c')"),
    ];
    wire.send(&together.concat()).await;
    assert_eq!(tags(&within(wire.until_ready()).await), "CZ");
    let held = within(trap.sprung()).await.unwrap();
    assert_eq!(
        held.statement.as_deref(),
        Some("insert into notes values ('b')")
    );
    assert!(wire.has_heard_nothing());
    assert_eq!(scene.front.round_trips(), 3);
    assert!(scene.notes().await.contains(&"b".to_owned()));
    trap.let_go();
    assert_eq!(tags(&within(wire.until_ready()).await), "12CZ");
    assert_eq!(tags(&within(wire.until_ready()).await), "CZ");
    assert_eq!(scene.notes().await, ["a", "b", "c"]);
    scene.close().await;
}

#[tokio::test]
async fn a_statement_is_one_round_trip_whether_it_has_to_be_prepared_or_not() {
    let Some(scene) = Scene::open().await else {
        return;
    };
    let mut connection = PgConnection::connect_with(&scene.through()).await.unwrap();
    let mut counts = Vec::new();
    for _ in 0..2 {
        scene.front.count_from_now();
        sqlx::query("select 1")
            .execute(&mut connection)
            .await
            .unwrap();
        counts.push(scene.front.round_trips());
    }
    assert_eq!(counts, [1, 1]);
    scene.close().await;
}

#[tokio::test]
async fn an_observer_sees_statements_with_their_parameters() {
    let Some(scene) = Scene::open().await else {
        return;
    };
    let seen = Arc::new(Mutex::new(Vec::new()));
    let mut connection = PgConnection::connect_with(&scene.through()).await.unwrap();
    scene.front.count_from_now();
    let observed = Arc::clone(&seen);
    scene.front.observe(move |statement| {
        observed
            .lock()
            .unwrap()
            .push((statement.round_trip, statement.text.clone()));
    });
    for n in [7_i64, 8] {
        sqlx::query("update notes\n   set n = $1 where note = $2")
            .bind(n)
            .bind("a")
            .execute(&mut connection)
            .await
            .unwrap();
    }
    let mut wire = scene.wire().await;
    wire.send(&query("select  1")).await;
    within(wire.until_ready()).await;
    let seen: Vec<_> = seen.lock().unwrap().clone();
    let expected = [
        (0, "prepare update notes set n = $1 where note = $2"),
        (1, "update notes set n = 7 where note = 'a'"),
        (2, "update notes set n = 8 where note = 'a'"),
        (3, "connect"),
        (4, "select 1"),
    ];
    assert_eq!(seen, expected.map(|(count, text)| (count, text.to_owned())));
    scene.close().await;
}

#[tokio::test]
async fn encryption_is_refused_and_the_session_goes_on() {
    let Some(scene) = Scene::open().await else {
        return;
    };
    let mut wire = Wire::connect(scene.front.port()).await;
    for code in [80_877_104_u32, 80_877_103] {
        wire.send(&[8_u32.to_be_bytes(), code.to_be_bytes()].concat())
            .await;
        let refused = within(tokio::io::AsyncReadExt::read_u8(&mut wire.stream)).await;
        assert_eq!(refused.unwrap(), b'N');
    }
    wire.start(
        scene.server.get_username(),
        scene.server.get_database().unwrap_or("postgres"),
        &scene.schema,
    )
    .await;
    within(wire.until_ready()).await;
    scene.close().await;
}

#[tokio::test]
async fn a_cancel_request_reaches_the_statement_and_is_no_round_trip() {
    let Some(mut scene) = Scene::open().await else {
        return;
    };
    let mut wire = Wire::connect(scene.front.port()).await;
    wire.start(
        scene.server.get_username(),
        scene.server.get_database().unwrap_or("postgres"),
        &scene.schema,
    )
    .await;
    let started = within(wire.until_ready()).await;
    let (_, key) = started.iter().find(|(tag, _)| *tag == b'K').unwrap();
    assert_eq!(
        scene.front.backend_pids(),
        [i32::from_be_bytes(*key.first_chunk().unwrap())]
    );
    scene.front.count_from_now();
    wire.send(&query("select pg_sleep(600)")).await;
    // A request that comes before its statement cancels nothing.
    let began = Instant::now();
    let sleeps = "select exists(select from pg_stat_activity where pid = any($1) \
                  and wait_event = 'PgSleep')";
    while !sqlx::query_scalar::<_, bool>(sleeps)
        .bind(scene.front.backend_pids())
        .fetch_one(&mut scene.direct)
        .await
        .unwrap()
    {
        assert!(began.elapsed() < DEADLINE, "the statement does not run");
    }
    let mut cancel = Wire::connect(scene.front.port()).await;
    let mut request = (key.len() as u32 + 8).to_be_bytes().to_vec();
    request.extend(80_877_102_u32.to_be_bytes());
    request.extend(key);
    cancel.send(&request).await;
    within(cancel.answer()).await.unwrap_err();
    let answers = within(wire.until_ready()).await;
    let (_, error) = answers.iter().find(|(tag, _)| *tag == b'E').unwrap();
    assert!(String::from_utf8_lossy(error).contains("57014"));
    assert_eq!(scene.front.round_trips(), 1);
    scene.close().await;
}

#[tokio::test]
async fn a_long_row_streams_through() {
    let Some(scene) = Scene::open().await else {
        return;
    };
    let mut connection = PgConnection::connect_with(&scene.through()).await.unwrap();
    let sent = "é".repeat(8_000_000);
    let back: String = sqlx::query_scalar("select $1 || 'x'")
        .bind(&sent)
        .fetch_one(&mut connection)
        .await
        .unwrap();
    assert!(back == sent + "x");
    scene.close().await;
}

#[tokio::test]
async fn malformed_frames_end_their_connection_and_no_other() {
    let Some(scene) = Scene::open().await else {
        return;
    };
    let mut bystander = scene.wire().await;
    for bytes in [
        b"Q\0\0\0\x03".as_slice(),
        b"Q\xff\xff\xff\xff",
        b"Q\x40\0\0\x01",
    ] {
        let mut wire = scene.wire().await;
        wire.send(bytes).await;
        within(wire.answer()).await.unwrap_err();
    }
    for bytes in [b"GET / HTTP/1.1\r\n".as_slice(), &[0; 8], &[0xff; 4]] {
        let mut wire = Wire::connect(scene.front.port()).await;
        wire.send(bytes).await;
        within(wire.answer()).await.unwrap_err();
    }
    bystander.send(&query("select 1")).await;
    within(bystander.until_ready()).await;
    scene.close().await;
}

#[tokio::test]
async fn a_server_on_a_unix_socket_is_reached() {
    let Some(mut scene) = Scene::open().await else {
        return;
    };
    let folders: String = sqlx::query_scalar("show unix_socket_directories")
        .fetch_one(&mut scene.direct)
        .await
        .unwrap();
    let port = scene.server.get_port();
    let socket = folders
        .split(',')
        .map(|folder| Path::new(folder.trim()).join(format!(".s.PGSQL.{port}")))
        .find(|socket| socket.exists());
    let Some(socket) = socket else {
        not_run("the server has no Unix socket on this machine");
        return scene.close().await;
    };
    let front = Front::open(Upstream::Unix(socket)).unwrap();
    let options = scene.through().port(front.port());
    let mut connection = PgConnection::connect_with(&options).await.unwrap();
    let trap = front.arm(RoundTrip(1), Point::Late);
    let insert = "insert into notes values ('a')";
    tokio::select! {
        _ = sqlx::raw_sql(insert).execute(&mut connection) => panic!("it has heard"),
        held = within(trap.sprung()) => assert_eq!(held.unwrap().statement.as_deref(), Some(insert)),
    }
    assert_eq!(scene.notes().await, ["a"]);
    let pids = front.cut();
    scene.until_gone(&pids).await;
    scene.close().await;
}
