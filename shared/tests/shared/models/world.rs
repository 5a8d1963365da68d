//! Workers around a queue: everything that can happen, one step at a time, and what must hold.
//!
//! - Nobody is given a message, or a later one of its key, while another has it and the time of his
//!   lease is not over. (What the broker believes does not count: it may be mistaken.)
//! - The first effects of a key are in order, whatever is repeated.
//! - When the faults cease, every message has its effect.

use std::collections::VecDeque;

use proptest::prelude::*;
use shared::queue::worker::Lanes;

use super::broker::{Broker, Id, MESSAGES, Receipt, Verdict, key};

pub(super) const WORKERS: usize = 3;

fn name(id: Id) -> &'static str {
    ["a", "b"][key(id)]
}

/// What a worker does between taking and beginning.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Hands {
    /// As it is.
    Lanes,
    /// Whoever is free takes the next one.
    Fifo,
    /// A failed message is put away, and its key goes on.
    GoOnBehindFailed,
    /// Of what waits only the lost messages themselves are dropped.
    GoOnBehindLost,
}

/// What can happen. Numbers are taken modulo what there is.
#[derive(Debug, Clone, Copy)]
pub(super) enum Step {
    Receive {
        worker: usize,
        max: usize,
    },
    Begin {
        worker: usize,
    },
    Succeed {
        worker: usize,
        nth: usize,
    },
    Fail {
        worker: usize,
        nth: usize,
    },
    /// The oldest verdict reaches the broker.
    Settle {
        worker: usize,
    },
    /// The worker asks for more time and hears what it has lost.
    Heartbeat {
        worker: usize,
    },
    /// The worker dies. What it held stays leased.
    Die {
        worker: usize,
    },
    /// A lease runs out.
    Expire {
        id: Id,
    },
    /// A refused message is due again.
    Wake {
        id: Id,
    },
}

pub(super) fn steps() -> impl Strategy<Value = Vec<Step>> {
    let worker = || 0..WORKERS;
    let step = prop_oneof![
        4 => (worker(), 1..5_usize).prop_map(|(worker, max)| Step::Receive { worker, max }),
        6 => worker().prop_map(|worker| Step::Begin { worker }),
        4 => (worker(), 0..4_usize).prop_map(|(worker, nth)| Step::Succeed { worker, nth }),
        2 => (worker(), 0..4_usize).prop_map(|(worker, nth)| Step::Fail { worker, nth }),
        5 => worker().prop_map(|worker| Step::Settle { worker }),
        2 => worker().prop_map(|worker| Step::Heartbeat { worker }),
        1 => worker().prop_map(|worker| Step::Die { worker }),
        3 => (0..MESSAGES).prop_map(|id| Step::Expire { id }),
        2 => (0..MESSAGES).prop_map(|id| Step::Wake { id }),
    ];
    prop::collection::vec(step, 1..60)
}

#[derive(Default)]
struct Worker {
    lanes: Lanes<Receipt>,
    fifo: VecDeque<Receipt>,
    running: Vec<Receipt>,
    verdicts: VecDeque<(Receipt, Verdict)>,
}

pub(super) struct World<B> {
    hands: Hands,
    broker: B,
    workers: Vec<Worker>,
    /// Who has a message by right: claimed it, has not settled it, and the time is not over.
    holders: [Option<(usize, Receipt)>; MESSAGES],
    has_effect: [bool; MESSAGES],
}

type Held = Result<(), String>;

impl<B: Broker> World<B> {
    pub(super) fn new(broker: B, hands: Hands) -> Self {
        Self {
            hands,
            broker,
            workers: (0..WORKERS).map(|_| Worker::default()).collect(),
            holders: [None; MESSAGES],
            has_effect: [false; MESSAGES],
        }
    }

    pub(super) fn take(&mut self, step: Step) -> Held {
        match step {
            Step::Receive { worker, max } => return self.receive(worker, max),
            Step::Begin { worker } => self.begin(worker),
            Step::Succeed { worker, nth } => return self.succeed(worker, nth),
            Step::Fail { worker, nth } => self.fail(worker, nth),
            Step::Settle { worker } => self.settle(worker),
            Step::Heartbeat { worker } => self.heartbeat(worker),
            Step::Die { worker } => self.workers[worker] = Worker::default(),
            Step::Expire { id } => {
                if self.broker.expire(id) {
                    self.holders[id] = None;
                }
            }
            Step::Wake { id } => self.broker.wake(id),
        }
        Ok(())
    }

    fn receive(&mut self, worker: usize, max: usize) -> Held {
        for receipt in self.broker.claim(worker, max) {
            let id = receipt.id;
            for earlier in (0..=id).filter(|earlier| key(*earlier) == key(id)) {
                // A batch may hold several of a key, and then one worker has them all.
                if let Some((holder, _)) = self.holders[earlier]
                    && (holder != worker || earlier == id)
                {
                    return Err(format!(
                        "{id} is handed out while worker {holder} has {earlier} of its key"
                    ));
                }
            }
            self.holders[id] = Some((worker, receipt));
            let hands = &mut self.workers[worker];
            match self.hands {
                Hands::Fifo => hands.fifo.push_back(receipt),
                _ => hands.lanes.push(Some(name(id)), receipt),
            }
        }
        Ok(())
    }

    fn begin(&mut self, worker: usize) {
        let worker = &mut self.workers[worker];
        let next = match self.hands {
            Hands::Fifo => worker.fifo.pop_front(),
            _ => worker.lanes.begin(),
        };
        worker.running.extend(next);
    }

    fn end(&mut self, worker: usize, nth: usize) -> Option<Receipt> {
        let running = &mut self.workers[worker].running;
        (!running.is_empty()).then(|| running.remove(nth % running.len()))
    }

    fn succeed(&mut self, worker: usize, nth: usize) -> Held {
        let Some(receipt) = self.end(worker, nth) else {
            return Ok(());
        };
        let id = receipt.id;
        // Lost or not: a handler that was not dropped in time has its effect. The inbox ignores
        // repetitions.
        if !self.has_effect[id] {
            let mut earlier = (0..id).filter(|earlier| key(*earlier) == key(id));
            if let Some(missing) = earlier.find(|earlier| !self.has_effect[*earlier]) {
                return Err(format!("out of order: {id} before {missing}"));
            }
            self.has_effect[id] = true;
        }
        let worker = &mut self.workers[worker];
        worker.verdicts.push_back((receipt, Verdict::Ack));
        worker.lanes.done(name(id));
        Ok(())
    }

    fn fail(&mut self, worker: usize, nth: usize) {
        let Some(receipt) = self.end(worker, nth) else {
            return;
        };
        let worker = &mut self.workers[worker];
        worker.verdicts.push_back((receipt, Verdict::Nack));
        match self.hands {
            Hands::GoOnBehindFailed => worker.lanes.done(name(receipt.id)),
            _ => worker.give_back_behind(receipt.id),
        }
    }

    fn settle(&mut self, worker: usize) {
        let Some((receipt, verdict)) = self.workers[worker].verdicts.pop_front() else {
            return;
        };
        self.broker.settle(receipt, verdict);
        // Only the holder gives up what he holds.
        if self.holders[receipt.id] == Some((worker, receipt)) {
            self.holders[receipt.id] = None;
        }
    }

    fn heartbeat(&mut self, worker: usize) {
        let hands = self.hands;
        let worker = &mut self.workers[worker];
        let held = worker.lanes.iter_mut().map(|receipt| *receipt);
        let held = held.chain(worker.fifo.iter().copied());
        let held: Vec<Receipt> = held.chain(worker.running.iter().copied()).collect();
        let mut valid = held;
        valid.retain(|receipt| self.broker.is_valid(*receipt));
        let is_lost = |receipt: &Receipt| !valid.contains(receipt);
        match hands {
            Hands::GoOnBehindLost => {
                // All that waits is taken out, and put back without what was lost.
                let mut kept = worker.lanes.clear();
                kept.retain(|receipt| !is_lost(receipt));
                kept.sort_by_key(|receipt| receipt.id);
                for receipt in kept {
                    worker.lanes.push(Some(name(receipt.id)), receipt);
                }
            }
            _ => drop(worker.lanes.remove(is_lost)),
        }
        worker.fifo.retain(|receipt| !is_lost(receipt));
        let (lost, running) = worker.running.iter().partition(|receipt| is_lost(receipt));
        worker.running = running;
        let lost: Vec<Receipt> = lost;
        for receipt in lost {
            worker.give_back_behind(receipt.id);
        }
    }

    /// No more faults: whatever was begun is finished, and what is left is done by one worker.
    pub(super) fn come_to_an_end(&mut self) -> Held {
        for round in 0..MESSAGES * 4 {
            if round > 0 && self.broker.is_empty() {
                break;
            }
            for worker in 0..WORKERS {
                self.heartbeat(worker);
                self.begin(worker);
                while !self.workers[worker].running.is_empty() {
                    self.succeed(worker, 0)?;
                    self.begin(worker);
                }
                while !self.workers[worker].verdicts.is_empty() {
                    self.settle(worker);
                }
            }
            for id in 0..MESSAGES {
                self.broker.wake(id);
                // Of those that died.
                if round == 0 {
                    self.take(Step::Expire { id })?;
                }
            }
            self.receive(round % WORKERS, MESSAGES)?;
        }
        match self.has_effect.iter().position(|has| !has) {
            Some(id) => Err(format!("{id} never had its effect")),
            None if !self.broker.is_empty() => Err("the queue never ran empty".to_owned()),
            None => Ok(()),
        }
    }
}

impl Worker {
    fn give_back_behind(&mut self, id: Id) {
        for behind in self.lanes.failed(name(id)) {
            self.verdicts.push_back((behind, Verdict::Release));
        }
    }
}
