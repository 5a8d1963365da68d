//! Which message may be begun next: the order of each key, inside one worker.
//!
//! A batch may hold several messages of one key. Prefetching them and handing each to the next free
//! hand would run them side by side: the trap of every queue that prefetches. Here each key is a
//! lane with at most one message running; the others wait behind it, and if it fails they are not
//! begun but given back, since the failed one must come first.
//!
//! Nothing but data, so that models can drive it through every order of events.

use std::collections::{HashMap, VecDeque};

/// Messages (or what stands for them) that were taken and not begun, and keys that are busy.
#[derive(Debug)]
pub struct Lanes<T> {
    /// May begin at once, in the order of their arrival.
    ready: VecDeque<(Option<String>, T)>,
    /// Keys with a message in `ready` or running, and those that wait behind it.
    busy: HashMap<String, VecDeque<T>>,
    waiting: usize,
}

impl<T> Default for Lanes<T> {
    fn default() -> Self {
        Self {
            ready: VecDeque::new(),
            busy: HashMap::new(),
            waiting: 0,
        }
    }
}

impl<T> Lanes<T> {
    /// How many were taken and not begun.
    pub fn len(&self) -> usize {
        self.ready.len() + self.waiting
    }

    /// Whether there are none.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// One more was taken.
    pub fn push(&mut self, key: Option<&str>, item: T) {
        if let Some(key) = key {
            if let Some(behind) = self.busy.get_mut(key) {
                behind.push_back(item);
                self.waiting += 1;
                return;
            }
            self.busy.insert(key.to_owned(), VecDeque::new());
        }
        self.ready.push_back((key.map(str::to_owned), item));
    }

    /// The next to begin. Its key is busy until `done` or `failed`.
    pub fn begin(&mut self) -> Option<T> {
        self.ready.pop_front().map(|(_, item)| item)
    }

    /// The running message of this key is done: the next one may begin.
    pub fn done(&mut self, key: &str) {
        let Some(behind) = self.busy.get_mut(key) else {
            return;
        };
        match behind.pop_front() {
            Some(next) => {
                self.waiting -= 1;
                self.ready.push_back((Some(key.to_owned()), next));
            }
            None => {
                self.busy.remove(key);
            }
        }
    }

    /// The running message of this key failed, or was lost. Those behind it are handed back, in
    /// their order: they must not be begun.
    pub fn failed(&mut self, key: &str) -> Vec<T> {
        let behind = self.busy.remove(key).unwrap_or_default();
        self.waiting -= behind.len();
        behind.into()
    }

    /// Takes out those that were not begun and for which `is_lost` holds. Of a key all go with the
    /// first: what comes behind a message that somebody else has must not be begun.
    pub fn remove(&mut self, mut is_lost: impl FnMut(&T) -> bool) -> Vec<T> {
        let mut removed = Vec::new();
        let mut kept = VecDeque::with_capacity(self.ready.len());
        for (key, item) in std::mem::take(&mut self.ready) {
            if !is_lost(&item) {
                kept.push_back((key, item));
                continue;
            }
            removed.push(item);
            if let Some(key) = key {
                removed.extend(self.failed(&key));
            }
        }
        self.ready = kept;
        for behind in self.busy.values_mut() {
            if let Some(first) = behind.iter().position(&mut is_lost) {
                self.waiting -= behind.len() - first;
                removed.extend(behind.drain(first..));
            }
        }
        removed
    }

    /// All that were not begun, in no order.
    pub fn iter_mut(&mut self) -> impl Iterator<Item = &mut T> {
        let ready = self.ready.iter_mut().map(|(_, item)| item);
        ready.chain(self.busy.values_mut().flatten())
    }

    /// Everything that was not begun, taken out. Keys whose message runs stay busy.
    pub fn clear(&mut self) -> Vec<T> {
        let mut all = Vec::with_capacity(self.len());
        for (key, item) in std::mem::take(&mut self.ready) {
            all.push(item);
            if let Some(key) = key {
                all.extend(self.failed(&key));
            }
        }
        for behind in self.busy.values_mut() {
            all.extend(behind.drain(..));
        }
        self.waiting = 0;
        all
    }
}

#[cfg(test)]
mod tests {
    use super::Lanes;

    fn begun(lanes: &mut Lanes<&'static str>) -> Vec<&'static str> {
        std::iter::from_fn(|| lanes.begin()).collect()
    }

    #[test]
    fn one_of_a_key_at_a_time_and_in_order() {
        let mut lanes = Lanes::default();
        for (key, item) in [("a", "a1"), ("a", "a2"), ("b", "b1"), ("a", "a3")] {
            lanes.push(Some(key), item);
        }
        lanes.push(None, "x");
        lanes.push(None, "y");
        assert_eq!(lanes.len(), 6);
        assert_eq!(begun(&mut lanes), ["a1", "b1", "x", "y"]);
        lanes.done("b");
        assert_eq!(begun(&mut lanes), [""; 0]);
        lanes.done("a");
        assert_eq!(begun(&mut lanes), ["a2"]);
        lanes.push(Some("a"), "a4");
        lanes.done("a");
        assert_eq!(begun(&mut lanes), ["a3"]);
        lanes.done("a");
        assert_eq!(begun(&mut lanes), ["a4"]);
        lanes.done("a");
        assert!(lanes.is_empty() && lanes.busy.is_empty());
    }

    #[test]
    fn what_waits_behind_a_failure_is_handed_back() {
        let mut lanes = Lanes::default();
        for item in ["a1", "a2", "a3"] {
            lanes.push(Some("a"), item);
        }
        lanes.push(Some("b"), "b1");
        assert_eq!(begun(&mut lanes), ["a1", "b1"]);
        assert_eq!(lanes.failed("a"), ["a2", "a3"]);
        assert!(lanes.is_empty());
        lanes.push(Some("a"), "a1 again");
        assert_eq!(begun(&mut lanes), ["a1 again"]);
    }

    #[test]
    fn what_is_lost_takes_along_what_comes_behind_it() {
        let mut lanes = Lanes::default();
        for item in ["a1", "a2"] {
            lanes.push(Some("a"), item);
        }
        for item in ["b1", "b2", "b3"] {
            lanes.push(Some("b"), item);
        }
        lanes.push(None, "x");
        assert_eq!(lanes.begin(), Some("a1"));
        let lost = lanes.remove(|item| ["b1", "a2"].contains(item));
        assert_eq!(lost, ["b1", "b2", "b3", "a2"]);
        assert_eq!(lanes.len(), 1);
        lanes.done("a");
        assert_eq!(begun(&mut lanes), ["x"]);
        assert!(lanes.busy.is_empty());
    }

    #[test]
    fn clearing_keeps_running_keys_busy() {
        let mut lanes = Lanes::default();
        for item in ["a1", "a2"] {
            lanes.push(Some("a"), item);
        }
        assert_eq!(lanes.begin(), Some("a1"));
        assert_eq!(lanes.clear(), ["a2"]);
        lanes.push(Some("a"), "a2 again");
        assert_eq!(lanes.begin(), None);
        lanes.push(Some("b"), "b1");
        assert_eq!(lanes.clear().len(), 2);
        lanes.push(Some("b"), "b1 again");
        assert_eq!(lanes.begin(), Some("b1 again"));
    }
}
