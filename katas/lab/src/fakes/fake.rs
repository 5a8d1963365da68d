//! What every fake can do: traps, weather, and a record of its calls.

use std::{
    collections::HashMap,
    io,
    net::SocketAddr,
    sync::{
        Arc, Mutex, MutexGuard, PoisonError,
        atomic::{AtomicUsize, Ordering},
    },
};

use tokio::{
    sync::{Notify, watch},
    task::AbortHandle,
};

use super::{
    Answer, CallRecord, Caught, Request, Trap, Weather,
    call::{Call, Decision, Reply},
    server,
    trap::{Predicate, Snare},
    weather::{Course, Sky},
};
use crate::History;

/// What a faked service does when a call gets through to it.
pub trait Service: Send + Sync + 'static {
    /// Its name in the history: `provider`.
    fn actor(&self) -> &'static str;

    /// A few words about what is asked: `charge 12.50 EUR for pay-7`.
    fn describe(&self, request: &Request) -> String;

    /// Whether its callers name their calls with an `Idempotency-Key`; the history then says so.
    fn knows_keys(&self) -> bool {
        false
    }

    /// Does what is asked and says what to answer. Every request gets here, bad ones too.
    ///
    /// It is called at most once for a call, from any thread, at the moment that a check chooses,
    /// and must not call the fake.
    fn act(&self, request: &Request) -> Answer;
}

/// A service on a loopback port that does as a check tells it.
///
/// It lives on the runtime that opened it and ends when it is dropped: its port is closed and the
/// calls that are still open are cut.
pub struct Fake {
    shared: Arc<Shared>,
    address: SocketAddr,
    pub(super) server: AbortHandle,
}

impl Fake {
    /// Starts serving on a free loopback port.
    ///
    /// # Errors
    /// If there is no port to be had, or no Tokio runtime here.
    pub fn open(service: Arc<dyn Service>, history: History) -> io::Result<Self> {
        let runtime = tokio::runtime::Handle::try_current().map_err(io::Error::other)?;
        let listener = server::listen()?;
        let address = listener.local_addr()?;
        let shared = Arc::new(Shared {
            service,
            pulse: Arc::new(watch::Sender::new(())),
            open_calls: AtomicUsize::new(0),
            board: Mutex::new(Board::new(history)),
        });
        let server = runtime
            .spawn(server::serve(listener, Arc::clone(&shared)))
            .abort_handle();
        Ok(Self {
            shared,
            address,
            server,
        })
    }

    /// Its address, without a trailing slash.
    pub fn url(&self) -> String {
        format!("http://{}", self.address)
    }

    /// Catches every call that matches, until the trap is dropped.
    ///
    /// Of several traps the one set first gets the call. The predicate must not call the fake.
    pub fn trap(&self, matches: impl Fn(&Request) -> bool + Send + Sync + 'static) -> Trap {
        self.trap_times(usize::MAX, matches)
    }

    /// Catches the next `times` calls that match and lets later ones pass.
    pub fn trap_times(
        &self,
        times: usize,
        matches: impl Fn(&Request) -> bool + Send + Sync + 'static,
    ) -> Trap {
        let (id, arrived) = self.shared.board().add_trap(times, Box::new(matches));
        Trap {
            id,
            arrived,
            shared: Arc::downgrade(&self.shared),
        }
    }

    /// Says what happens to the calls that come from now on and that no trap catches.
    pub fn set_weather(&self, weather: Weather) {
        self.shared.board().sky = Sky::new(weather);
    }

    /// Every call since the beginning or the last [`Fake::reset`], in the order of arrival.
    pub fn calls(&self) -> Vec<CallRecord> {
        let board = self.shared.board();
        board.calls.iter().map(|call| call.record()).collect()
    }

    /// Waits until the record of calls is as wanted, and returns it.
    ///
    /// Waits for ever if it never is, so give it a deadline.
    pub async fn calls_when(
        &self,
        mut wanted: impl FnMut(&[CallRecord]) -> bool,
    ) -> Vec<CallRecord> {
        let mut pulse = self.shared.pulse.subscribe();
        loop {
            pulse.borrow_and_update();
            let calls = self.calls();
            if wanted(&calls) {
                return calls;
            }
            pulse.changed().await.expect("the sender is part of self");
        }
    }

    /// How many callers wait for an answer right now.
    pub fn open_calls(&self) -> usize {
        self.shared.open_calls.load(Ordering::SeqCst)
    }

    /// From now on calls are noted in this history: one fake may serve many checks.
    pub fn record_into(&self, history: History) {
        self.shared.board().history = history;
    }

    /// Ends all traps (what they hold is answered), makes the weather fine and forgets the record
    /// of calls. What the service itself remembers stays: it outlives any check.
    pub fn reset(&self) {
        let mut board = self.shared.board();
        board.calls.clear();
        board.sky = Sky::new(Weather::Fine);
        let let_go: (Vec<Snare>, HashMap<u64, Caught>) = (
            std::mem::take(&mut board.snares),
            std::mem::take(&mut board.delayed),
        );
        drop(board);
        drop(let_go);
    }
}

impl Drop for Fake {
    fn drop(&mut self) {
        self.server.abort();
    }
}

/// What the server, the traps and the check share.
pub(super) struct Shared {
    service: Arc<dyn Service>,
    /// Beats whenever a record changes.
    pulse: Arc<watch::Sender<()>>,
    open_calls: AtomicUsize,
    // A blocking mutex is right: it is held for a few moves, never across an await. A caught call
    // must not be dropped under it, since that lets the service act.
    board: Mutex<Board>,
}

struct Board {
    history: History,
    calls: Vec<Arc<Call>>,
    last_call: u64,
    snares: Vec<Snare>,
    last_snare: u64,
    sky: Sky,
    /// Calls that the weather delays, by number, until their time is over.
    delayed: HashMap<u64, Caught>,
}

impl Board {
    fn new(history: History) -> Self {
        Self {
            history,
            calls: Vec::new(),
            last_call: 0,
            snares: Vec::new(),
            last_snare: 0,
            sky: Sky::new(Weather::Fine),
            delayed: HashMap::new(),
        }
    }

    fn add_trap(&mut self, left: usize, matches: Predicate) -> (u64, Arc<Notify>) {
        self.last_snare += 1;
        let id = self.last_snare;
        let arrived = Arc::new(Notify::new());
        self.snares.push(Snare {
            id,
            matches,
            left,
            queue: Default::default(),
            arrived: Arc::clone(&arrived),
        });
        (id, arrived)
    }

    /// Puts the call into the first trap that wants it.
    fn catch(&mut self, call: &Arc<Call>) -> bool {
        let wants = |snare: &&mut Snare| snare.left > 0 && (snare.matches)(&call.request);
        let Some(snare) = self.snares.iter_mut().find(wants) else {
            return false;
        };
        snare.left -= 1;
        call.hold();
        snare.queue.push_back(Caught::new(Arc::clone(call)));
        snare.arrived.notify_waiters();
        true
    }
}

impl Shared {
    fn board(&self) -> MutexGuard<'_, Board> {
        self.board.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Numbers and records a call, and gives it to a trap or to the weather.
    pub(super) fn receive(self: &Arc<Self>, head: http::request::Parts, body: &[u8]) -> Line {
        let mut board = self.board();
        board.last_call += 1;
        let call = Arc::new(Call::new(
            Request::new(board.last_call, head, body),
            Arc::clone(&self.service),
            board.history.clone(),
            Arc::clone(&self.pulse),
        ));
        board.calls.push(Arc::clone(&call));
        // From here on a caller that goes away is noticed, whatever happens below.
        let line = Line::new(Arc::clone(self), Arc::clone(&call));
        let course = (!board.catch(&call)).then(|| board.sky.next());
        if let Some(Course::Wait(_)) = course {
            let number = call.request.number();
            board.delayed.insert(number, Caught::new(Arc::clone(&call)));
        }
        drop(board);
        self.pulse.send_replace(());
        match course {
            None => {}
            Some(Course::Answer) => call.decide(Decision::Answer),
            Some(Course::Refuse(status)) => call.decide(Decision::Refuse(status)),
            Some(Course::Break) => call.decide(Decision::Break),
            Some(Course::ActThenBreak) => {
                call.act();
                call.decide(Decision::Break);
            }
            Some(Course::Wait(time)) => self.let_go_after(time, call.request.number()),
        }
        line
    }

    /// In a task of its own: a caller that hangs up cancels only what waits for the answer.
    fn let_go_after(self: &Arc<Self>, time: std::time::Duration, number: u64) {
        let shared = Arc::downgrade(self);
        tokio::spawn(async move {
            tokio::time::sleep(time).await;
            if let Some(shared) = shared.upgrade() {
                let due = shared.board().delayed.remove(&number);
                drop(due);
            }
        });
    }

    pub(super) fn take_caught(&self, trap: u64) -> Option<Caught> {
        let mut board = self.board();
        let snare = board.snares.iter_mut().find(|snare| snare.id == trap)?;
        snare.queue.pop_front()
    }

    pub(super) fn count_caught(&self, trap: u64) -> usize {
        let board = self.board();
        let snare = board.snares.iter().find(|snare| snare.id == trap);
        snare.map_or(0, |snare| snare.queue.len())
    }

    pub(super) fn remove_trap(&self, trap: u64) {
        let mut board = self.board();
        let at = board.snares.iter().position(|snare| snare.id == trap);
        let removed = at.map(|at| board.snares.remove(at));
        drop(board);
        drop(removed);
    }
}

/// The caller's end of a call. Dropping it before the reply is out is the caller hanging up.
pub(super) struct Line {
    shared: Arc<Shared>,
    call: Arc<Call>,
}

impl Line {
    fn new(shared: Arc<Shared>, call: Arc<Call>) -> Self {
        shared.open_calls.fetch_add(1, Ordering::SeqCst);
        Self { shared, call }
    }

    pub(super) async fn reply(self) -> Reply {
        self.call.reply().await
    }
}

impl Drop for Line {
    fn drop(&mut self) {
        self.shared.open_calls.fetch_sub(1, Ordering::SeqCst);
        self.call.hang_up();
    }
}
