//! What a consumer has been sent: what may be handed out now, what has to wait for its time or for an
//! earlier message of its key, and what is out. No I/O.

use std::collections::{BTreeMap, BTreeSet, HashMap, VecDeque};
use std::time::{Duration, Instant, SystemTime};

use super::topology::LANES;
use super::wire::Letter;
use crate::queue::{Delivery, Receipt};

/// One message in our hands, not settled.
#[derive(Debug)]
pub(super) struct Held {
    pub(super) letter: Letter,
    /// Where it came from: 0 for messages without a key, else the lane.
    pub(super) source: u8,
    /// Its number in the channel that it came by.
    pub(super) tag: u64,
    due: Option<Instant>,
    /// How often it was handed out here. Part of the receipt, so that an old one finds nothing.
    turn: u16,
}

impl Held {
    pub(super) fn new(letter: Letter, source: u8, tag: u64) -> Self {
        let left = letter
            .due
            .and_then(|due| due.duration_since(SystemTime::now()).ok());
        Self {
            letter,
            source,
            tag,
            due: left.map(|left| Instant::now() + left),
            turn: 0,
        }
    }

    /// For how long it has to wait.
    pub(super) fn wait(&self, now: Instant) -> Duration {
        self.due
            .map_or(Duration::ZERO, |due| due.saturating_duration_since(now))
    }

    /// Another attempt, not before this has passed.
    pub(super) fn try_again(&mut self, delay: Duration, error: String, now: Instant) {
        self.letter.failed(error);
        self.due = Some(now + delay);
    }

    fn key(&self) -> Option<&str> {
        self.letter.message.key.as_deref()
    }
}

/// Everything in the hands of one consumer, since its channels were opened.
#[derive(Debug)]
pub(super) struct Desk {
    /// Which channels they came by. Tags begin anew with new channels, so receipts name them both.
    generation: u32,
    free: VecDeque<Held>,
    /// For each key what is not out, the earliest first. A key is here while one of its messages is
    /// in our hands, out or not.
    keys: HashMap<String, VecDeque<Held>>,
    /// Keys whose first message can go out.
    runnable: VecDeque<String>,
    /// Keys whose first message is not due, and messages without a key, by when they are.
    resting: BTreeMap<(Instant, u64), Resting>,
    rests: u64,
    out: HashMap<(u8, u64), Held>,
    /// For each source what the broker thinks is ours.
    unsettled: Vec<BTreeSet<u64>>,
}

#[derive(Debug)]
enum Resting {
    Key(String),
    Free(Box<Held>),
}

impl Desk {
    pub(super) fn new(generation: u32) -> Self {
        Self {
            generation,
            free: VecDeque::new(),
            keys: HashMap::new(),
            runnable: VecDeque::new(),
            resting: BTreeMap::new(),
            rests: 0,
            out: HashMap::new(),
            unsettled: vec![BTreeSet::new(); usize::from(LANES) + 1],
        }
    }

    pub(super) fn generation(&self) -> u32 {
        self.generation
    }

    /// The broker sent something. It counts as ours from now on.
    pub(super) fn received(&mut self, source: u8, tag: u64) {
        if let Some(unsettled) = self.unsettled.get_mut(usize::from(source)) {
            unsettled.insert(tag);
        }
    }

    /// A message to be handed out in its turn.
    pub(super) fn put(&mut self, held: Held, now: Instant) {
        let Some(key) = held.key().map(str::to_owned) else {
            return match held.wait(now).is_zero() {
                true => self.free.push_back(held),
                false => self.rest(now + held.wait(now), Resting::Free(Box::new(held))),
            };
        };
        match self.keys.get_mut(&key) {
            Some(waiting) => waiting.push_back(held),
            None => {
                self.keys.insert(key.clone(), VecDeque::from([held]));
                self.schedule(key, now);
            }
        }
    }

    /// What may go out now, at most so many.
    pub(super) fn take(&mut self, max: usize, now: Instant) -> Vec<Delivery> {
        self.wake(now);
        let mut taken = Vec::new();
        while taken.len() < max {
            // By turns, so that neither kind starves the other.
            let keyed = match taken.len() % 2 == 0 {
                true => self.take_keyed().or_else(|| self.free.pop_front()),
                false => self.free.pop_front().or_else(|| self.take_keyed()),
            };
            let Some(mut held) = keyed else { break };
            held.turn = held.turn.wrapping_add(1);
            taken.push(self.delivery(&held));
            self.out.insert((held.source, held.tag), held);
        }
        taken
    }

    /// When something will be due, if anything rests.
    pub(super) fn next_due(&self) -> Option<Instant> {
        self.resting.keys().next().map(|(at, _)| *at)
    }

    /// Whether a receipt is still worth something.
    pub(super) fn is_out(&self, receipt: &Receipt) -> bool {
        let (generation, turn, place) = read(receipt);
        let held = self.out.get(&place);
        generation == self.generation && held.is_some_and(|held| held.turn == turn)
    }

    /// Ends a delivery, if its receipt is worth something. Its key waits until `done` or `put_back`.
    pub(super) fn end(&mut self, receipt: &Receipt) -> Option<Held> {
        match self.is_out(receipt) {
            true => self.out.remove(&read(receipt).2),
            false => None,
        }
    }

    /// It could not be settled, and is out as before: the same receipt settles it.
    pub(super) fn restore(&mut self, held: Held) {
        self.out.insert((held.source, held.tag), held);
    }

    /// It will not come back: the next of its key may go out.
    pub(super) fn done(&mut self, key: Option<&str>, now: Instant) {
        let Some(key) = key else { return };
        match self.keys.get(key) {
            Some(waiting) if waiting.is_empty() => {
                self.keys.remove(key);
            }
            Some(_) => self.schedule(key.to_owned(), now),
            None => {}
        }
    }

    /// It comes back to where it was: before all that came later.
    pub(super) fn put_back(&mut self, held: Held, now: Instant) {
        match held.key().map(str::to_owned) {
            Some(key) => {
                self.keys.entry(key.clone()).or_default().push_front(held);
                self.schedule(key, now);
            }
            None if held.wait(now).is_zero() => self.free.push_front(held),
            None => self.rest(now + held.wait(now), Resting::Free(Box::new(held))),
        }
    }

    /// How to tell the broker that these tags are settled: those with `true` stand for all tags up
    /// to them.
    pub(super) fn settle(&mut self, source: u8, tags: &[u64]) -> Vec<(u64, bool)> {
        let Some(unsettled) = self.unsettled.get_mut(usize::from(source)) else {
            return Vec::new();
        };
        let mut tags: BTreeSet<u64> = tags.iter().copied().collect();
        tags.retain(|tag| unsettled.remove(tag));
        let first_left = unsettled.first().copied().unwrap_or(u64::MAX);
        let later = tags.split_off(&first_left);
        let covered = tags.last().map(|tag| (*tag, true)).into_iter();
        covered
            .chain(later.into_iter().map(|tag| (tag, false)))
            .collect()
    }

    /// How many messages without a key the broker thinks are ours.
    pub(super) fn free_unsettled(&self) -> usize {
        self.unsettled.first().map_or(0, BTreeSet::len)
    }

    /// Whether there are messages without a key that could be handed out.
    pub(super) fn has_free(&self) -> bool {
        !self.free.is_empty()
    }

    /// What has no key and was not handed out, for giving back.
    pub(super) fn drain_free(&mut self) -> Vec<Held> {
        let mut all: Vec<Held> = self.free.drain(..).collect();
        for (_, resting) in std::mem::take(&mut self.resting) {
            if let Resting::Free(held) = resting {
                all.push(*held);
            }
        }
        all
    }

    fn take_keyed(&mut self) -> Option<Held> {
        let key = self.runnable.pop_front()?;
        self.keys.get_mut(&key)?.pop_front()
    }

    fn schedule(&mut self, key: String, now: Instant) {
        let Some(first) = self.keys.get(&key).and_then(VecDeque::front) else {
            return;
        };
        match first.wait(now) {
            Duration::ZERO => self.runnable.push_back(key),
            wait => self.rest(now + wait, Resting::Key(key)),
        }
    }

    fn rest(&mut self, until: Instant, what: Resting) {
        self.rests += 1;
        self.resting.insert((until, self.rests), what);
    }

    fn wake(&mut self, now: Instant) {
        while let Some(first) = self.resting.first_entry() {
            if first.key().0 > now {
                return;
            }
            match first.remove() {
                Resting::Key(key) => self.runnable.push_back(key),
                Resting::Free(held) => self.free.push_back(*held),
            }
        }
    }

    fn delivery(&self, held: &Held) -> Delivery {
        let place = i64::try_from(held.tag).unwrap_or(i64::MAX);
        let token = (i64::from(self.generation) << 24)
            | (i64::from(held.turn) << 8)
            | i64::from(held.source);
        Delivery {
            message: held.letter.message.clone(),
            receipt: Receipt::new(place, token),
            attempt: held.letter.attempts.saturating_add(1),
            first_enqueued_at: held.letter.at,
            redelivered: held.letter.handed || held.turn > 1,
        }
    }
}

/// Generation, turn, and source with tag.
#[expect(
    clippy::cast_possible_truncation,
    clippy::cast_sign_loss,
    reason = "the parts are cut out of the number that `delivery` made of them"
)]
fn read(receipt: &Receipt) -> (u32, u16, (u8, u64)) {
    let token = receipt.token();
    let place = (token as u8, receipt.place() as u64);
    ((token >> 24) as u32, (token >> 8) as u16, place)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::queue::Message;
    use crate::queue::rabbitmq::topology::source_of;

    fn arrive(desk: &mut Desk, tag: u64, key: Option<&str>, delay: Duration) {
        let mut message = Message::new(format!("{tag}")).delay(delay);
        message.key = key.map(str::to_owned);
        let letter = Letter::new(&message, SystemTime::now());
        let source = source_of(letter.message.key.as_deref());
        desk.received(source, tag);
        desk.put(Held::new(letter, source, tag), Instant::now());
    }

    fn take(desk: &mut Desk) -> Vec<(u64, Receipt)> {
        let taken = desk.take(100, Instant::now()).into_iter();
        let number = |delivery: &Delivery| {
            String::from_utf8_lossy(&delivery.message.payload)
                .parse()
                .unwrap()
        };
        taken
            .map(|delivery| (number(&delivery), delivery.receipt))
            .collect()
    }

    fn numbers(taken: &[(u64, Receipt)]) -> Vec<u64> {
        let mut numbers: Vec<_> = taken.iter().map(|(number, _)| *number).collect();
        numbers.sort_unstable();
        numbers
    }

    #[test]
    fn of_each_key_one_is_out_and_the_next_follows_when_it_is_done() {
        let mut desk = Desk::new(1);
        for (tag, key) in [(1, "a"), (2, "a"), (3, "b"), (4, "a")] {
            arrive(&mut desk, tag, Some(key), Duration::ZERO);
        }
        arrive(&mut desk, 5, None, Duration::ZERO);
        arrive(&mut desk, 6, None, Duration::ZERO);
        let taken = take(&mut desk);
        assert_eq!(numbers(&taken), [1, 3, 5, 6]);
        assert!(take(&mut desk).is_empty());
        let first = taken.iter().find(|(number, _)| *number == 1).unwrap();
        assert!(desk.end(&first.1).is_some());
        assert!(take(&mut desk).is_empty(), "not before it is done");
        desk.done(Some("a"), Instant::now());
        assert_eq!(numbers(&take(&mut desk)), [2]);
    }

    #[test]
    fn what_failed_comes_before_what_came_later_and_its_old_receipt_is_worth_nothing() {
        let mut desk = Desk::new(1);
        arrive(&mut desk, 1, Some("a"), Duration::ZERO);
        arrive(&mut desk, 2, Some("a"), Duration::ZERO);
        let old = take(&mut desk).remove(0).1;
        let mut held = desk.end(&old).unwrap();
        held.try_again(Duration::from_secs(60), "no".to_owned(), Instant::now());
        desk.put_back(held, Instant::now());
        assert!(take(&mut desk).is_empty(), "the key waits with it");
        let later = Instant::now() + Duration::from_secs(61);
        assert!(desk.next_due().unwrap() < later);
        let again = desk.take(10, later).remove(0);
        assert_eq!((&again.message.payload[..], again.attempt), (&b"1"[..], 2));
        assert!(!desk.is_out(&old));
        assert!(desk.end(&old).is_none());
        assert!(desk.end(&again.receipt).is_some());
    }

    #[test]
    fn what_is_not_due_waits_and_only_its_key_waits_with_it() {
        let mut desk = Desk::new(1);
        arrive(&mut desk, 1, Some("a"), Duration::from_secs(60));
        arrive(&mut desk, 2, Some("a"), Duration::ZERO);
        arrive(&mut desk, 3, None, Duration::from_secs(60));
        arrive(&mut desk, 4, Some("b"), Duration::ZERO);
        assert_eq!(numbers(&take(&mut desk)), [4]);
        let later = Instant::now() + Duration::from_secs(61);
        assert_eq!(desk.take(10, later).len(), 2);
    }

    #[test]
    fn a_receipt_of_channels_that_are_gone_is_worth_nothing() {
        let mut old = Desk::new(1);
        arrive(&mut old, 1, None, Duration::ZERO);
        let receipt = take(&mut old).remove(0).1;
        let mut new = Desk::new(2);
        arrive(&mut new, 1, None, Duration::ZERO);
        assert_eq!(take(&mut new).len(), 1);
        assert!(new.end(&receipt).is_none());
    }

    #[test]
    fn settling_speaks_for_all_up_to_a_tag_only_if_all_are_settled() {
        let mut desk = Desk::new(1);
        for tag in 1..=6 {
            desk.received(0, tag);
        }
        assert_eq!(desk.settle(0, &[2]), [(2, false)]);
        assert_eq!(desk.settle(0, &[1, 3, 5]), [(3, true), (5, false)]);
        assert_eq!(
            desk.settle(0, &[5]),
            [],
            "never twice: the broker would close the channel"
        );
        assert_eq!(desk.settle(0, &[4, 6]), [(6, true)]);
        assert_eq!(desk.settle(200, &[1]), []);
    }
}
