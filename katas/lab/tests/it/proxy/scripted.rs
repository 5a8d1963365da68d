//! A scripted server: it answers with the frames, and in the pieces, that a test wants. For what a
//! real server does once in a thousand times.

use std::{io::ErrorKind, time::Instant};

use kata_lab::proxy::{Front, Point, RoundTrip, Trap, Upstream};
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::{TcpListener, TcpStream},
};

use super::{
    DEADLINE,
    wire::{Wire, extended, frame, query, sync, tags},
    within,
};

/// A program, a front, and the server's end of their one session.
async fn session() -> (Wire, Front, TcpStream) {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap().to_string();
    let front = Front::open(Upstream::Tcp(address)).unwrap();
    let mut wire = Wire::connect(front.port()).await;
    wire.start("me", "mine", "here").await;
    let (mut server, _) = within(listener.accept()).await.unwrap();
    server.write_all(&[key(1), ready()].concat()).await.unwrap();
    assert_eq!(tags(&within(wire.until_ready()).await), "KZ");
    (wire, front, server)
}

/// Reads what every session begins with: its first packet, which has no tag, and a password.
async fn skip_start(server: &mut TcpStream) {
    for tag in [0, 1] {
        let mut head = vec![0; tag + 4];
        within(server.read_exact(&mut head)).await.unwrap();
        let length = u32::from_be_bytes(head[tag..].try_into().unwrap());
        let mut rest = vec![0; length as usize - 4];
        within(server.read_exact(&mut rest)).await.unwrap();
    }
}

/// The server hears this next.
async fn hear(server: &mut TcpStream, expected: &[u8]) {
    let mut heard = vec![0; expected.len()];
    within(server.read_exact(&mut heard)).await.unwrap();
    assert_eq!(heard, expected);
}

fn ready() -> Vec<u8> {
    frame(b'Z', b"I")
}

/// It makes the front name the process, which shows that the front has read so far.
fn key(pid: i32) -> Vec<u8> {
    frame(b'K', &[pid.to_be_bytes(), [0; 4]].concat())
}

async fn until_named(front: &Front, pid: i32) {
    let began = Instant::now();
    while front.backend_pids() != [pid] {
        assert!(began.elapsed() < DEADLINE, "the front has not read it");
        tokio::task::yield_now().await;
    }
}

/// A round trip whose answer is held in part.
async fn held_in_part(sent: &[u8]) -> (Wire, Front, TcpStream, Trap) {
    let (mut wire, front, mut server) = session().await;
    let trap = front.arm(RoundTrip(1), Point::Late);
    wire.send(sent).await;
    let began = Instant::now();
    while front.round_trips() < 1 {
        assert!(began.elapsed() < DEADLINE, "the front has not read it");
        tokio::task::yield_now().await;
    }
    let part = [frame(b'1', b""), key(2)].concat();
    server.write_all(&part).await.unwrap();
    until_named(&front, 2).await;
    assert!(wire.has_heard_nothing());
    (wire, front, server, trap)
}

#[tokio::test]
async fn a_flush_frees_what_had_come_before_it() {
    let (mut wire, _front, _server, trap) = held_in_part(&extended("select 1")).await;
    wire.send(&frame(b'H', b"")).await;
    assert_eq!(tags(&within(wire.until(b'K')).await), "1K");
    assert!(!trap.has_sprung());
}

#[tokio::test]
async fn a_trap_that_is_dropped_frees_what_had_come() {
    let (mut wire, _front, _server, trap) = held_in_part(&query("select 1")).await;
    drop(trap);
    assert_eq!(tags(&within(wire.until(b'K')).await), "1K");
}

#[tokio::test]
async fn a_server_that_ends_frees_what_had_come() {
    let (mut wire, _front, mut server, _trap) = held_in_part(&query("select 1")).await;
    server.shutdown().await.unwrap();
    assert_eq!(tags(&within(wire.until(b'K')).await), "1K");
    within(wire.answer()).await.unwrap_err();
}

#[tokio::test]
async fn answers_that_come_in_one_piece_are_parted_at_the_trap() {
    let (mut wire, front, mut server) = session().await;
    let trap = front.arm(RoundTrip(2), Point::Late);
    wire.send(&query("select 1").repeat(3)).await;
    skip_start(&mut server).await;
    hear(&mut server, &query("select 1").repeat(3)).await;
    let answer = [frame(b'C', b"1\0"), ready()].concat();
    // All but the last byte, so that the third answer is still under way.
    let answers = answer.repeat(3);
    let (first, last) = answers.split_at(answers.len() - 1);
    server.write_all(first).await.unwrap();
    assert_eq!(tags(&within(wire.until_ready()).await), "CZ");
    within(trap.sprung()).await.unwrap();
    server.write_all(last).await.unwrap();
    assert!(wire.has_heard_nothing());
    trap.let_go();
    for _ in 0..2 {
        assert_eq!(tags(&within(wire.until_ready()).await), "CZ");
    }
}

#[tokio::test]
async fn what_comes_before_the_bind_waits_until_it_is_known_to_count() {
    let (mut wire, front, mut server) = session().await;
    skip_start(&mut server).await;
    let trap = front.arm(RoundTrip(1), Point::Early);
    let parse = frame(b'P', b"\0select 1\0\0\0");
    let describe = frame(b'D', b"S\0");
    let bind = frame(b'B', &[0; 8]);
    let execute = frame(b'E', &[0; 5]);
    // Prepared and run apart: the first counts as none, whatever waits for it.
    let prepared = [&parse[..], &describe, &sync()].concat();
    wire.send(&prepared).await;
    hear(&mut server, &prepared).await;
    assert_eq!(front.round_trips(), 0);
    // Prepared and run together: nothing of it passes the trap.
    wire.send(&[&parse[..], &describe].concat()).await;
    wire.send(&bind).await;
    within(trap.sprung()).await.unwrap();
    assert_eq!(front.round_trips(), 1);
    let heard = server.try_read(&mut [0]);
    assert!(heard.is_err_and(|error| error.kind() == ErrorKind::WouldBlock));
    trap.let_go();
    wire.send(&[&execute[..], &sync()].concat()).await;
    let all = [&parse[..], &describe, &bind, &execute, &sync()].concat();
    hear(&mut server, &all).await;
}

#[tokio::test]
async fn a_bind_after_a_flush_is_where_its_round_trip_begins() {
    let (mut wire, front, mut server) = session().await;
    skip_start(&mut server).await;
    let early = front.arm(RoundTrip(1), Point::Early);
    let unsynced = front.arm(RoundTrip(1), Point::Unsynced);
    let flushed = [frame(b'P', b"\0select 1\0\0\0"), frame(b'H', b"")].concat();
    wire.send(&flushed).await;
    hear(&mut server, &flushed).await;
    assert_eq!(front.round_trips(), 0);
    let run = [frame(b'B', &[0; 8]), frame(b'E', &[0; 5])].concat();
    wire.send(&[&run[..], &sync()].concat()).await;
    within(early.sprung()).await.unwrap();
    early.let_go();
    hear(&mut server, &run).await;
    // The answer to the flush counts, too: the statement has run when all three are there.
    server
        .write_all(&[frame(b'1', b""), key(2)].concat())
        .await
        .unwrap();
    until_named(&front, 2).await;
    server
        .write_all(&[frame(b'2', b""), key(3)].concat())
        .await
        .unwrap();
    until_named(&front, 3).await;
    assert!(!unsynced.has_sprung());
    server.write_all(&frame(b'C', b"SELECT 1\0")).await.unwrap();
    within(unsynced.sprung()).await.unwrap();
}
