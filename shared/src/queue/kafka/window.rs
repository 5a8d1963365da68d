//! One partition in the hands of one consumer: what was read and is not done.
//!
//! Kafka hands out a partition in order and remembers one offset. A queue lets its consumers finish
//! in any order, retries one message and not those behind it, and keeps the order of each key. This
//! is where the two are brought together; it knows no broker and no clock.
//!
//! ```text
//! ready   → leased    handed out; attempt + 1
//! leased  → gone      done, or given up
//! leased  → waiting   refused
//! leased  → ready     released, attempt - 1; or put back
//! waiting → leased    handed out when due
//! ```
//!
//! Everything else would be a mistake of the caller, and is answered with `false`.
//!
//! Of each key only the first message that is not done can be handed out. What is done is known by
//! not being there: from the first message that is up to `next`, what is missing is done.

use std::collections::{BTreeMap, BTreeSet, HashMap};

use super::marks::{MOST, Mark, Marks};

/// A message that was read and is not done.
#[derive(Debug)]
struct Entry<T> {
    value: T,
    key: Option<String>,
    attempts: u32,
    /// 0 if at once.
    due_ms: u64,
    /// The delivery that holds it.
    lease: Option<i64>,
}

/// See the module.
#[derive(Debug)]
pub(super) struct Window<T> {
    /// Offsets below were read, or are done.
    next: Option<i64>,
    /// None at or above was touched by anybody.
    touched: i64,
    entries: BTreeMap<i64, Entry<T>>,
    /// Of each key, what is not done.
    keys: HashMap<String, BTreeSet<i64>>,
    /// First of their key or without one, not leased, not due later than anybody asked.
    ready: BTreeSet<i64>,
    /// The same, to be had later.
    waiting: BTreeSet<(u64, i64)>,
    /// What an earlier owner of the partition committed, and was not read again yet.
    recalled: Marks,
}

impl<T> Window<T> {
    /// As the last owner left it; `None` if nobody ever committed.
    pub(super) fn new(committed: Option<Marks>) -> Self {
        let next = committed.as_ref().map(|marks| marks.base);
        let recalled = committed.unwrap_or_default();
        Self {
            next,
            touched: recalled.touched,
            entries: BTreeMap::new(),
            keys: HashMap::new(),
            ready: BTreeSet::new(),
            waiting: BTreeSet::new(),
            recalled,
        }
    }

    /// A message was read: `value` unless it is of no interest. True if somebody may want it.
    ///
    /// Offsets that were read before are passed over: a client that goes on after a pause may read
    /// some twice.
    pub(super) fn read(
        &mut self,
        offset: i64,
        key: Option<String>,
        due_ms: u64,
        value: Option<T>,
    ) -> bool {
        if self.next.is_some_and(|next| offset < next) {
            return false;
        }
        self.next = Some(offset + 1);
        let mut attempts = 0;
        let mut due_ms = due_ms;
        if offset < self.recalled.touched {
            let found = self
                .recalled
                .open
                .binary_search_by_key(&offset, |mark| mark.offset);
            let Ok(index) = found else {
                return false;
            };
            let mark = self.recalled.open[index];
            (attempts, due_ms) = (mark.attempts, mark.due_ms);
        }
        let Some(value) = value else {
            return false;
        };
        if let Some(key) = &key {
            self.keys.entry(key.clone()).or_default().insert(offset);
        }
        self.entries.insert(
            offset,
            Entry {
                value,
                key,
                attempts,
                due_ms,
                lease: None,
            },
        );
        self.offer(offset);
        true
    }

    /// Lists it where it can be found, if it is the first of its key.
    fn offer(&mut self, offset: i64) {
        let Some(entry) = self.entries.get(&offset) else {
            return;
        };
        let first = match &entry.key {
            None => true,
            Some(key) => self.keys.get(key).and_then(BTreeSet::first) == Some(&offset),
        };
        match (first && entry.lease.is_none(), entry.due_ms) {
            (false, _) => {}
            (true, 0) => {
                self.ready.insert(offset);
            }
            (true, due_ms) => {
                self.waiting.insert((due_ms, offset));
            }
        }
    }

    /// Hands out one that is due, to the delivery `lease`: its offset and the number of the attempt.
    ///
    /// None if there is none, or if what would have to be remembered about this partition no longer
    /// fits into a commit: then somebody has to finish first.
    pub(super) fn lease(&mut self, lease: i64, now_ms: u64) -> Option<(i64, u32)> {
        while let Some((due_ms, offset)) = self.waiting.first().copied()
            && due_ms <= now_ms
        {
            self.waiting.pop_first();
            self.ready.insert(offset);
        }
        let offset = *self.ready.first()?;
        if offset >= self.touched && self.entries.range(..=offset).count() > MOST {
            return None;
        }
        self.ready.pop_first();
        let entry = self.entries.get_mut(&offset)?;
        entry.lease = Some(lease);
        entry.due_ms = 0;
        entry.attempts = entry.attempts.saturating_add(1);
        self.touched = self.touched.max(offset + 1);
        Some((offset, entry.attempts))
    }

    /// A message that was read.
    pub(super) fn value(&self, offset: i64) -> Option<&T> {
        self.entries.get(&offset).map(|entry| &entry.value)
    }

    /// How often a message was handed out.
    pub(super) fn attempts(&self, offset: i64) -> Option<u32> {
        self.entries.get(&offset).map(|entry| entry.attempts)
    }

    /// Whether this delivery holds it.
    pub(super) fn holds(&self, offset: i64, lease: i64) -> bool {
        self.entries
            .get(&offset)
            .is_some_and(|entry| entry.lease == Some(lease))
    }

    /// Done, or given up.
    pub(super) fn done(&mut self, offset: i64, lease: i64) -> bool {
        if !self.holds(offset, lease) {
            return false;
        }
        let key = self.entries.remove(&offset).and_then(|entry| entry.key);
        if let Some(key) = key
            && let Some(offsets) = self.keys.get_mut(&key)
        {
            offsets.remove(&offset);
            match offsets.first().copied() {
                Some(first) => self.offer(first),
                None => {
                    self.keys.remove(&key);
                }
            }
        }
        true
    }

    /// Refused: not before `due_ms` again; 0 for at once.
    pub(super) fn refuse(&mut self, offset: i64, lease: i64, due_ms: u64) -> bool {
        self.put_back(offset, lease, due_ms, 0)
    }

    /// Not begun: the attempt does not count.
    pub(super) fn release(&mut self, offset: i64, lease: i64) -> bool {
        self.put_back(offset, lease, 0, 1)
    }

    fn put_back(&mut self, offset: i64, lease: i64, due_ms: u64, uncount: u32) -> bool {
        match self.entries.get_mut(&offset) {
            Some(entry) if entry.lease == Some(lease) => {
                entry.lease = None;
                entry.due_ms = due_ms;
                entry.attempts = entry.attempts.saturating_sub(uncount);
            }
            _ => return false,
        }
        self.offer(offset);
        true
    }

    /// What to commit. None if nothing was read or recalled, so that there is no offset to name.
    pub(super) fn marks(&self) -> Option<Marks> {
        let next = self.next?;
        // What was not read again yet is as open as it was, but nobody has it any more.
        let recalled = self.recalled.open.iter().filter(|mark| mark.offset >= next);
        let recalled = recalled.map(|mark| Mark {
            leased: false,
            ..*mark
        });
        let first_recalled = recalled.clone().next().map(|mark| mark.offset);
        let first_read = self.entries.keys().next().copied();
        let base = match (first_read, first_recalled) {
            (Some(read), _) => read,
            (None, Some(recalled)) => recalled,
            (None, None) => next.max(self.recalled.touched),
        };
        let read = self.entries.range(..self.touched);
        let read = read.map(|(offset, entry)| Mark {
            offset: *offset,
            attempts: entry.attempts,
            leased: entry.lease.is_some(),
            due_ms: entry.due_ms,
        });
        Some(Marks {
            base,
            touched: self.touched.max(base),
            open: read.chain(recalled).collect(),
        })
    }

    /// When the next one is due that waits for its time, in milliseconds since 1970.
    pub(super) fn next_due_ms(&self) -> Option<u64> {
        self.waiting.first().map(|(due_ms, _)| *due_ms)
    }

    /// How many were read and are not done.
    pub(super) fn len(&self) -> usize {
        self.entries.len()
    }

    /// How many are out.
    pub(super) fn leased(&self) -> usize {
        let leased = self.entries.values().filter(|entry| entry.lease.is_some());
        leased.count()
    }

    /// Forgets what was read, as if it were done.
    pub(super) fn clear(&mut self) {
        self.entries.clear();
        self.keys.clear();
        self.ready.clear();
        self.waiting.clear();
        self.recalled.open.clear();
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn fresh() -> Window<&'static str> {
        Window::new(None)
    }

    fn key(name: &str) -> Option<String> {
        Some(name.to_owned())
    }

    fn reopened(window: &Window<&'static str>) -> Window<&'static str> {
        let marks = window.marks().unwrap();
        Window::new(Some(Marks::read(marks.base, &marks.text())))
    }

    #[test]
    fn the_offset_to_commit_is_below_the_first_that_is_not_done() {
        let mut window = fresh();
        assert_eq!(window.marks(), None);
        for offset in 5..9 {
            assert!(window.read(offset, None, 0, Some("m")));
        }
        assert_eq!(window.marks(), Some(Marks::plain(5)));
        for lease in 0..3 {
            window.lease(lease, 0).unwrap();
        }
        assert!(window.done(6, 1));
        assert!(window.done(7, 2));
        let marks = window.marks().unwrap();
        assert_eq!((marks.base, marks.touched, marks.open.len()), (5, 8, 1));
        assert!(window.done(5, 0));
        assert_eq!(window.marks(), Some(Marks::plain(8)));
    }

    #[test]
    fn what_is_done_out_of_order_does_not_come_again_and_attempts_are_kept() {
        let mut window = fresh();
        for offset in 0..4 {
            window.read(offset, None, 0, Some("m"));
        }
        for lease in 0..3 {
            window.lease(lease, 0).unwrap();
        }
        assert!(window.done(1, 1));
        assert!(window.refuse(2, 2, 9_000));
        let mut window = reopened(&window);
        // Before anything is read again nothing may get lost either.
        assert_eq!(reopened(&window).marks(), window.marks());
        for offset in 0..4 {
            window.read(offset, None, 0, Some("m"));
        }
        assert_eq!(window.lease(10, 0), Some((0, 2)));
        assert_eq!(window.lease(11, 0), Some((3, 1)));
        assert_eq!(window.lease(12, 8_999), None);
        assert_eq!(window.next_due_ms(), Some(9_000));
        assert_eq!(window.lease(12, 9_000), Some((2, 2)));
    }

    #[test]
    fn a_key_has_one_message_out_and_waits_for_its_retry_while_others_go_on() {
        let mut window = fresh();
        window.read(0, key("a"), 0, Some("a0"));
        window.read(1, key("a"), 0, Some("a1"));
        window.read(2, key("b"), 0, Some("b0"));
        assert_eq!(window.lease(0, 0), Some((0, 1)));
        assert_eq!(window.lease(1, 0), Some((2, 1)));
        assert_eq!(window.lease(2, 0), None);
        assert!(window.refuse(0, 0, 50));
        assert_eq!(window.lease(2, 49), None);
        assert_eq!(window.lease(3, 50), Some((0, 2)));
        assert_eq!(window.lease(4, 50), None);
        assert!(window.done(0, 3));
        assert_eq!(window.lease(4, 50), Some((1, 1)));
    }

    #[test]
    fn a_delayed_message_holds_its_key_back_and_nobody_else() {
        let mut window = fresh();
        window.read(0, key("a"), 70, Some("later"));
        window.read(1, key("a"), 0, Some("behind it"));
        window.read(2, None, 0, Some("free"));
        assert_eq!(window.lease(0, 0), Some((2, 1)));
        assert_eq!(window.lease(1, 69), None);
        // The one behind is not done, and the new owner must know.
        let mut window = reopened(&window);
        window.read(0, key("a"), 70, Some("later"));
        window.read(1, key("a"), 0, Some("behind it"));
        assert_eq!(window.lease(1, 69), None);
        assert_eq!(window.lease(1, 70), Some((0, 1)));
    }

    #[test]
    fn a_receipt_of_an_earlier_delivery_settles_nothing() {
        let mut window = fresh();
        window.read(0, None, 0, Some("m"));
        window.lease(7, 0).unwrap();
        assert!(!window.done(0, 6));
        assert!(window.refuse(0, 7, 0));
        assert!(!window.done(0, 7));
        assert_eq!(window.lease(8, 0), Some((0, 2)));
        assert!(window.release(0, 8));
        assert_eq!(window.lease(9, 0), Some((0, 2)));
        assert!(!window.release(0, 8) && !window.refuse(0, 8, 0) && !window.done(1, 9));
        assert!(window.done(0, 9));
    }

    #[test]
    fn what_is_of_no_interest_and_what_is_read_twice_counts_as_done() {
        let mut window = fresh();
        assert!(window.read(3, None, 0, Some("m")));
        assert!(!window.read(4, None, 0, None));
        assert!(!window.read(3, None, 0, Some("again")));
        window.lease(0, 0).unwrap();
        assert!(window.done(3, 0));
        assert_eq!(window.marks(), Some(Marks::plain(5)));
    }

    #[test]
    fn it_stops_handing_out_before_the_commit_is_full_and_goes_on_afterwards() {
        let mut window = fresh();
        let many = MOST as i64 + 50;
        for offset in 0..many {
            window.read(offset, None, 0, Some("m"));
        }
        let mut leases = 0;
        while window.lease(leases, 0).is_some() {
            leases += 1;
        }
        assert_eq!(leases, MOST as i64);
        assert!(window.marks().unwrap().open.len() <= MOST);
        assert!(window.done(200, 200));
        assert_eq!(window.lease(leases, 0), Some((leases, 1)));
    }
}
