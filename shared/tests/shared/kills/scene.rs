//! One run: publishers and workers at work, faults at random times, and then the wait until the
//! broker has run empty.

use std::collections::HashSet;
use std::sync::Arc;
use std::time::{Duration, Instant};

use rand::rngs::StdRng;
use rand::{RngExt, SeedableRng};
use serde::{Deserialize, Serialize};
use shared::queue::{Message, Queue, QueueError};
use tokio::sync::watch;
use uuid::Uuid;

use super::broker::{Broker, Kind};
use super::judge::{Report, Run};
use super::ledger::Ledger;
use super::worker::{Orders, RELAY, WORKER, open};
use crate::role::Role;
use crate::support::End;

/// The one group that the workers share.
pub(super) const GROUP: &str = "workers";

const WORKERS: usize = 4;
const KEYS: usize = 60;

/// Jobs that the broker may have before the publisher waits.
const BACKLOG: usize = 300;

/// One in so many fails whenever it is tried.
const BAD: usize = 40;

/// A fault has to find somebody at work within this time.
const PATIENCE: Duration = Duration::from_secs(60);

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Fault {
    /// SIGKILL to a worker.
    Kill,
    /// SIGKILL to the broker.
    Restart,
    /// Every connection to the broker is cut.
    Cut,
    /// SIGKILL to the relay that publishes what the publisher stages in an outbox.
    Relay,
}

impl Fault {
    pub(super) const ALL: [Self; 4] = [Self::Kill, Self::Restart, Self::Cut, Self::Relay];

    pub(super) fn name(self) -> &'static str {
        match self {
            Self::Kill => "worker killed",
            Self::Restart => "broker killed",
            Self::Cut => "connections cut",
            Self::Relay => "relay killed",
        }
    }

    pub(super) fn promise(self) -> &'static str {
        match self {
            Self::Kill => "killed_workers_lose_nothing",
            Self::Restart => "a_broker_that_crashes_loses_nothing",
            Self::Cut => "connections_that_are_cut_lose_nothing",
            Self::Relay => "killed_relays_of_an_outbox_lose_nothing",
        }
    }

    /// The short form: as many as a minute's test can bear.
    fn usual(self) -> usize {
        match self {
            Self::Kill => 20,
            Self::Restart => 4,
            Self::Cut | Self::Relay => 10,
        }
    }
}

/// What a job is, in its payload.
#[derive(Debug, Serialize, Deserialize)]
pub(super) struct Job {
    /// Its place among those of its key.
    pub(super) seq: i32,
    pub(super) is_bad: bool,
}

pub(super) struct Scene {
    fault: Fault,
    faults: usize,
    seed: u64,
    /// Workers without an inbox.
    pub(super) naive: bool,
}

impl Scene {
    /// `KILLS`: how many faults; `KATA_SEED`: those of an earlier run.
    pub(super) fn from_env(fault: Fault) -> Self {
        let number = |name| {
            std::env::var(name)
                .ok()
                .map(|text| text.parse::<u64>().unwrap())
        };
        // Fewer of the others: each takes seconds.
        let faults = number("KILLS").map(|kills| match fault {
            Fault::Kill => kills as usize,
            Fault::Restart => (kills as usize).div_ceil(10),
            Fault::Cut | Fault::Relay => (kills as usize).div_ceil(2),
        });
        Self {
            fault,
            faults: faults.unwrap_or(fault.usual()),
            seed: number("KATA_SEED").unwrap_or_else(|| u64::from(rand::random::<u32>())),
            naive: false,
        }
    }

    pub(super) async fn play(&self, kind: Kind) -> Result<Report, End> {
        let began = Instant::now();
        let broker = Broker::start(kind, self.fault).await?;
        let ledger = Ledger::open(&broker.ledger_url());
        ledger.create().await;
        // A name of its own, since RabbitMQ is shared with others; deleted at the end.
        let name = format!("kills-{}", Uuid::new_v4().simple());
        let orders = Orders {
            queue_url: broker.url(),
            queue: name.clone(),
            ledger_url: broker.ledger_url(),
            naive: self.naive,
        };
        let queue = open(&orders).await.unwrap();
        let guard = DeleteQueue(Some(Arc::clone(&queue)));
        println!(
            "{}, {}: KATA_SEED={}",
            kind.name(),
            self.fault.name(),
            self.seed
        );

        let (stop, stopped) = watch::channel(false);
        let mut publisher = Publisher {
            rng: StdRng::seed_from_u64(self.seed),
            next: [0; KEYS],
            accepted: Vec::new(),
            bad: HashSet::new(),
            published: 0,
        };
        let is_staged = self.fault == Fault::Relay;
        let publishing = tokio::spawn({
            let (queue, ledger) = (Arc::clone(&queue), ledger.clone());
            async move {
                publisher.run(&*queue, &ledger, is_staged, stopped).await;
                (publisher.accepted, publisher.bad)
            }
        });
        let mut workers = Workers::start(&orders, is_staged);
        let (faults, hits) = self.inflict(&broker, &ledger, &mut workers).await?;
        stop.send_replace(true);
        let (accepted, bad) = publishing.await.unwrap();
        let (dead, left_over) = drain(&*queue, &ledger, &accepted).await;
        drop(workers);
        let run = Run {
            broker: kind.name(),
            fault: self.fault.name(),
            seed: self.seed,
            wanted: self.faults,
            faults,
            hits,
            accepted,
            bad,
            effects: ledger.effects().await.unwrap(),
            starts: ledger.starts().await.unwrap(),
            dead,
            left_over,
            took: began.elapsed(),
        };
        guard.delete().await;
        Ok(Report::of(run))
    }

    /// How many faults happened, and how many of them while a job was running.
    async fn inflict(
        &self,
        broker: &Broker,
        ledger: &Ledger,
        workers: &mut Workers,
    ) -> Result<(usize, usize), End> {
        let mut rng = StdRng::seed_from_u64(self.seed ^ 1);
        let (mut faults, mut hits) = (0, 0);
        while faults < self.faults {
            // When a fault comes is the test's input, not something that could be waited for.
            let pause = match self.fault {
                Fault::Kill => rng.random_range(20..200),
                Fault::Restart => rng.random_range(300..900),
                Fault::Cut => rng.random_range(100..500),
                Fault::Relay => rng.random_range(50..300),
            };
            tokio::time::sleep(Duration::from_millis(pause)).await;
            let worker = rng.random_range(0..WORKERS);
            let Some(worker) = workers.at_work(ledger, worker).await else {
                return Ok((faults, hits));
            };
            let hit = match self.fault {
                Fault::Kill => {
                    let pid = workers.kill(worker);
                    ledger.begun(pid).await.unwrap().1 > 0
                }
                Fault::Restart => {
                    let running = workers.running(ledger).await;
                    broker.crash_and_restart().await?;
                    running
                }
                Fault::Cut => workers.running(ledger).await & (broker.cut() > 0),
                Fault::Relay => match workers.kill_relay(ledger).await {
                    Some(hit) => hit,
                    None => return Ok((faults, hits)),
                },
            };
            faults += 1;
            hits += usize::from(hit);
        }
        Ok((faults, hits))
    }
}

/// The processes. Dropped, they are killed.
struct Workers {
    orders: Orders,
    roles: Vec<Role>,
    relay: Option<Role>,
    /// Claims of relays that are dead.
    dead_claims: HashSet<Uuid>,
}

impl Workers {
    fn start(orders: &Orders, with_relay: bool) -> Self {
        Self {
            orders: orders.clone(),
            roles: (0..WORKERS).map(|_| orders.spawn(WORKER)).collect(),
            relay: with_relay.then(|| orders.spawn(RELAY)),
            dead_claims: HashSet::new(),
        }
    }

    /// Kills the relay as soon as it has lanes, and starts another. Whether it died with lanes in
    /// hand: between the claim and the mark, so before, in or after a publish.
    async fn kill_relay(&mut self, ledger: &Ledger) -> Option<bool> {
        let deadline = Instant::now() + PATIENCE;
        loop {
            let claims = ledger.claims().await.unwrap_or_default();
            if claims.difference(&self.dead_claims).next().is_some() {
                break;
            }
            if Instant::now() > deadline {
                return None;
            }
            tokio::task::yield_now().await;
        }
        drop(self.relay.take());
        let claims = ledger.claims().await.unwrap();
        let hit = claims.difference(&self.dead_claims).next().is_some();
        self.dead_claims.extend(claims);
        self.relay = Some(self.orders.spawn(RELAY));
        Some(hit)
    }

    /// Waits until a worker has begun a job since it was started: this one, or the next that has.
    async fn at_work(&self, ledger: &Ledger, first: usize) -> Option<usize> {
        let deadline = Instant::now() + PATIENCE;
        while Instant::now() < deadline {
            for n in 0..WORKERS {
                let worker = (first + n) % WORKERS;
                // An error is a ledger that is down at the moment.
                let begun = ledger.begun(self.roles[worker].pid()).await;
                if begun.is_ok_and(|(begun, _)| begun > 0) {
                    return Some(worker);
                }
            }
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
        None
    }

    async fn running(&self, ledger: &Ledger) -> bool {
        for role in &self.roles {
            if ledger
                .begun(role.pid())
                .await
                .is_ok_and(|(_, open)| open > 0)
            {
                return true;
            }
        }
        false
    }

    /// Kills one and starts another in its place. The pid of the dead one.
    fn kill(&mut self, worker: usize) -> u32 {
        let pid = self.roles[worker].pid();
        self.roles[worker].kill();
        self.roles[worker] = self.orders.spawn(WORKER);
        pid
    }
}

struct Publisher {
    rng: StdRng,
    next: [i32; KEYS],
    accepted: Vec<Uuid>,
    bad: HashSet<Uuid>,
    published: usize,
}

impl Publisher {
    /// Publishes until it is told to stop, as much as the workers can bear.
    async fn run(
        &mut self,
        queue: &dyn Queue,
        ledger: &Ledger,
        is_staged: bool,
        stopped: watch::Receiver<bool>,
    ) {
        while !*stopped.borrow() {
            let done = ledger.done().await.unwrap_or_default();
            // Bad ones are never done, so that the backlog seems to grow by them.
            let bad = self.published / BAD;
            if self.published > done as usize + bad + BACKLOG {
                tokio::time::sleep(Duration::from_millis(10)).await;
                continue;
            }
            let messages: Vec<Message> = (0..20).map(|_| self.message()).collect();
            if is_staged {
                ledger.stage(queue.name(), &messages).await.unwrap();
            } else {
                // Again until it is accepted: whether the broker had them is not known.
                while let Err(error) = queue.publish(&messages).await {
                    tracing::debug!(%error, "publishing again");
                    tokio::time::sleep(Duration::from_millis(20)).await;
                }
            }
            self.accepted
                .extend(messages.iter().map(|message| message.id));
        }
    }

    fn message(&mut self) -> Message {
        let key = self.rng.random_range(0..KEYS);
        self.published += 1;
        let job = Job {
            seq: self.next[key],
            is_bad: self.published.is_multiple_of(BAD),
        };
        self.next[key] += 1;
        let message = Message::json(&job).unwrap().key(format!("key-{key}"));
        if job.is_bad {
            self.bad.insert(message.id);
        }
        message
    }
}

/// Waits until everything accepted is done or dead, and then until the broker has nothing more to
/// hand out. The dead letters, and what was left if it took too long.
async fn drain(
    queue: &dyn Queue,
    ledger: &Ledger,
    accepted: &[Uuid],
) -> (Vec<Uuid>, Option<String>) {
    let deadline = Instant::now() + Duration::from_secs(120);
    loop {
        let effects = ledger.effects().await.unwrap_or_default();
        let dead = dead_letters(queue).await.unwrap_or_default();
        let ended: HashSet<Uuid> = effects
            .iter()
            .map(|effect| effect.message)
            .chain(dead.iter().copied())
            .collect();
        let left = accepted.iter().filter(|id| !ended.contains(id)).count();
        let depth = queue.depth(GROUP).await;
        let is_empty = depth.as_ref().is_ok_and(|depth| {
            let counts = [depth.ready, depth.delayed, depth.leased];
            counts.iter().all(|count| count.unwrap_or_default() == 0)
        });
        if left == 0 && is_empty {
            return (dead, None);
        }
        if Instant::now() > deadline {
            return (
                dead,
                Some(format!("{left} neither done nor dead; {depth:?}")),
            );
        }
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
}

async fn dead_letters(queue: &dyn Queue) -> Result<Vec<Uuid>, QueueError> {
    let mut dead = Vec::new();
    let mut after: Option<String> = None;
    loop {
        let letters = queue.dead_letters(GROUP, after.as_deref(), 500).await?;
        let Some(last) = letters.last() else {
            return Ok(dead);
        };
        after = Some(last.id.clone());
        dead.extend(letters.iter().map(|letter| letter.message.id));
    }
}

/// Deletes the queue, also if the test fails before its end: RabbitMQ would keep it.
struct DeleteQueue(Option<Arc<dyn Queue>>);

impl DeleteQueue {
    async fn delete(mut self) {
        if let Some(queue) = self.0.take() {
            queue.delete().await.unwrap();
        }
    }
}

impl Drop for DeleteQueue {
    fn drop(&mut self) {
        if let Some(queue) = self.0.take() {
            let handle = tokio::runtime::Handle::current();
            // The runtime is not driven by whoever unwinds, so that waiting takes another thread.
            std::thread::spawn(move || drop(handle.block_on(queue.delete())))
                .join()
                .unwrap_or_default();
        }
    }
}
