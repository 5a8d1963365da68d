//! What a member owns: its partitions, what was read of each, and how far that is committed.
//!
//! In memory, and without a thought for who calls: `member` puts it under its lock.

use std::collections::BTreeMap;

use super::marks::Marks;
use super::place::{Place, parts};
use super::record::Taken;
use super::window::Window;
use crate::queue::{Delivery, Receipt};

pub(super) struct Holdings {
    partitions: BTreeMap<i32, Owned>,
    /// Numbers ownerships and leases; never the same twice in a process's lifetime, by chance in no
    /// two members.
    counter: i64,
    /// The partition that was served last, so that a busy one does not starve the others.
    served: i32,
}

/// A partition of ours.
struct Owned {
    /// This ownership: a partition that was lost and came back is another one.
    epoch: i64,
    window: Window<Taken>,
    changes: u64,
    committed: u64,
    /// About to go to somebody else: nothing more is handed out.
    going: bool,
    paused: bool,
}

/// A partition whose state differs from what is committed.
pub(super) struct Changed {
    pub(super) partition: i32,
    pub(super) marks: Marks,
    epoch: i64,
    changes: u64,
}

impl Holdings {
    pub(super) fn new() -> Self {
        Self {
            partitions: BTreeMap::new(),
            counter: i64::from(rand::random::<u32>()) << 30,
            served: 0,
        }
    }

    /// Takes up to `max` that are due.
    pub(super) fn take(&mut self, max: usize, now_ms: u64) -> Vec<(Place, Delivery)> {
        let mut taken = Vec::new();
        // Around the circle, from the one after the last that was served.
        let (before, after): (Vec<i32>, Vec<i32>) = self
            .partitions
            .keys()
            .partition(|partition| **partition <= self.served);
        for partition in after.into_iter().chain(before) {
            let Some(owned) = self.partitions.get_mut(&partition) else {
                continue;
            };
            while !owned.going && taken.len() < max {
                self.counter += 1;
                let lease = self.counter;
                let Some((offset, attempt)) = owned.window.lease(lease, now_ms) else {
                    break;
                };
                let Some(value) = owned.window.value(offset) else {
                    break;
                };
                let place = Place {
                    partition,
                    epoch: owned.epoch,
                    offset,
                    lease,
                };
                let delivery = Delivery {
                    message: value.message.clone(),
                    receipt: place.receipt(),
                    attempt,
                    first_enqueued_at: value.enqueued_at,
                    redelivered: attempt > 1,
                };
                taken.push((place, delivery));
                owned.changes += 1;
                self.served = partition;
            }
        }
        taken
    }

    /// Puts back what was taken and never reached anybody.
    pub(super) fn untake(&mut self, places: impl Iterator<Item = Place>) {
        for place in places {
            if let Some(owned) = self.partitions.get_mut(&place.partition)
                && owned.window.release(place.offset, place.lease)
            {
                owned.changes += 1;
            }
        }
    }

    /// Settles what `settle` says true to: its place, or `None` if its lease was lost.
    pub(super) fn settle(
        &mut self,
        receipt: &Receipt,
        settle: impl FnOnce(&mut Window<Taken>, i64, i64) -> bool,
    ) -> Option<Place> {
        let (partition, offset) = parts(receipt);
        let lease = receipt.token();
        let owned = self.partitions.get_mut(&partition)?;
        if !settle(&mut owned.window, offset, lease) {
            return None;
        }
        owned.changes += 1;
        Some(Place {
            partition,
            epoch: owned.epoch,
            offset,
            lease,
        })
    }

    /// The message and attempts behind a receipt that still holds.
    pub(super) fn held(&self, receipt: &Receipt) -> Option<(Taken, u32)> {
        let (partition, offset) = parts(receipt);
        let window = &self.partitions.get(&partition)?.window;
        if !window.holds(offset, receipt.token()) {
            return None;
        }
        Some((window.value(offset)?.clone(), window.attempts(offset)?))
    }

    /// Which of the places belong to an ownership that has ended.
    pub(super) fn lost(&self, places: &[Place]) -> Vec<Place> {
        let is_lost = |place: &&Place| {
            let owned = self.partitions.get(&place.partition);
            owned.is_none_or(|owned| owned.epoch != place.epoch)
        };
        places.iter().filter(is_lost).copied().collect()
    }

    pub(super) fn changed(&self) -> Vec<Changed> {
        let changed = self.partitions.iter();
        let changed = changed.filter(|(_, owned)| owned.changes > owned.committed);
        let changed = changed.filter_map(|(partition, owned)| {
            Some(Changed {
                partition: *partition,
                epoch: owned.epoch,
                changes: owned.changes,
                marks: owned.window.marks()?,
            })
        });
        changed.collect()
    }

    pub(super) fn committed(&mut self, changed: &[Changed]) {
        for changed in changed {
            if let Some(owned) = self.partitions.get_mut(&changed.partition)
                && owned.epoch == changed.epoch
            {
                owned.committed = changed.changes;
            }
        }
    }

    /// When something can be taken that cannot be now.
    pub(super) fn next_due_ms(&self) -> Option<u64> {
        let dues = self.partitions.values().filter(|owned| !owned.going);
        dues.filter_map(|owned| owned.window.next_due_ms()).min()
    }

    /// Forgets what was read: it was purged.
    pub(super) fn purge(&mut self) {
        for owned in self.partitions.values_mut() {
            owned.window.clear();
            owned.changes += 1;
        }
    }

    /// Something was read, for this group or for another one alone. Whether it can be taken.
    pub(super) fn read(&mut self, partition: i32, offset: i64, taken: Taken, ours: bool) -> bool {
        let Some(owned) = self.partitions.get_mut(&partition) else {
            return false;
        };
        let (key, due_ms) = (taken.message.key.clone(), taken.due_ms);
        let value = ours.then_some(taken);
        let can_be_taken = owned.window.read(offset, key, due_ms, value);
        if !can_be_taken {
            // It counts as done, and the offset to commit has moved.
            owned.changes += 1;
        }
        can_be_taken
    }

    /// Partitions to read no further for now, and others to go on with.
    pub(super) fn flow(&mut self, prefetch: usize) -> (Vec<i32>, Vec<i32>) {
        let (mut pause, mut resume) = (Vec::new(), Vec::new());
        for (partition, owned) in &mut self.partitions {
            let unread = owned.window.len().saturating_sub(owned.window.leased());
            if !owned.paused && unread >= prefetch {
                owned.paused = true;
                pause.push(*partition);
            } else if owned.paused && unread <= prefetch / 2 {
                owned.paused = false;
                resume.push(*partition);
            }
        }
        (pause, resume)
    }

    /// These are ours from now on, with what was committed of them.
    pub(super) fn add(&mut self, partitions: Vec<(i32, Option<Marks>)>) {
        for (partition, marks) in partitions {
            self.counter += 1;
            let owned = Owned {
                epoch: self.counter,
                window: Window::new(marks),
                changes: 0,
                committed: 0,
                going: false,
                paused: false,
            };
            self.partitions.insert(partition, owned);
        }
    }

    /// Hands out nothing more of these. How many messages of theirs are being worked on.
    pub(super) fn let_go(&mut self, partitions: &[i32]) -> usize {
        let mut busy = 0;
        for partition in partitions {
            if let Some(owned) = self.partitions.get_mut(partition) {
                owned.going = true;
                busy += owned.window.leased();
            }
        }
        busy
    }

    /// These are ours no more.
    pub(super) fn remove(&mut self, partitions: &[i32]) {
        for partition in partitions {
            self.partitions.remove(partition);
        }
    }

    pub(super) fn clear(&mut self) {
        self.partitions.clear();
    }
}
