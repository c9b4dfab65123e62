//! The in-order buffer between verified blocks and the ledger.
//!
//! # Promise
//! Blocks leave for the ledger in order of their number, each linked to the one before by its previous hash: number
//! and link are checked here, before anything is written. Authentic blocks that came early wait; of two authentic
//! blocks at one number the first stays, and the other is reported as a conflict, since only orderers that sign twice can
//! make one.
//!
//! # Bounds
//! At most `buffer_blocks` numbers above the committed height are kept, and at most [`PENDING_BYTES_MAX`] of them over all channels
//! ([`Chain::set_pending_bytes_max`]), the next needed one always; what lies further is dropped (it comes again by reconciliation). At most
//! [`COMMITS_IN_FLIGHT_MAX`] blocks or [`COMMIT_BYTES_IN_FLIGHT_MAX`] wait for the disk. The header hashes of the last [`HASHES_MAX`] blocks
//! are remembered, for comparing with others. The last `recent_blocks`
//! committed ones, at most [`RECENT_BYTES_MAX`], stay in memory for peers that ask.

use std::collections::BTreeMap;

use grapevine_crypto::Digest;

use crate::block::AuthenticBlock;

/// Most bytes of blocks on their way to the ledger, over all channels: asked for, being verified, early, waiting for the disk.
pub const PENDING_BYTES_MAX: usize = 32 << 20;
/// Most blocks handed to the ledger and not yet committed.
pub const COMMITS_IN_FLIGHT_MAX: u64 = 1_024;
/// Bytes handed to the ledger after which no more follow until some are committed.
pub const COMMIT_BYTES_IN_FLIGHT_MAX: usize = 16 << 20;
/// Most header hashes remembered.
pub const HASHES_MAX: usize = 2_048;
/// Most bytes of committed blocks kept in memory.
pub const RECENT_BYTES_MAX: usize = 4 << 20;

/// What became of a block that was offered.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Offer {
    /// Kept: it is new.
    Accepted,
    /// Kept already, or on its way to the ledger.
    Known,
    /// A block of this number is committed, too long ago for its hash to be in memory: the ledger knows whether it is this one.
    Committed,
    /// Too far ahead, or over the bytes bound.
    TooFar,
    /// Another authentic block is kept at this number.
    Conflict {
        /// The one that stays.
        kept: Digest,
    },
}

/// A block this peer can hand out.
#[derive(Debug, Clone, PartialEq)]
pub enum Held {
    /// In memory.
    Memory(AuthenticBlock),
    /// Committed long ago: in the ledger.
    Ledger(u64),
}

/// Counts of what was dropped.
#[derive(Debug, Default, Clone, PartialEq, Eq)]
pub struct ChainCounters {
    /// Blocks too far ahead or over the bytes bound.
    pub too_far: u64,
    /// Authentic blocks that did not link to the tip.
    pub unlinked: u64,
    /// Second authentic blocks at one number.
    pub conflicts: u64,
}

/// The chain of one channel as it grows. Control plane of the ledger: it decides, the driver writes.
#[derive(Debug)]
pub struct Chain {
    buffer_blocks: u64,
    recent_blocks: usize,
    committed: u64,
    queued: u64,
    queued_tip: Digest,
    queued_bytes: usize,
    pending: BTreeMap<u64, AuthenticBlock>,
    pending_bytes: usize,
    pending_bytes_max: usize,
    recent: BTreeMap<u64, AuthenticBlock>,
    recent_bytes: usize,
    hashes: BTreeMap<u64, Digest>,
    counters: ChainCounters,
}

impl Chain {
    /// A ledger of `height` blocks whose highest has header hash `tip`.
    pub fn new(height: u64, tip: Digest, buffer_blocks: u64, recent_blocks: usize) -> Self {
        Self {
            buffer_blocks: buffer_blocks.max(1),
            recent_blocks,
            committed: height,
            queued: height,
            queued_tip: tip,
            queued_bytes: 0,
            pending: BTreeMap::new(),
            pending_bytes: 0,
            pending_bytes_max: PENDING_BYTES_MAX,
            recent: BTreeMap::new(),
            recent_bytes: 0,
            hashes: height.checked_sub(1).map(|last| (last, tip)).into_iter().collect(),
            counters: ChainCounters::default(),
        }
    }

    /// Number of blocks committed.
    pub fn height(&self) -> u64 {
        self.committed
    }

    /// The lowest number not yet handed to the ledger.
    pub fn next_needed(&self) -> u64 {
        self.queued
    }

    /// One past the highest number that would be kept now.
    pub fn window_end(&self) -> u64 {
        self.committed.saturating_add(self.buffer_blocks)
    }

    /// Whether the block of this number is committed, on its way to the ledger, or waiting.
    pub fn holds(&self, number: u64) -> bool {
        number < self.queued || self.pending.contains_key(&number)
    }

    /// The block of this number, to be sent to others.
    pub fn held(&self, number: u64) -> Option<Held> {
        let in_memory = self.recent.get(&number).or_else(|| self.pending.get(&number));
        match in_memory {
            Some(block) => Some(Held::Memory(block.clone())),
            None => (number < self.committed).then_some(Held::Ledger(number)),
        }
    }

    /// Header hash of the block kept in memory at this number.
    pub fn kept_hash(&self, number: u64) -> Option<Digest> {
        self.recent.get(&number).or_else(|| self.pending.get(&number)).map(AuthenticBlock::hash)
    }

    /// Header hash of the block at this number, if it is not too old and on its way to the ledger or in it.
    pub fn hash_at(&self, number: u64) -> Option<Digest> {
        self.hashes.get(&number).copied()
    }

    /// Header hash of the block before [`Self::next_needed`].
    pub fn next_previous_hash(&self) -> Digest {
        self.queued_tip
    }

    /// Bytes of early blocks and of blocks that wait for the disk.
    pub fn waiting_bytes(&self) -> usize {
        self.pending_bytes.saturating_add(self.queued_bytes)
    }

    /// Sets how many bytes of early blocks this channel may keep: [`PENDING_BYTES_MAX`] less what other channels hold.
    pub fn set_pending_bytes_max(&mut self, bytes_max: usize) {
        self.pending_bytes_max = bytes_max;
    }

    /// Takes an authentic block.
    pub fn offer(&mut self, block: AuthenticBlock) -> Offer {
        let number = block.number();
        if number < self.queued {
            return match self.recent.get(&number) {
                Some(kept) if kept.hash() != block.hash() => {
                    self.counters.conflicts += 1;
                    Offer::Conflict { kept: kept.hash() }
                }
                Some(_) => Offer::Known,
                None => Offer::Committed,
            };
        }
        if let Some(kept) = self.pending.get(&number) {
            if kept.hash() == block.hash() {
                return Offer::Known;
            }
            self.counters.conflicts += 1;
            return Offer::Conflict { kept: kept.hash() };
        }
        let is_next = number == self.queued;
        let full = self.pending_bytes.saturating_add(block.size()) > self.pending_bytes_max;
        if !is_next && (number >= self.window_end() || full) {
            self.counters.too_far += 1;
            return Offer::TooFar;
        }
        self.pending_bytes += block.size();
        self.pending.insert(number, block);
        Offer::Accepted
    }

    /// Counts a conflict that the ledger found.
    pub fn note_conflict(&mut self) {
        self.counters.conflicts += 1;
    }

    /// The next block to write, if it is here, links to the tip, and the disk is not too far behind. `Err` names a
    /// block that did not link; it is dropped.
    pub fn poll_commit(&mut self) -> Option<Result<AuthenticBlock, AuthenticBlock>> {
        let in_flight = self.queued - self.committed;
        if in_flight >= COMMITS_IN_FLIGHT_MAX || self.queued_bytes >= COMMIT_BYTES_IN_FLIGHT_MAX {
            return None;
        }
        let block = self.pending.remove(&self.queued)?;
        self.pending_bytes -= block.size();
        if block.previous_hash() != Some(self.queued_tip) {
            self.counters.unlinked += 1;
            return Some(Err(block));
        }
        self.queued += 1;
        self.queued_tip = block.hash();
        self.hashes.insert(block.number(), self.queued_tip);
        if self.hashes.len() > HASHES_MAX {
            self.hashes.pop_first();
        }
        self.queued_bytes += block.size();
        self.recent_bytes += block.size();
        self.recent.insert(block.number(), block.clone());
        Some(Ok(block))
    }

    /// The ledger has committed all blocks below `height`. Returns how many that are more than before, and their bytes.
    pub fn handle_committed(&mut self, height: u64) -> (u64, u64) {
        let height = height.min(self.queued);
        let (mut blocks, mut bytes) = (0u64, 0u64);
        for number in self.committed..height {
            let size = self.recent.get(&number).map_or(0, AuthenticBlock::size);
            self.queued_bytes = self.queued_bytes.saturating_sub(size);
            blocks += 1;
            bytes = bytes.saturating_add(size as u64);
        }
        self.committed = self.committed.max(height);
        self.trim_recent();
        (blocks, bytes)
    }

    /// The blocks others may ask for from memory, as inclusive ranges in order, flattened; at most `ranges_max`.
    pub fn recent_ranges(&self, ranges_max: usize) -> Vec<u64> {
        let mut ranges: Vec<u64> = Vec::new();
        for number in self.recent.keys().chain(self.pending.keys()).rev().copied() {
            let full = ranges.len() >= 2 * ranges_max;
            match ranges.last_mut() {
                Some(first) if number + 1 == *first => *first = number,
                _ if full => break,
                _ => ranges.extend([number, number]),
            }
        }
        // Built downwards as (last, first) pairs.
        ranges.reverse();
        ranges
    }

    /// Counts of what was dropped.
    pub fn counters(&self) -> &ChainCounters {
        &self.counters
    }

    /// Bytes of blocks held in memory.
    pub fn bytes_held(&self) -> usize {
        self.pending_bytes + self.recent_bytes
    }

    /// Blocks on their way to the ledger keep their place whatever the bounds say: `queued_bytes` counts them.
    fn trim_recent(&mut self) {
        while self.recent.len() > self.recent_blocks || self.recent_bytes > RECENT_BYTES_MAX {
            let Some(oldest) = self.recent.first_entry() else { return };
            if *oldest.key() >= self.committed {
                return;
            }
            self.recent_bytes -= oldest.remove().size();
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn chain_of(count: u64, size: usize) -> Vec<AuthenticBlock> {
        let mut previous = Digest([0; 32]);
        (1..=count)
            .map(|number| {
                let block = AuthenticBlock::simulated(number, previous, size);
                previous = block.hash();
                block
            })
            .collect()
    }

    fn new(buffer_blocks: u64) -> Chain {
        Chain::new(1, Digest([0; 32]), buffer_blocks, 4)
    }

    fn drain(chain: &mut Chain) -> Vec<u64> {
        std::iter::from_fn(|| chain.poll_commit()).map(|block| block.unwrap().number()).collect()
    }

    #[test]
    fn blocks_leave_in_order_whatever_order_they_come_in() {
        let blocks = chain_of(5, 10);
        let mut chain = new(8);
        for number in [3, 1, 5, 4] {
            assert_eq!(chain.offer(blocks[number - 1].clone()), Offer::Accepted);
        }
        assert_eq!(drain(&mut chain), vec![1]);
        assert_eq!(chain.offer(blocks[1].clone()), Offer::Accepted);
        assert_eq!(drain(&mut chain), vec![2, 3, 4, 5]);
        assert_eq!(chain.offer(blocks[1].clone()), Offer::Known);
    }

    #[test]
    fn a_block_that_does_not_link_is_dropped_and_its_place_stays_free() {
        let blocks = chain_of(2, 10);
        let mut chain = new(8);
        let stray = AuthenticBlock::simulated(1, Digest([9; 32]), 10);
        assert_eq!(chain.offer(stray.clone()), Offer::Accepted);
        assert_eq!(chain.poll_commit(), Some(Err(stray)));
        assert_eq!(chain.counters().unlinked, 1);
        assert_eq!(chain.next_needed(), 1);
        assert_eq!(chain.offer(blocks[0].clone()), Offer::Accepted);
        assert_eq!(drain(&mut chain), vec![1]);
    }

    #[test]
    fn the_first_of_two_authentic_blocks_stays() {
        let blocks = chain_of(2, 10);
        let mut chain = new(8);
        chain.offer(blocks[1].clone());
        let other = AuthenticBlock::simulated(2, Digest([9; 32]), 10);
        assert_eq!(chain.offer(other), Offer::Conflict { kept: blocks[1].hash() });
        chain.offer(blocks[0].clone());
        assert_eq!(drain(&mut chain), vec![1, 2]);
        let late = AuthenticBlock::simulated(1, Digest([8; 32]), 10);
        assert_eq!(chain.offer(late), Offer::Conflict { kept: blocks[0].hash() });
    }

    #[test]
    fn the_window_and_the_bytes_are_bounded() {
        let mut chain = new(4);
        let blocks = chain_of(8, 10);
        assert_eq!(chain.offer(blocks[4].clone()), Offer::TooFar, "number 5, window ends at 5");
        assert_eq!(chain.offer(blocks[3].clone()), Offer::Accepted);
        let mut chain = new(100);
        let large = chain_of(4, PENDING_BYTES_MAX / 2);
        assert_eq!(chain.offer(large[1].clone()), Offer::Accepted);
        assert_eq!(chain.offer(large[2].clone()), Offer::Accepted);
        assert_eq!(chain.offer(large[3].clone()), Offer::TooFar);
        assert_eq!(chain.offer(large[0].clone()), Offer::Accepted, "the next needed one always fits");
        assert_eq!(chain.counters().too_far, 1);
    }

    #[test]
    fn the_disk_sets_the_pace() {
        let blocks = chain_of(COMMITS_IN_FLIGHT_MAX + 2, 10);
        let mut chain = new(2 * COMMITS_IN_FLIGHT_MAX);
        for block in &blocks {
            chain.offer(block.clone());
        }
        assert_eq!(drain(&mut chain).len() as u64, COMMITS_IN_FLIGHT_MAX);
        chain.handle_committed(2);
        assert_eq!(drain(&mut chain).len(), 1);
    }

    #[test]
    fn recent_blocks_are_bounded_and_older_ones_come_from_the_ledger() {
        let blocks = chain_of(10, 10);
        let mut chain = new(100);
        for block in &blocks {
            chain.offer(block.clone());
        }
        drain(&mut chain);
        assert_eq!(chain.held(9), Some(Held::Memory(blocks[8].clone())));
        chain.handle_committed(11);
        assert_eq!(chain.recent_ranges(8), vec![7, 10]);
        assert_eq!(chain.held(6), Some(Held::Ledger(6)));
        assert_eq!(chain.held(11), None);
        assert_eq!(chain.offer(blocks[5].clone()), Offer::Committed);
        assert_eq!(chain.offer(blocks[6].clone()), Offer::Known);
        chain.offer(AuthenticBlock::simulated(13, Digest([1; 32]), 10));
        assert_eq!(chain.recent_ranges(8), vec![7, 10, 13, 13]);
        assert_eq!(chain.recent_ranges(1), vec![13, 13]);
    }
}
