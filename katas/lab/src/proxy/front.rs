//! A front: one loopback port before a PostgreSQL server, for one instance of a program.

use std::{
    collections::{BTreeMap, BTreeSet},
    io,
    net::{Ipv4Addr, SocketAddr},
    sync::{
        Arc, Mutex, MutexGuard, PoisonError, RwLock,
        atomic::{AtomicBool, Ordering},
    },
    time::Duration,
};

use tokio::{
    net::{TcpListener, TcpSocket, TcpStream},
    sync::{Notify, watch},
};

use super::{
    gate::{Gate, Mode, Sock, Upstream},
    reserve::Reserve,
    session::Session,
    statement::Seen,
    trap::{Core, Point, RoundTrip, Trap, Unsprung},
    trips::Begun,
};

/// As many as the contract of a kata lets a program open at once, and then some.
const BACKLOG: u32 = 1024;

/// One loopback port before a PostgreSQL server, for one instance of a program.
///
/// It works on the Tokio runtime that opened it, and everything it started ends when it is dropped:
/// connections are reset as by [`Front::cut`], traps that have not sprung are lost.
#[derive(Debug)]
pub struct Front {
    port: u16,
    shared: Arc<Shared>,
}

impl Front {
    /// Opens a free port. The server is not reached before a program connects.
    ///
    /// # Errors
    /// The system has no port to give.
    ///
    /// # Panics
    /// Outside a Tokio runtime.
    pub fn open(upstream: Upstream) -> io::Result<Self> {
        Self::start(upstream, None)
    }

    /// The same, with sessions that outlive their programs: each that has nothing under way when
    /// its program goes is put back to how it began and kept for the next.
    ///
    /// # Errors
    /// As [`Front::open`].
    ///
    /// # Panics
    /// Outside a Tokio runtime.
    pub fn open_with(upstream: Upstream, reserve: Arc<Reserve>) -> io::Result<Self> {
        Self::start(upstream, Some(reserve))
    }

    fn start(upstream: Upstream, reserve: Option<Arc<Reserve>>) -> io::Result<Self> {
        let socket = TcpSocket::new_v4()?;
        socket.bind(SocketAddr::from((Ipv4Addr::LOCALHOST, 0)))?;
        let listener = socket.listen(BACKLOG)?;
        let port = listener.local_addr()?.port();
        let shared = Arc::new(Shared::new(upstream, reserve));
        tokio::spawn(accept(listener, Arc::clone(&shared)));
        Ok(Self { port, shared })
    }

    /// The port on 127.0.0.1.
    pub fn port(&self) -> u16 {
        self.port
    }

    /// The server processes of the sessions that are open.
    pub fn backend_pids(&self) -> Vec<i32> {
        self.shared.state().pids()
    }

    /// Counts round trips from now on, and sets a trap at one of them. It counts the round trips
    /// that begin from now on, not those that are under way.
    ///
    /// Traps that were armed earlier stay where they are, each with its own count. Several may
    /// wait in one round trip.
    pub fn arm(&self, round_trip: RoundTrip, point: Point) -> Trap {
        let mut state = self.shared.state();
        state.armed_at = state.begun;
        let core = Core::new(state.begun.saturating_add(round_trip.0), point);
        state.armed.push(Arc::clone(&core));
        Trap::new(core, Arc::downgrade(&self.shared))
    }

    /// Counts round trips from now on, with no further trap.
    pub fn count_from_now(&self) {
        let mut state = self.shared.state();
        state.armed_at = state.begun;
    }

    /// The round trips that have begun since the front was last armed, over all connections. One
    /// that runs nothing (a Sync alone, a statement that is only prepared) is none.
    pub fn round_trips(&self) -> u64 {
        let state = self.shared.state();
        state.begun - state.armed_at
    }

    /// How many sessions have ever begun. The start of each is a round trip, and may be one of a
    /// pool's own that nobody asked for.
    pub fn starts(&self) -> u64 {
        self.shared.state().starts
    }

    /// Waits until the program asks nothing of the server, for it may still be looking after the
    /// connection of the request before. It waits no longer than a second, since a program may have
    /// work of its own, and nothing can be concluded from it.
    pub async fn quiet(&self) {
        const MOST: Duration = Duration::from_secs(1);
        const QUIET: Duration = Duration::from_millis(15);
        let quiet = async {
            let mut before = None;
            loop {
                let now = self.shared.state().asked;
                let is_answered = self.shared.state().answered == now;
                if is_answered && before.replace(now) == Some(now) {
                    return;
                }
                tokio::time::sleep(QUIET).await;
            }
        };
        // What is still under way then is the program's own.
        let _ = tokio::time::timeout(MOST, quiet).await;
    }

    /// Freezes all bytes in both directions. New connections are accepted and stay mute. Once it
    /// returns no byte passes, and none is lost.
    pub fn silence(&self) {
        self.shared.mode.send_modify(|mode| mode.silent = true);
    }

    /// Ends a silence: what was kept goes on its way.
    pub fn speak(&self) {
        self.shared.mode.send_modify(|mode| mode.silent = false);
    }

    /// Resets all connections and closes new ones at once, until [`Front::heal`]. Once it returns
    /// no byte of a connection that existed reaches the server, and what a trap held is gone; the
    /// server's sessions end, and their open transactions roll back.
    ///
    /// It returns the server processes of those sessions. PostgreSQL needs a moment to see that a
    /// connection is closed, and while a statement waits for a lock it does not look, unless
    /// `client_connection_check_interval` is set. Until these processes are gone they may hold
    /// locks.
    pub fn cut(&self) -> Vec<i32> {
        self.end_sessions(|mode| mode.closed = true)
    }

    /// Resets all connections as [`Front::cut`] does, and welcomes new ones: who tries again at once
    /// is not refused.
    pub fn reset(&self) -> Vec<i32> {
        self.end_sessions(|_| {})
    }

    /// Resets one connection, as [`Front::reset`] does all of them: the one that a trap
    /// [holds](super::Held::connection), for instance.
    pub fn reset_connection(&self, connection: u64) -> Option<i32> {
        self.shared.mode.send_modify(|mode| {
            mode.dead.insert(connection);
        });
        let mut state = self.shared.state();
        let pid = state.sessions.remove(&connection)?;
        state.ending.insert(connection, pid);
        Some(pid)
    }

    fn end_sessions(&self, and: impl FnOnce(&mut Mode)) -> Vec<i32> {
        self.shared.mode.send_modify(|mode| {
            mode.age += 1;
            and(mode);
        });
        let mut state = self.shared.state();
        let ended = std::mem::take(&mut state.sessions);
        let pids = ended.values().copied().collect();
        state.ending.extend(ended);
        pids
    }

    /// Waits until it is decided which sessions are kept, and returns those of `pids` that are
    /// not: the server ends them, and until they are gone they may hold locks.
    pub async fn not_kept(&self, pids: Vec<i32>) -> Vec<i32> {
        loop {
            let decided = self.shared.decided.notified();
            let mut decided = std::pin::pin!(decided);
            decided.as_mut().enable();
            {
                let state = self.shared.state();
                if state.ending.is_empty() {
                    return Vec::from_iter(
                        pids.into_iter().filter(|pid| !state.kept.contains(pid)),
                    );
                }
            }
            decided.await;
        }
    }

    /// Accepts connections again.
    pub fn heal(&self) {
        self.shared.mode.send_modify(|mode| mode.closed = false);
    }

    /// Delays each round trip that begins from now on by this, before it is forwarded. One that
    /// runs nothing has no beginning here, and no delay.
    pub fn delay(&self, delay: Duration) {
        self.shared.state().delay = delay;
    }

    /// Tells what the program asks of the server, statement by statement, before it is forwarded.
    /// The last observer counts.
    ///
    /// It is called on the way of each statement, so it must not block.
    pub fn observe(&self, observer: impl Fn(&Seen) + Send + Sync + 'static) {
        *self
            .shared
            .observer
            .write()
            .unwrap_or_else(PoisonError::into_inner) = Some(Observer(Box::new(observer)));
        self.shared.is_observed.store(true, Ordering::Release);
    }
}

impl Drop for Front {
    fn drop(&mut self) {
        self.shared.mode.send_modify(|mode| {
            mode.ended = true;
            mode.closed = true;
            mode.age += 1;
        });
        for trap in self.shared.state().armed.drain(..) {
            trap.miss(Unsprung::Lost);
        }
    }
}

/// What a front and its connections share.
#[derive(Debug)]
pub(super) struct Shared {
    upstream: Upstream,
    reserve: Option<Arc<Reserve>>,
    mode: watch::Sender<Mode>,
    /// A session that was ending has ended, or is kept.
    decided: Notify,
    // A blocking mutex is right: it is held for a few words, never across an await.
    state: Mutex<State>,
    is_observed: AtomicBool,
    observer: RwLock<Option<Observer>>,
}

#[derive(Debug, Default)]
struct State {
    /// Round trips that have ever begun; it never starts again, so that every trap can keep a
    /// count of its own.
    begun: u64,
    /// What `begun` was when the front was last armed.
    armed_at: u64,
    /// All that was ever asked of the server: round trips, and what counts as none.
    asked: u64,
    /// How much of it is answered, or never will be.
    answered: u64,
    /// Traps whose round trip has not come.
    armed: Vec<Arc<Core>>,
    delay: Duration,
    /// Connections that were accepted.
    connections: u64,
    /// Sessions that have begun on them.
    starts: u64,
    /// Open sessions by connection, with their server process once it is known.
    sessions: BTreeMap<u64, i32>,
    /// The same of those whose program is gone, until it is decided whether they are kept.
    ending: BTreeMap<u64, i32>,
    /// The server processes that were kept and have not come back to this front.
    kept: BTreeSet<i32>,
}

impl State {
    fn pids(&self) -> Vec<i32> {
        self.sessions.values().copied().collect()
    }

    fn begin(&mut self) -> Begun {
        self.begun += 1;
        let now = self.begun;
        let traps = self.armed.extract_if(.., |trap| trap.target == now);
        Begun {
            number: now - self.armed_at,
            traps: traps.collect(),
            delay: self.delay,
        }
    }
}

struct Observer(Box<dyn Fn(&Seen) + Send + Sync>);

impl std::fmt::Debug for Observer {
    fn fmt(&self, formatter: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        formatter.write_str("Observer")
    }
}

impl Shared {
    fn new(upstream: Upstream, reserve: Option<Arc<Reserve>>) -> Self {
        Self {
            upstream,
            reserve,
            decided: Notify::new(),
            mode: watch::Sender::new(Mode::default()),
            state: Mutex::default(),
            is_observed: AtomicBool::new(false),
            observer: RwLock::new(None),
        }
    }

    pub(super) fn upstream(&self) -> &Upstream {
        &self.upstream
    }

    pub(super) fn reserve(&self) -> Option<&Reserve> {
        self.reserve.as_deref()
    }

    /// A round trip begins.
    pub(super) fn begin(&self) -> Begun {
        self.state().begin()
    }

    /// The round trip begins that starts a session.
    pub(super) fn start(&self) -> Begun {
        let mut state = self.state();
        state.starts += 1;
        state.begin()
    }

    /// The server will answer what the program has sent.
    pub(super) fn asked(&self) {
        self.state().asked += 1;
    }

    /// So much is answered, or never will be.
    pub(super) fn answered(&self, count: usize) {
        self.state().answered += count as u64;
    }

    pub(super) fn disarm(&self, core: &Arc<Core>) {
        self.state().armed.retain(|armed| !Arc::ptr_eq(armed, core));
    }

    /// A session has a server process.
    pub(super) fn named(&self, connection: u64, backend_pid: Option<i32>) {
        if let Some(pid) = backend_pid {
            let mut state = self.state();
            state.kept.remove(&pid);
            state.sessions.insert(connection, pid);
        }
    }

    /// The server's side of a session is kept; it is closed all the same.
    pub(super) fn kept(&self, connection: u64) {
        let mut state = self.state();
        let pid = state
            .sessions
            .get(&connection)
            .or(state.ending.get(&connection));
        if let Some(pid) = pid.copied() {
            state.kept.insert(pid);
        }
    }

    pub(super) fn closed(&self, connection: u64) {
        let mut state = self.state();
        state.sessions.remove(&connection);
        state.ending.remove(&connection);
        drop(state);
        self.decided.notify_waiters();
    }

    pub(super) fn is_observed(&self) -> bool {
        self.is_observed.load(Ordering::Acquire)
    }

    pub(super) fn report(&self, seen: &Seen) {
        let observer = self.observer.read().unwrap_or_else(PoisonError::into_inner);
        if let Some(Observer(observer)) = observer.as_ref() {
            observer(seen);
        }
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

async fn accept(listener: TcpListener, shared: Arc<Shared>) {
    let mut mode = shared.mode.subscribe();
    loop {
        let accepted = tokio::select! {
            biased;
            _ = mode.wait_for(|mode| mode.ended) => return,
            accepted = listener.accept() => accepted,
        };
        match accepted {
            Ok((program, _)) => welcome(program, &shared),
            // Out of file descriptors, or the program hung up while it waited. Without a pause
            // the former would spin.
            Err(error) => {
                tracing::debug!(%error, "no database connection was accepted");
                tokio::time::sleep(Duration::from_millis(5)).await;
            }
        }
    }
}

fn welcome(program: TcpStream, shared: &Arc<Shared>) {
    let Ok(program) = Sock::tcp(program) else {
        return;
    };
    let age = {
        let mode = shared.mode.borrow();
        if mode.closed {
            program.reset_on_close();
            return;
        }
        mode.age
    };
    let connection = {
        let mut state = shared.state();
        state.connections += 1;
        state.connections
    };
    let gate = Gate::new(shared.mode.subscribe(), age, connection);
    tokio::spawn(Session::new(connection, Arc::clone(shared), gate, program).run());
}
