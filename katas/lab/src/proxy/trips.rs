//! The round trips of one connection: which frame begins one, which ends it, and what is to be
//! held for a trap. Pure bookkeeping: it sees tags in the order of the wire and touches no socket.
//!
//! A round trip begins with the first frame of the program after the last Sync or Query, and ends
//! with its ReadyForQuery. One that runs nothing is answered as well, but counts as none: a Sync
//! alone, with which pools look, at moments of their own, whether a connection lives; and a
//! statement that is prepared, since a driver does that once on each connection, and the same request
//! would have other numbers the second time. So it has no number before its first Bind or Query, and
//! what came before that is not forwarded until it is known.
//!
//! A program may send the next before the last is answered, so they wait in a queue: the answers
//! always belong to the one at its head.

use std::{collections::VecDeque, sync::Arc, time::Duration};

use super::{
    frame::word,
    trap::{Core, Held, Point, Unsprung},
};

/// What the front says when a round trip begins.
#[derive(Debug, Default)]
pub(super) struct Begun {
    /// Counted since the front was last armed.
    pub(super) number: u64,
    pub(super) traps: Vec<Arc<Core>>,
    pub(super) delay: Duration,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Kind {
    /// From the first packet to the first ReadyForQuery, authentication included.
    Startup,
    /// Frames that wait for a Sync.
    Extended,
    /// A Query or a function call, which is its own Sync.
    Simple,
}

#[derive(Debug)]
struct Trip {
    kind: Kind,
    /// It has a number.
    counts: bool,
    traps: Vec<Arc<Core>>,
    statement: Option<String>,
    /// Its last frame has come, so the server will end it without further words.
    closed: bool,
    /// The program asks for a part of the answer before it goes on.
    flushed: bool,
    /// The program has ended its copy within this trip.
    copied: bool,
    /// Both sides copy, without an end in sight (replication).
    streaming: bool,
    /// Frames that the server answers one by one, and how many it has answered.
    asked: u32,
    answered: u32,
    failed: bool,
    sync_is_held: bool,
    /// Nothing of it has been forwarded.
    withheld: bool,
}

impl Trip {
    fn new(kind: Kind) -> Self {
        Self {
            kind,
            counts: false,
            traps: Vec::new(),
            statement: None,
            closed: false,
            flushed: false,
            copied: false,
            streaming: false,
            asked: 0,
            answered: 0,
            failed: false,
            sync_is_held: false,
            withheld: false,
        }
    }

    /// From here on it has a number, and what waits for it.
    fn begins(&mut self, begun: Begun) -> Sent {
        self.counts = true;
        self.traps = begun.traps;
        let sent = Sent {
            begins: Some(begun.number),
            delay: begun.delay,
            early: self.live(Point::Early).cloned(),
            ..Sent::default()
        };
        self.withheld = sent.pauses() && !self.flushed;
        sent
    }

    fn live(&self, point: Point) -> Option<&Arc<Core>> {
        self.traps
            .iter()
            .find(|trap| trap.point == point && trap.is_live())
    }

    /// The trap for which the answer is held.
    fn holder(&self) -> Option<&Arc<Core>> {
        self.live(Point::Unsynced)
            .or_else(|| self.live(Point::Late))
    }

    /// Before the last frame was sent, a program that flushed waits for what the server says.
    fn holds_answer(&self) -> bool {
        (self.closed || !self.flushed) && !self.streaming && self.holder().is_some()
    }

    /// Everything that was sent before the Sync is answered, or the rest is skipped up to it.
    fn has_run(&self) -> bool {
        self.failed || self.answered >= self.asked
    }

    fn has_no_such_point(&self) {
        for trap in self
            .traps
            .iter()
            .filter(|trap| trap.point == Point::Unsynced)
        {
            trap.miss(Unsprung::NoSuchPoint);
        }
    }

    fn lose(&self) {
        for trap in &self.traps {
            trap.miss(Unsprung::Lost);
        }
    }
}

/// What is to be done before a frame of the program is forwarded.
#[derive(Debug, Default)]
pub(super) struct Sent {
    /// The server will answer it with a ReadyForQuery of its own.
    pub(super) asks: bool,
    /// Whether its round trip counts is not known yet: keep it, with all that follows.
    pub(super) undecided: bool,
    /// The frame, or the first undecided one before it, begins a round trip of this number.
    pub(super) begins: Option<u64>,
    pub(super) delay: Duration,
    /// Hold before it.
    pub(super) early: Option<Arc<Core>>,
    /// The frame is a Sync: forward what is before it, flush, and hold.
    pub(super) unsynced: Option<Arc<Core>>,
    /// The answer is wanted before the round trip is complete: wake its reader.
    pub(super) wakes: bool,
}

impl Sent {
    /// Whether what comes before the frame goes ahead of it.
    pub(super) fn pauses(&self) -> bool {
        self.early.is_some() || self.unsynced.is_some() || !self.delay.is_zero()
    }
}

/// What is to be done with a frame of the server.
#[derive(Debug, Default)]
pub(super) struct Received {
    /// It is held.
    pub(super) held: bool,
    /// The program needs it, and what was held before it, to go on.
    pub(super) releases: bool,
    /// Something that was asked has its answer, or will have none.
    pub(super) answers: bool,
    /// The round trip is complete: hold, with nothing of its answer passed on.
    pub(super) late: Option<Arc<Core>>,
}

/// The round trips of one connection.
#[derive(Debug)]
pub(super) struct Trips {
    connection: u64,
    backend_pid: Option<i32>,
    queue: VecDeque<Trip>,
}

impl Trips {
    pub(super) fn new(connection: u64) -> Self {
        Self {
            connection,
            backend_pid: None,
            queue: VecDeque::new(),
        }
    }

    pub(super) fn backend_pid(&self) -> Option<i32> {
        self.backend_pid
    }

    /// The first packet of a session.
    pub(super) fn starts(&mut self, begun: Begun) -> Sent {
        let mut trip = Trip::new(Kind::Startup);
        let sent = trip.begins(begun);
        trip.closed = true;
        trip.has_no_such_point();
        trip.statement = Some("connect".to_owned());
        self.queue.push_back(trip);
        Sent { asks: true, ..sent }
    }

    /// A frame of the program, in the order of the wire, before it is forwarded.
    pub(super) fn sent(&mut self, tag: u8, begin: impl FnOnce() -> Begun) -> Sent {
        let is_open = self.last().is_some_and(|trip| !trip.closed);
        // Terminate has no answer; passwords and copied rows belong to what is under way, and the
        // server ignores rows that nobody asked for.
        if matches!(tag, b'X' | b'p' | b'd' | b'c' | b'f') {
            if let Some(trip) = self.last().filter(|_| is_open) {
                trip.copied |= matches!(tag, b'c' | b'f');
            }
            return Sent::default();
        }
        if !is_open {
            self.queue.push_back(Trip::new(Kind::Extended));
        }
        let Some(trip) = self.queue.back_mut() else {
            return Sent::default();
        };
        let mut sent = match tag {
            b'B' | b'E' | b'Q' | b'F' if !trip.counts => trip.begins(begin()),
            _ => Sent::default(),
        };
        sent.asks = !is_open;
        sent.undecided = !trip.counts && matches!(tag, b'P' | b'D' | b'C');
        match tag {
            b'Q' | b'F' => {
                trip.kind = Kind::Simple;
                trip.closed = true;
                trip.has_no_such_point();
            }
            b'S' => {
                trip.closed = true;
                if trip.asked == 0 {
                    trip.has_no_such_point();
                }
                if let Some(trap) = trip.live(Point::Unsynced).cloned() {
                    trip.sync_is_held = true;
                    if trip.has_run() {
                        trap.spring(self.held());
                    }
                    sent.unsynced = Some(trap);
                }
            }
            b'H' => {
                trip.flushed = true;
                sent.wakes = !trip.traps.is_empty();
            }
            b'P' | b'B' | b'D' | b'E' | b'C' => trip.asked += 1,
            _ => {}
        }
        sent
    }

    /// What was withheld at the last frame goes on its way.
    pub(super) fn goes_on(&mut self) {
        if let Some(trip) = self.last() {
            trip.withheld = false;
        }
    }

    /// Whether the server has nothing under way for the program.
    pub(super) fn are_over(&self) -> bool {
        self.queue.iter().all(|trip| trip.withheld)
    }

    /// Whether somebody may ask for the statement of the round trip that the last frame is of.
    pub(super) fn wants_statement(&self) -> bool {
        self.queue.back().is_some_and(|trip| !trip.traps.is_empty())
    }

    /// The statement of the round trip that the last frame is of.
    pub(super) fn states(&mut self, statement: String) {
        if let Some(trip) = self.last() {
            trip.statement = Some(statement);
        }
    }

    /// What a trap that springs at the frame that was sent last holds.
    pub(super) fn held(&self) -> Held {
        self.held_by(self.queue.back())
    }

    fn held_by(&self, trip: Option<&Trip>) -> Held {
        Held {
            connection: self.connection,
            backend_pid: self.backend_pid,
            statement: trip.and_then(|trip| trip.statement.clone()),
        }
    }

    /// Whether the answer that comes next is looked at frame by frame: somebody waits for it, or may
    /// do so before it is complete.
    pub(super) fn watches(&self) -> bool {
        let head = self.queue.front();
        head.is_some_and(|trip| !trip.counts || !trip.traps.is_empty())
    }

    /// The trap that holds what the server has answered so far.
    pub(super) fn holder(&self) -> Option<Arc<Core>> {
        let head = self.queue.front()?;
        head.holder().filter(|_| head.holds_answer()).cloned()
    }

    /// A frame of the server, in the order of the wire, before it is passed on. `body` has at
    /// least its first four bytes, if it has as many.
    pub(super) fn received(&mut self, tag: u8, body: &[u8]) -> Received {
        if let (b'K', Some(pid)) = (tag, word(body)) {
            self.backend_pid = Some(pid.cast_signed());
        }
        if tag == b'Z' {
            return self.ends();
        }
        let Some(head) = self.queue.front_mut() else {
            return Received::default();
        };
        let mut received = Received {
            held: head.holds_answer(),
            ..Received::default()
        };
        match tag {
            // The server asks for a password; the last two kinds ask for nothing.
            b'R' => received.releases = !matches!(word(body), Some(0 | 12)),
            b'G' => {
                received.releases = true;
                head.has_no_such_point();
                if head.kind == Kind::Extended && head.closed && !head.copied {
                    received.answers = self.reopens();
                    return received;
                }
            }
            b'W' => {
                received.releases = true;
                head.streaming = true;
            }
            b'c' => head.streaming = false,
            b'E' => {
                head.streaming = false;
                head.failed = true;
            }
            b'1' | b'2' | b'3' | b'T' | b'n' | b'C' | b'I' | b's' => head.answered += 1,
            _ => {}
        }
        if head.sync_is_held
            && head.has_run()
            && let Some(trap) = head.live(Point::Unsynced).cloned()
        {
            trap.spring(self.held_by(self.queue.front()));
        }
        received
    }

    /// ReadyForQuery: the head is complete.
    fn ends(&mut self) -> Received {
        let Some(head) = self.queue.pop_front() else {
            return Received::default();
        };
        let late = head.live(Point::Late).cloned();
        if let Some(trap) = &late {
            trap.spring(self.held_by(Some(&head)));
        }
        head.lose();
        Received {
            held: late.is_some(),
            releases: false,
            answers: true,
            late,
        }
    }

    /// The server ignores a Sync that reaches it while it copies in, so the round trip goes on to
    /// the Sync after the copy. If the program has sent that one without waiting, it was taken
    /// for one of its own: whether that was so, and there is one answer less to come.
    fn reopens(&mut self) -> bool {
        let Some(head) = self.queue.pop_front() else {
            return false;
        };
        if let Some(next) = self.queue.front_mut() {
            next.traps.extend(head.traps);
            return true;
        }
        self.queue.push_front(Trip {
            closed: false,
            ..head
        });
        false
    }

    /// The connection has ended: traps that it was to spring never will. Returns how much of what it
    /// asked will have no answer.
    pub(super) fn end(&mut self) -> usize {
        let unanswered = self.queue.len();
        for trip in self.queue.drain(..) {
            trip.lose();
        }
        unanswered
    }

    fn last(&mut self) -> Option<&mut Trip> {
        self.queue.back_mut()
    }
}

#[cfg(test)]
mod tests;
