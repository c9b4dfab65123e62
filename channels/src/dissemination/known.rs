//! Which blocks a peer holds, as far as this peer was told.

use std::collections::BTreeSet;

/// Most block numbers remembered as held by one peer above its height; the lowest go first.
pub(super) const KNOWN_PER_PEER_MAX: usize = 256;

/// What one peer holds: everything below its height, and some above.
#[derive(Debug, Default)]
pub(super) struct Known {
    height: u64,
    above: BTreeSet<u64>,
}

impl Known {
    /// Whether it holds the block.
    pub(super) fn holds(&self, number: u64) -> bool {
        number < self.height || self.above.contains(&number)
    }

    /// It holds the block.
    pub(super) fn note(&mut self, number: u64) {
        if number >= self.height {
            self.above.insert(number);
            if self.above.len() > KNOWN_PER_PEER_MAX {
                self.above.pop_first();
            }
        }
    }

    /// Its ledger has this many blocks. A lower height than before changes nothing.
    pub(super) fn raise(&mut self, height: u64) {
        if height > self.height {
            self.height = height;
            self.above = self.above.split_off(&height);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_remembered_is_bounded_and_goes_with_the_height() {
        let mut known = Known::default();
        (0..2 * KNOWN_PER_PEER_MAX as u64).for_each(|number| known.note(number));
        assert_eq!(known.above.len(), KNOWN_PER_PEER_MAX);
        assert!(!known.holds(0) && known.holds(KNOWN_PER_PEER_MAX as u64));
        known.raise(10_000);
        assert!(known.above.is_empty() && known.holds(9_999) && !known.holds(10_000));
        known.raise(5);
        assert_eq!(known.height, 10_000);
    }
}
