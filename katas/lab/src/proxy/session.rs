//! One connection: the program on one side, the server on the other, and two loops that carry
//! bytes between them.
//!
//! A loop reads what there is, walks its frames, and writes all that may pass in one go. What is
//! held stays where it was read: in the loop's buffer, or unread in the kernel's.

use std::{
    io,
    pin::pin,
    sync::{Arc, Mutex, MutexGuard, OnceLock, PoisonError},
    time::Instant,
};

use tokio::sync::Notify;

use super::{
    frame::{FLUSH, Frame, Opening, Scanner},
    front::Shared,
    gate::{Gate, Sock},
    reserve::{Greeting, Kept},
    statement::{LOOK, Seen, Statements},
    trips::{Received, Sent, Trips},
};

pub(super) struct Session {
    connection: u64,
    shared: Arc<Shared>,
    gate: Gate,
    program: Sock,
    server: OnceLock<Server>,
    // A blocking mutex is right: it is held for the bookkeeping of one frame, never across an
    // await.
    trips: Mutex<Trips>,
    /// The reader of the server's answers is to look again at what it holds.
    wake: Notify,
}

/// The server's side of a session.
struct Server {
    sock: Sock,
    /// What the program began with.
    packet: Vec<u8>,
    /// How the server answered, once it has.
    greeting: OnceLock<Vec<u8>>,
}

impl Session {
    pub(super) fn new(connection: u64, shared: Arc<Shared>, gate: Gate, program: Sock) -> Self {
        Self {
            connection,
            shared,
            gate,
            program,
            server: OnceLock::new(),
            trips: Mutex::new(Trips::new(connection)),
            wake: Notify::new(),
        }
    }

    /// Carries bytes until one side ends or the front cuts the connection.
    pub(super) async fn run(mut self) {
        let mut cut = self.gate.clone();
        let ended = tokio::select! {
            biased;
            () = cut.cut() => Err(io::ErrorKind::ConnectionReset.into()),
            ended = self.carry() => ended,
        };
        match ended {
            Ok(()) => self.program.end_writing(),
            Err(error) => {
                tracing::debug!(connection = self.connection, %error, "a database connection ended");
                self.program.reset_on_close();
            }
        }
        self.keep().await;
    }

    /// Keeps the server's side for another program, if it has nothing under way.
    async fn keep(&mut self) {
        let is_over = self.is_over();
        self.ends();
        if let Some(reserve) = self.shared.reserve()
            && let Some(server) = self.server.take()
            && let Some(greeting) = server.greeting.into_inner()
            && is_over
        {
            let session = Kept {
                server: server.sock,
                packet: server.packet,
                greeting,
            };
            if reserve.put(session).await {
                self.shared.kept(self.connection);
            }
        }
    }

    fn ends(&self) {
        let unanswered = self.trips().end();
        self.shared.answered(unanswered);
    }

    /// Whether the server's side can be kept for another program.
    fn is_over(&self) -> bool {
        self.shared.reserve().is_some() && self.trips().are_over()
    }

    async fn carry(&self) -> io::Result<()> {
        let mut gate = self.gate.clone();
        let mut buffer = Vec::new();
        let length = loop {
            match Opening::read(&buffer)? {
                None => {
                    if self.program.read(&mut buffer).await? == 0 {
                        return Ok(());
                    }
                }
                Some(Opening::Encryption(length)) => {
                    gate.pass(&self.program, b"N").await?;
                    buffer.drain(..length);
                }
                Some(Opening::Cancel(length)) => return self.cancel(&buffer[..length]).await,
                Some(Opening::Session(length)) => break length,
            }
        };
        let begun = self.shared.start();
        if self.shared.is_observed() {
            self.report(begun.number, "connect".to_owned());
        }
        let sent = self.trips().starts(begun);
        self.shared.asked();
        self.pause(&sent).await;

        let packet: Vec<u8> = buffer.drain(..length).collect();
        let (server, greeting) = self.connect(&mut gate, packet).await?;
        let mut down = pin!(self.carry_down(server, greeting));
        tokio::select! {
            up = self.carry_up(server, buffer) => {
                up?;
                gate.open().await;
                if self.is_over() {
                    return Ok(());
                }
                // The program has said its last word; the server may still have some.
                server.end_writing();
            }
            ended = &mut down => return ended,
        }
        down.await
    }

    /// Connecting is part of the round trip: a server that was not reached has no process. Returns
    /// what the server has said already, if the session is one that was kept.
    async fn connect(&self, gate: &mut Gate, packet: Vec<u8>) -> io::Result<(&Sock, Vec<u8>)> {
        let kept = self.shared.reserve().and_then(|kept| kept.take(&packet));
        let (server, said) = match kept {
            Some(kept) => {
                let server = Server {
                    sock: kept.server,
                    packet,
                    greeting: OnceLock::from(kept.greeting.clone()),
                };
                (server, kept.greeting)
            }
            None => {
                let sock = self.shared.upstream().connect().await?;
                gate.pass(&sock, &packet).await?;
                let server = Server {
                    sock,
                    packet,
                    greeting: OnceLock::new(),
                };
                (server, Vec::new())
            }
        };
        Ok((&self.server.get_or_init(|| server).sock, said))
    }

    /// A CancelRequest has a connection of its own, and no answer but its end.
    async fn cancel(&self, packet: &[u8]) -> io::Result<()> {
        let server = self.shared.upstream().connect().await?;
        self.gate.clone().pass(&server, packet).await?;
        let mut answer = Vec::new();
        while server.read(&mut answer).await? > 0 {
            answer.clear();
        }
        Ok(())
    }

    /// From the program to the server.
    async fn carry_up(&self, server: &Sock, mut buffer: Vec<u8>) -> io::Result<()> {
        let mut gate = self.gate.clone();
        let mut scanner = Scanner::default();
        let mut telling = Telling::default();
        // Where in the buffer the frames begin that may belong to a round trip that counts.
        let mut undecided = None;
        loop {
            while let Some(frame) = scanner.next(&buffer, look_up)? {
                if frame.tag == b'X' && self.is_over() {
                    return Ok(());
                }
                let sent = self.sent(&frame, &buffer, &mut telling);
                if sent.wakes {
                    self.wake.notify_one();
                }
                if sent.undecided {
                    undecided.get_or_insert(frame.at);
                    continue;
                }
                let begin = undecided.take().unwrap_or(frame.at);
                if !sent.pauses() {
                    continue;
                }
                gate.pass(server, &buffer[..begin]).await?;
                buffer.drain(..begin);
                scanner.drained(begin);
                self.pause(&sent).await;
                if let Some(trap) = sent.unsynced {
                    gate.pass(server, FLUSH).await?;
                    trap.released().await;
                }
            }
            let free = undecided.unwrap_or(scanner.walked());
            gate.pass(server, &buffer[..free]).await?;
            buffer.drain(..free);
            scanner.drained(free);
            undecided = undecided.map(|_| 0);
            if self.program.read(&mut buffer).await? == 0 {
                return Ok(());
            }
        }
    }

    /// Books a frame of the program, and tells whoever wants to know what it says.
    fn sent(&self, frame: &Frame, buffer: &[u8], telling: &mut Telling) -> Sent {
        let body = &buffer[frame.body.clone()];
        let mut trips = self.trips();
        let sent = trips.sent(frame.tag, || self.shared.begin());
        if sent.asks {
            self.shared.asked();
        }
        if sent.asks || sent.begins.is_some() {
            telling.round_trip = sent.begins.unwrap_or(0);
        }
        let observed = self.shared.is_observed();
        let wanted = observed || trips.wants_statement();
        let said = match frame.tag {
            b'P' => {
                telling.statements.parse(body);
                wanted.then(|| Statements::parsed(body))
            }
            b'B' if wanted => telling.statements.bind(body),
            b'Q' if wanted => Some(Statements::query(body)),
            b'C' => {
                telling.statements.close(body);
                None
            }
            _ => None,
        };
        if let Some(text) = &said
            && trips.wants_statement()
        {
            trips.states(text.clone());
        }
        drop(trips);

        if observed {
            // A statement that is prepared and run in one round trip is told once, with its
            // parameters.
            match (frame.tag, said) {
                (b'P', said) => telling.prepared = said,
                (_, Some(text)) => {
                    telling.prepared = None;
                    self.report(telling.round_trip, text);
                }
                (b'S', None) => {
                    if let Some(text) = telling.prepared.take() {
                        self.report(telling.round_trip, format!("prepare {text}"));
                    }
                }
                _ => {}
            }
        }
        sent
    }

    /// Holds before the frame, if it is to be held, and delays it.
    async fn pause(&self, sent: &Sent) {
        if let Some(trap) = &sent.early {
            let held = self.trips().held();
            trap.spring(held);
            trap.released().await;
        }
        if !sent.delay.is_zero() {
            tokio::time::sleep(sent.delay).await;
        }
        self.trips().goes_on();
    }

    /// From the server to the program; `buffer` is what it has said already.
    async fn carry_down(&self, server: &Sock, mut buffer: Vec<u8>) -> io::Result<()> {
        let mut gate = self.gate.clone();
        let mut scanner = Scanner::default();
        let mut greeting =
            (self.shared.reserve().is_some() && buffer.is_empty()).then(Greeting::default);
        // Everything before this offset may pass; what lies behind it is held.
        let mut free = 0;
        let mut holds = false;
        loop {
            // What was read answers round trips that are in the queue already, so one look at its
            // head is enough until the head ends.
            let mut watches = self.trips().watches();
            while let Some(frame) = scanner.next(&buffer, look_down)? {
                if !watches && !matches!(frame.tag, b'Z' | b'K' | b'G') {
                    continue;
                }
                if !holds {
                    free = frame.at;
                }
                let received = self.received(&frame, &buffer);
                if let Some(trap) = received.late {
                    gate.pass(&self.program, &buffer[..free]).await?;
                    buffer.drain(..free);
                    scanner.drained(free);
                    trap.released().await;
                    holds = false;
                } else {
                    holds = received.held && !received.releases;
                }
                watches = self.trips().watches();
            }
            if !holds {
                free = scanner.walked();
            }
            gate.pass(&self.program, &buffer[..free]).await?;
            buffer.drain(..free);
            scanner.drained(free);
            free = 0;

            let read = if holds {
                match self.read_while_held(server, &mut buffer).await? {
                    Some(read) => read,
                    None => {
                        holds = false;
                        continue;
                    }
                }
            } else {
                server.read(&mut buffer).await?
            };
            if let Some(heard) = &mut greeting
                && let Some(whole) = heard.hear(&buffer[buffer.len() - read..])?
            {
                self.greeted(whole);
                greeting = None;
            }
            if read == 0 {
                gate.pass(&self.program, &buffer).await?;
                gate.open().await;
                self.program.end_writing();
                return Ok(());
            }
        }
    }

    fn greeted(&self, greeting: Vec<u8>) {
        if let Some(server) = self.server.get() {
            // It is greeted once.
            let _ = server.greeting.set(greeting);
        }
    }

    fn received(&self, frame: &Frame, buffer: &[u8]) -> Received {
        let mut trips = self.trips();
        let received = trips.received(frame.tag, &buffer[frame.body.clone()]);
        if received.answers {
            self.shared.answered(1);
        }
        if frame.tag == b'K' {
            self.shared.named(self.connection, trips.backend_pid());
        }
        received
    }

    /// Goes on reading, so that the server is never kept from its work; `None` as soon as what was
    /// read may pass.
    async fn read_while_held(
        &self,
        server: &Sock,
        buffer: &mut Vec<u8>,
    ) -> io::Result<Option<usize>> {
        loop {
            let Some(trap) = self.trips().holder() else {
                return Ok(None);
            };
            tokio::select! {
                read = server.read(buffer) => return read.map(Some),
                () = trap.released() => {}
                () = self.wake.notified() => {}
            }
        }
    }

    fn report(&self, round_trip: u64, text: String) {
        self.shared.report(&Seen {
            connection: self.connection,
            round_trip,
            text,
            at: Instant::now(),
        });
    }

    fn trips(&self) -> MutexGuard<'_, Trips> {
        self.trips.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Drop for Session {
    /// Also when the task is dropped with its runtime, or an observer has panicked.
    fn drop(&mut self) {
        self.ends();
        self.shared.closed(self.connection);
    }
}

/// What the loop from the program knows of the statements it carries.
#[derive(Default)]
struct Telling {
    statements: Statements,
    round_trip: u64,
    /// Prepared in the present round trip, and not yet run in it.
    prepared: Option<String>,
}

/// How much of a frame of the program is looked at.
fn look_up(tag: u8) -> usize {
    match tag {
        b'P' | b'B' | b'Q' => LOOK,
        b'C' => 256,
        _ => 0,
    }
}

/// How much of a frame of the server is looked at.
fn look_down(tag: u8) -> usize {
    match tag {
        b'K' | b'R' => 4,
        _ => 0,
    }
}
