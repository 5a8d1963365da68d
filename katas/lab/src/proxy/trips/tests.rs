//! The bookkeeping without a socket: tags in, decisions out.

use rand::{RngExt, SeedableRng, rngs::StdRng};

use super::*;

/// Round trips that begin are numbered, and the traps wait at their own.
struct Counted {
    trips: Trips,
    begun: u64,
    traps: Vec<Arc<Core>>,
}

impl Counted {
    fn new(traps: &[(u64, Point)]) -> Self {
        let traps = traps.iter().map(|&(at, point)| Core::new(at, point));
        Self {
            trips: Trips::new(1),
            begun: 0,
            traps: traps.collect(),
        }
    }

    fn send(&mut self, tag: u8) -> Sent {
        let Self {
            trips,
            begun,
            traps,
        } = self;
        trips.sent(tag, || {
            *begun += 1;
            Begun {
                number: *begun,
                traps: traps.extract_if(.., |trap| trap.target == *begun).collect(),
                delay: Duration::ZERO,
            }
        })
    }

    fn send_all(&mut self, tags: &[u8]) {
        for tag in tags {
            self.send(*tag);
        }
    }

    /// Whether each of these answers would be held.
    fn held(&mut self, tags: &[u8]) -> Vec<bool> {
        let held = |tag: &u8| {
            let received = self.trips.received(*tag, &[]);
            received.held && !received.releases
        };
        tags.iter().map(held).collect()
    }
}

#[test]
fn a_round_trip_ends_with_its_sync_or_query_whatever_is_in_it() {
    for (sent, count) in [
        (b"Q".as_slice(), 1),
        (b"QQQ", 3),
        (b"PBDES", 1),
        (b"PDHBES", 1),
        (b"PBESBESS", 2),
        (b"PDS", 0),
        (b"PDHS", 0),
        (b"PDHSBES", 1),
        (b"CS", 0),
        (b"PDSBESBES", 2),
        (b"PQ", 1),
        (b"ES", 1),
        (b"S", 0),
        (b"PBEQ", 1),
        (b"F", 1),
        (b"QdddcX", 1),
        (b"PBEdddcS", 1),
        (b"ppp", 0),
        (b"X", 0),
    ] {
        let mut counted = Counted::new(&[]);
        counted.send_all(sent);
        assert_eq!(counted.begun, count, "{}", String::from_utf8_lossy(sent));
    }
}

#[test]
fn what_was_asked_is_answered_or_ends_with_its_connection() {
    for (sent, said) in [
        (b"QSPBES".as_slice(), b"TDCZZ12CZ".as_slice()),
        (b"QQS", b"CZ"),
        (b"PBES", b""),
        // The server ignores the first Sync, whether the second has been sent or not.
        (b"PBESdcS", b"12GCZ"),
        (b"PBES", b"12G"),
    ] {
        let mut counted = Counted::new(&[]);
        let asked = sent.iter().filter(|tag| counted.send(**tag).asks).count();
        let said = said.iter().map(|tag| counted.trips.received(*tag, &[]));
        let answered = said.filter(|received| received.answers).count();
        let unanswered = counted.trips.end();
        assert_eq!(
            asked,
            answered + unanswered,
            "{}",
            String::from_utf8_lossy(sent)
        );
    }
}

#[test]
fn only_the_answer_of_the_trapped_round_trip_is_held() {
    let mut counted = Counted::new(&[(2, Point::Late)]);
    counted.send_all(b"QPBESQ");
    assert_eq!(counted.held(b"TDCZ"), [false; 4]);
    assert_eq!(counted.held(b"12DC"), [true; 4]);
    let late = counted.trips.received(b'Z', b"I").late.unwrap();
    assert!(late.is_live());
    assert_eq!(counted.held(b"TDCZ"), [false; 4]);
}

#[test]
fn an_answer_is_held_before_the_sync_unless_the_program_asked_for_it() {
    let mut counted = Counted::new(&[(1, Point::Late), (2, Point::Late)]);
    counted.send_all(b"PB");
    assert_eq!(counted.held(b"1"), [true]);
    assert!(counted.send(b'H').wakes);
    assert_eq!(counted.held(b"2"), [false]);
    counted.send_all(b"ES");
    assert_eq!(counted.held(b"C"), [true]);
}

#[test]
fn an_unsynced_trap_springs_when_all_before_the_sync_is_answered() {
    let mut counted = Counted::new(&[(1, Point::Unsynced)]);
    let trap = Arc::clone(&counted.traps[0]);
    let has_sprung = || trap.has_caught();
    counted.send_all(b"PBDE");
    assert!(counted.send(b'S').unsynced.is_some());
    assert_eq!(counted.held(b"12TD"), [true; 4]);
    assert!(!has_sprung());
    counted.held(b"C");
    assert!(has_sprung());
}

#[test]
fn a_sync_that_the_copying_server_ignores_ends_no_round_trip() {
    // With and without waiting for the server's readiness.
    for (first, second) in [(b"PBES".as_slice(), b"dcS".as_slice()), (b"PBESdcS", b"")] {
        let mut counted = Counted::new(&[]);
        counted.send_all(first);
        counted.held(b"12G");
        counted.send_all(second);
        assert_eq!(counted.trips.queue.len(), 1);
        counted.held(b"CZ");
        assert!(counted.trips.queue.is_empty());
    }
    // Here the Sync comes after the copy, and counts.
    let mut counted = Counted::new(&[]);
    counted.send_all(b"PBEdcSQ");
    counted.held(b"12GCZ");
    assert_eq!(counted.trips.queue.len(), 1);
}

#[test]
fn an_authentication_request_passes_and_the_end_of_the_start_is_held() {
    let mut trips = Trips::new(1);
    let trap = Core::new(1, Point::Late);
    trips.starts(Begun {
        traps: vec![trap],
        ..Begun::default()
    });
    // SASL, its continuation; then its end, which asks for nothing, and "ok".
    for (code, releases) in [(10_u32, true), (11, true), (12, false), (0, false)] {
        let received = trips.received(b'R', &code.to_be_bytes());
        assert!(received.held);
        assert_eq!(received.releases, releases, "{code}");
    }
    trips.received(b'K', &77_i32.to_be_bytes());
    assert!(trips.received(b'Z', b"I").late.is_some());
    assert_eq!(trips.backend_pid(), Some(77));
}

#[test]
fn any_sequence_of_tags_is_booked_without_a_panic() {
    let mut rng = StdRng::seed_from_u64(0x7a95);
    let (up, down) = (b"QSPBDECHFdcfpX?", b"Z1ZCEGWRKTDn2s3IcAN?");
    for _ in 0..500 {
        let points = [Point::Early, Point::Unsynced, Point::Late];
        let traps: Vec<_> = (0..6)
            .map(|_| (rng.random_range(1..20), points[rng.random_range(0..3)]))
            .collect();
        let mut counted = Counted::new(&traps);
        for _ in 0..100 {
            match rng.random_bool(0.5) {
                true => drop(counted.send(up[rng.random_range(0..up.len())])),
                false => drop(counted.held(&[down[rng.random_range(0..down.len())]])),
            }
        }
        counted.trips.end();
    }
}
