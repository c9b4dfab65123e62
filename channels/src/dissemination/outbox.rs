//! Announcements that wait to be sent together.
//!
//! The first goes at once. What follows within [`COALESCE`] of the last sending waits until that has passed, so that
//! a channel of many small blocks sends a few frames for many; a block over [`SMALL_BLOCK_BYTES`] waits for nothing, and takes
//! along what waits.

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use grapevine_crypto::PkiId;

use crate::time::Time;
use crate::wire::{MANIFESTS_PER_FRAME_MAX, Manifest};

/// Longest wait of an announcement.
pub(super) const COALESCE: Duration = Duration::from_millis(50);
/// Larger blocks are announced at once.
pub(super) const SMALL_BLOCK_BYTES: usize = 64 << 10;

/// What the leader says of one block.
#[derive(Debug)]
pub(super) struct Planned {
    /// For everybody the same, but for the arrival.
    pub(super) manifest: Manifest,
    /// When the plan began.
    pub(super) since: Time,
    /// When each member should have the block, from then on.
    pub(super) arrivals: BTreeMap<PkiId, Duration>,
}

/// What waits. See the module's header.
#[derive(Debug, Default)]
pub(super) struct Outbox {
    /// This peer leads and sends these out.
    pub(super) planned: Vec<Planned>,
    /// This peer is one of those that tell everybody.
    pub(super) for_all: BTreeSet<u64>,
    /// This peer tells a few.
    pub(super) for_few: BTreeSet<u64>,
    due: Option<Time>,
    sent: Option<Time>,
}

impl Outbox {
    /// A block of this size was put in.
    pub(super) fn handle_put(&mut self, now: Time, size: usize) {
        let waiting = self.planned.len().max(self.for_all.len()).max(self.for_few.len());
        let full = waiting >= MANIFESTS_PER_FRAME_MAX;
        let due = match self.sent {
            Some(sent) if size <= SMALL_BLOCK_BYTES && !full => (sent + COALESCE).max(now),
            _ => now,
        };
        self.due = Some(self.due.map_or(due, |former| former.min(due)));
    }

    /// What is to be sent now, if anything is.
    pub(super) fn take(&mut self, now: Time) -> Option<Self> {
        self.due.take_if(|due| *due <= now)?;
        let taken = std::mem::take(self);
        self.sent = Some(now);
        Some(taken)
    }

    /// When [`Outbox::take`] has something next.
    pub(super) fn next_deadline(&self) -> Option<Time> {
        self.due
    }
}

/// Ascending numbers as inclusive ranges, flattened.
pub(super) fn ranges(numbers: impl Iterator<Item = u64>) -> Vec<u64> {
    let mut ranges: Vec<u64> = Vec::new();
    for number in numbers {
        match ranges.last_mut() {
            Some(last) if last.checked_add(1) == Some(number) => *last = number,
            _ => ranges.extend([number, number]),
        }
    }
    ranges
}

#[cfg(test)]
mod tests {
    use super::*;

    fn at(milliseconds: u64) -> Time {
        Time::from_millis(milliseconds)
    }

    #[test]
    fn the_first_goes_at_once_and_the_next_wait_together() {
        let mut outbox = Outbox::default();
        outbox.for_few.insert(1);
        outbox.handle_put(at(100), 10);
        assert_eq!(outbox.take(at(100)).unwrap().for_few, [1].into());
        for number in 2..5 {
            outbox.for_few.insert(number);
            outbox.handle_put(at(100 + number), 10);
            assert!(outbox.take(at(100 + number)).is_none());
        }
        assert_eq!(outbox.next_deadline(), Some(at(150)));
        assert_eq!(outbox.take(at(150)).unwrap().for_few, [2, 3, 4].into());
        assert_eq!(outbox.next_deadline(), None);
        outbox.handle_put(at(300), 10);
        assert!(outbox.take(at(300)).is_some(), "a quiet channel waits for nothing");
    }

    #[test]
    fn a_large_block_waits_for_nothing() {
        let mut outbox = Outbox::default();
        outbox.handle_put(at(0), 10);
        outbox.take(at(0));
        outbox.handle_put(at(1), 10);
        assert!(outbox.take(at(1)).is_none());
        outbox.handle_put(at(2), SMALL_BLOCK_BYTES + 1);
        assert!(outbox.take(at(2)).is_some());
    }

    #[test]
    fn numbers_become_ranges() {
        assert_eq!(ranges([3, 4, 5, 9, u64::MAX].into_iter()), vec![3, 5, 9, 9, u64::MAX, u64::MAX]);
        assert_eq!(ranges([].into_iter()), Vec::<u64>::new());
    }
}
