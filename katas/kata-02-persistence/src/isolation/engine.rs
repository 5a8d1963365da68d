//! Steps a script: a statement is sent only when it is certain where all the others are.
//!
//! After each statement every session has either answered, or the server says that it waits, and
//! for whom. What waits for a session that has nothing under way cannot go on by itself, so that is
//! where it stays until the script goes on. Sessions that wait for each other are a deadlock, which
//! the server ends: for that we wait. Nothing is concluded from how long something takes.

use std::{
    collections::{BTreeMap, BTreeSet},
    time::{Duration, Instant},
};

use tokio::sync::oneshot;

use super::{
    script::Script,
    server::{LabError, Level, Server},
    session::{Answer, Session, received},
};

/// A server that neither answers nor says that a session waits gets this long before we give up.
const PATIENCE: Duration = Duration::from_secs(60);

/// Between two looks at what has been answered.
const LOOK_AGAIN: Duration = Duration::from_millis(1);

/// The rows that every script begins with.
const ROWS: [&str; 2] = [
    "insert into account values (1, 10)",
    "insert into account values (2, 20)",
];

/// Something that happened, in the order in which it did.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Event {
    /// The index of the step.
    pub step: usize,
    /// What was seen.
    pub seen: Seen,
}

/// What was seen of a statement.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Seen {
    /// It was answered at once.
    Answered(Answer),
    /// It waits for another session.
    Waits,
    /// It had waited, and goes on.
    GoesOn(Answer),
}

/// One run of a script.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Run {
    /// Everything, in order.
    pub events: Vec<Event>,
    /// The rows in the end, as `1:12 2:21`.
    pub ends: String,
}

impl Run {
    /// The answer to a step, if it was sent.
    pub fn answer(&self, step: usize) -> Option<&Answer> {
        let of_step = self.events.iter().filter(|event| event.step == step);
        of_step
            .filter_map(|event| match &event.seen {
                Seen::Answered(answer) | Seen::GoesOn(answer) => Some(answer),
                Seen::Waits => None,
            })
            .next()
    }
}

/// Plays a script at a level.
///
/// # Errors
/// [`LabError`] if the connection is lost or the server says nothing about a session.
pub async fn play(server: &Server, script: &Script, level: Level) -> Result<Run, LabError> {
    server.reset(&ROWS).await?;
    let mut sessions = Vec::new();
    for _ in 0..script.sessions() {
        let session = server.session().await?;
        server.begin(&session, level).await?;
        sessions.push(session);
    }
    let mut play = Play {
        server,
        sessions: &sessions,
        under_way: BTreeMap::new(),
        waits: BTreeSet::new(),
        out: BTreeSet::new(),
        events: Vec::new(),
    };
    let mut left: Vec<usize> = (0..script.steps.len()).collect();
    while !left.is_empty() || !play.under_way.is_empty() {
        let free = |step: &usize| !play.under_way.contains_key(&script.steps[*step].by);
        let Some(place) = left.iter().position(free) else {
            return Err(LabError::Stuck(
                "every session of the script waits, and the server does not end it".to_owned(),
            ));
        };
        let step = left.remove(place);
        let by = script.steps[step].by;
        if play.out.contains(&by) {
            continue;
        }
        play.send(step, by, script.steps[step].sql);
        play.settle().await?;
    }
    let events = play.events;
    for session in sessions {
        session.close().await;
    }
    let ends = server
        .look("select id, balance from account order by id")
        .await?;
    Ok(Run { events, ends })
}

type Reply = oneshot::Receiver<Result<Answer, sqlx::Error>>;

struct Play<'a> {
    server: &'a Server,
    sessions: &'a [Session],
    /// By session: the step, and where its answer comes.
    under_way: BTreeMap<usize, (usize, Reply)>,
    /// Steps that were seen waiting.
    waits: BTreeSet<usize>,
    /// Sessions that were refused, and rolled back as every program does then.
    out: BTreeSet<usize>,
    events: Vec<Event>,
}

impl Play<'_> {
    fn send(&mut self, step: usize, by: usize, sql: &str) {
        let reply = self.sessions[by].send(sql);
        self.under_way.insert(by, (step, reply));
    }

    /// Returns when it is certain where every session is.
    async fn settle(&mut self) -> Result<(), LabError> {
        let deadline = Instant::now() + PATIENCE;
        loop {
            // Most statements are answered at once, and the server need not be asked who waits.
            let ask_at = Instant::now() + self.server.between_looks();
            while !self.take_answers().await? && Instant::now() < ask_at {
                tokio::time::sleep(LOOK_AGAIN).await;
            }
            if self.under_way.is_empty() {
                return Ok(());
            }
            let numbers: Vec<_> = self
                .under_way
                .keys()
                .map(|by| self.sessions[*by].number)
                .collect();
            if let Some(waiting) = self.server.waiting(&numbers).await?
                && self.all_held(&waiting)
            {
                self.note_waits();
                return Ok(());
            }
            if Instant::now() > deadline {
                return Err(LabError::Stuck(format!(
                    "a statement was not answered in {PATIENCE:?}, and the server does not say that it waits for one of ours"
                )));
            }
        }
    }

    /// Whether each session that has something under way waits, in the end, for one that has not.
    fn all_held(&self, waiting: &BTreeMap<i64, BTreeSet<i64>>) -> bool {
        let idle: BTreeSet<i64> = (0..self.sessions.len())
            .filter(|by| !self.under_way.contains_key(by) && !self.out.contains(by))
            .map(|by| self.sessions[by].number)
            .collect();
        let held = |number: i64| {
            let mut reached = BTreeSet::from([number]);
            let mut open = vec![number];
            while let Some(next) = open.pop() {
                match waiting.get(&next) {
                    None => return false,
                    // The server does not say for whom; somebody of ours must be idle.
                    Some(by) if by.is_empty() => return !idle.is_empty(),
                    Some(by) if !by.is_disjoint(&idle) => return true,
                    Some(by) => open.extend(by.iter().filter(|number| reached.insert(**number))),
                }
            }
            false
        };
        self.under_way
            .keys()
            .all(|by| held(self.sessions[*by].number))
    }

    fn note_waits(&mut self) {
        for (step, _) in self.under_way.values() {
            if self.waits.insert(*step) {
                self.events.push(Event {
                    step: *step,
                    seen: Seen::Waits,
                });
            }
        }
    }

    /// Takes the answers that are there. Whoever was refused rolls back, so that nobody waits for
    /// a transaction that has failed. Whether there was any.
    async fn take_answers(&mut self) -> Result<bool, LabError> {
        let before = self.events.len();
        let sessions: Vec<_> = self.under_way.keys().copied().collect();
        for by in sessions {
            let Some((step, reply)) = self.under_way.get_mut(&by) else {
                continue;
            };
            let step = *step;
            let answer = match reply.try_recv() {
                Err(oneshot::error::TryRecvError::Empty) => continue,
                Err(oneshot::error::TryRecvError::Closed) => {
                    return Err(LabError::Lost(sqlx::Error::WorkerCrashed));
                }
                Ok(reply) => received(Ok(reply))?,
            };
            self.under_way.remove(&by);
            if matches!(answer, Answer::Refused { .. }) {
                self.sessions[by].ask("rollback").await?;
                self.out.insert(by);
            }
            let seen = match self.waits.contains(&step) {
                true => Seen::GoesOn(answer),
                false => Seen::Answered(answer),
            };
            self.events.push(Event { step, seen });
        }
        Ok(self.events.len() > before)
    }
}
