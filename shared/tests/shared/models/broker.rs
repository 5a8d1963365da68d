//! What a model asks of a queue, and one in memory with the rules that the contract gives: leases
//! with tokens, and a claim that knows the key. Each rule can be left out.

pub(super) const MESSAGES: usize = 8;
const KEYS: usize = 2;

/// Its place, which is also its place among those of its key.
pub(super) type Id = usize;

pub(super) fn key(id: Id) -> usize {
    id % KEYS
}

/// A queue that holds `MESSAGES` messages, in the order of their ids.
pub(super) trait Broker {
    /// Up to `max` messages, for one worker.
    fn claim(&mut self, worker: usize, max: usize) -> Vec<Receipt>;

    /// False if the delivery is not the receipt's any more.
    fn settle(&mut self, receipt: Receipt, verdict: Verdict) -> bool;

    /// What a worker hears that asks for more time.
    fn is_valid(&mut self, receipt: Receipt) -> bool;

    /// The lease of a message runs out. False if it is not leased.
    fn expire(&mut self, id: Id) -> bool;

    /// The time of a refused message has come.
    fn wake(&mut self, id: Id);

    fn is_empty(&mut self) -> bool;
}

/// What a delivery is settled by.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Receipt {
    pub(super) id: Id,
    pub(super) token: u64,
}

/// ```text
/// ready   → leased   claimed
/// leased  → gone     acknowledged
/// leased  → waiting  refused
/// leased  → ready    released, or the lease ran out
/// waiting → ready    its time has come
/// ```
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum State {
    Ready,
    Leased { token: u64 },
    Waiting,
    Gone,
}

/// What is compared, and what is not.
#[derive(Debug, Clone, Copy)]
pub(super) struct Rules {
    knows_keys: bool,
    compares_tokens: bool,
    /// Whether a batch may hold several messages of a key.
    several: bool,
}

impl Rules {
    pub(super) fn right() -> Self {
        Self {
            knows_keys: true,
            compares_tokens: true,
            several: false,
        }
    }

    pub(super) fn several_of_a_key(mut self) -> Self {
        self.several = true;
        self
    }

    pub(super) fn claim_without_key(mut self) -> Self {
        self.knows_keys = false;
        self
    }

    pub(super) fn settle_without_token(mut self) -> Self {
        self.compares_tokens = false;
        self
    }
}

/// How a delivery is settled.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Verdict {
    Ack,
    Nack,
    Release,
}

#[derive(Debug)]
pub(super) struct Memory {
    rules: Rules,
    states: Vec<State>,
    last_token: u64,
}

impl Memory {
    pub(super) fn new(rules: Rules) -> Self {
        Self {
            rules,
            states: vec![State::Ready; MESSAGES],
            last_token: 0,
        }
    }
}

impl Broker for Memory {
    fn claim(&mut self, _: usize, max: usize) -> Vec<Receipt> {
        let mut claimed: Vec<Receipt> = Vec::new();
        for id in 0..self.states.len() {
            if claimed.len() == max {
                break;
            }
            let is_in_batch = |id: Id| claimed.iter().any(|receipt| receipt.id == id);
            let blocks = |earlier: Id| {
                key(earlier) == key(id)
                    && self.states[earlier] != State::Gone
                    && !(self.rules.several && is_in_batch(earlier))
            };
            let is_free = !self.rules.knows_keys || !(0..id).any(blocks);
            if self.states[id] == State::Ready && is_free {
                self.last_token += 1;
                let token = self.last_token;
                self.states[id] = State::Leased { token };
                claimed.push(Receipt { id, token });
            }
        }
        claimed
    }

    fn settle(&mut self, receipt: Receipt, verdict: Verdict) -> bool {
        if !self.is_valid(receipt) && self.rules.compares_tokens {
            return false;
        }
        if self.states[receipt.id] == State::Gone {
            return false;
        }
        self.states[receipt.id] = match verdict {
            Verdict::Ack => State::Gone,
            Verdict::Nack => State::Waiting,
            Verdict::Release => State::Ready,
        };
        true
    }

    fn is_valid(&mut self, receipt: Receipt) -> bool {
        let token = receipt.token;
        self.states[receipt.id] == State::Leased { token }
    }

    fn expire(&mut self, id: Id) -> bool {
        let is_leased = matches!(self.states[id], State::Leased { .. });
        if is_leased {
            self.states[id] = State::Ready;
        }
        is_leased
    }

    fn wake(&mut self, id: Id) {
        if self.states[id] == State::Waiting {
            self.states[id] = State::Ready;
        }
    }

    fn is_empty(&mut self) -> bool {
        self.states.iter().all(|state| *state == State::Gone)
    }
}
