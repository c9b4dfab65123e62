//! The verified headers ahead of the ledger, and the ranges of them that are being fetched.
//!
//! Ranges are asked for one after the other, several at a time, and verified as they come; a verified range counts once it
//! links to the one before it. The walk stops at a config block until that is committed, since what follows is signed under
//! its config.

use std::collections::BTreeMap;
use std::time::Duration;

use grapevine_crypto::{Digest, PkiId};

use super::{HEADER_RANGES_MAX, HEADERS_AHEAD_BYTES_MAX, HEADERS_AHEAD_MAX};
use crate::time::Time;
use crate::verify::VerifiedHeader;
use crate::wire::HEADERS_PER_RANGE_MAX;

/// What became of a verified range.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Linking {
    /// It waits for those before it, or lengthened the chain.
    Fine,
    /// Its first header names another block before it.
    Unlinked {
        /// Who sent it.
        peer: PkiId,
        /// Number of its first header.
        first: u64,
    },
}

/// What an answer to a request for headers is.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Answer {
    /// The peer has none of them.
    Empty,
    /// Headers to verify.
    Headers {
        /// When they were asked for.
        asked_at: Time,
    },
}

#[derive(Debug)]
struct Range {
    count: u64,
    peer: PkiId,
    at: Time,
    stage: Stage,
}

#[derive(Debug)]
enum Stage {
    Asked,
    Verifying,
    Verified(Vec<(VerifiedHeader, usize)>),
}

#[derive(Debug, Default)]
pub(super) struct Headers {
    linked: BTreeMap<u64, (VerifiedHeader, usize)>,
    linked_bytes: usize,
    /// Open ranges by their first number.
    ranges: BTreeMap<u64, Range>,
    /// A config block: nothing above it counts until it is committed.
    config: Option<u64>,
}

impl Headers {
    /// The verified header of a block ahead of the ledger.
    pub(super) fn header(&self, number: u64) -> Option<&VerifiedHeader> {
        self.linked.get(&number).map(|(header, _)| header)
    }

    /// Bytes that the source of a header says its block has. A hint.
    pub(super) fn size(&self, number: u64) -> Option<usize> {
        self.linked.get(&number).map(|(_, size)| *size).filter(|size| *size > 0)
    }

    /// The sizes of blocks were untrue: none counts any more.
    pub(super) fn forget_sizes(&mut self) {
        self.linked.values_mut().for_each(|(_, size)| *size = 0);
    }

    /// One past the highest proven block; `next` if none above it is.
    pub(super) fn end(&self, next: u64) -> u64 {
        self.linked.last_key_value().map_or(next, |(last, _)| last.saturating_add(1)).max(next)
    }

    /// Blocks below `next` are on their way to the ledger, those below `height` are in it.
    pub(super) fn advance(&mut self, next: u64, height: u64) {
        while let Some(first) = self.linked.first_entry().filter(|first| *first.key() < next) {
            self.linked_bytes = self.linked_bytes.saturating_sub(first.remove().0.memory());
        }
        self.ranges.retain(|first, range| first.saturating_add(range.count) > next);
        self.config = self.config.filter(|number| *number >= height);
    }

    /// The next range to ask for, below `claimed`: the first gap between the linked chain and the open ranges.
    pub(super) fn next_range(&self, next: u64, claimed: u64) -> Option<(u64, u64)> {
        if self.config.is_some()
            || self.ranges.len() >= HEADER_RANGES_MAX
            || self.linked_bytes >= HEADERS_AHEAD_BYTES_MAX
        {
            return None;
        }
        let mut first = self.end(next);
        let limit = claimed.min(next.saturating_add(HEADERS_AHEAD_MAX));
        for (start, range) in &self.ranges {
            if *start > first {
                break;
            }
            first = first.max(start.saturating_add(range.count));
        }
        let until = self.ranges.range(first..).next().map_or(limit, |(start, _)| limit.min(*start));
        let count = until.saturating_sub(first).min(HEADERS_PER_RANGE_MAX as u64);
        (count > 0).then_some((first, count))
    }

    pub(super) fn ask(&mut self, now: Time, peer: PkiId, first: u64, count: u64) {
        self.ranges.insert(first, Range { count, peer, at: now, stage: Stage::Asked });
    }

    /// Ranges asked of a peer and not answered.
    pub(super) fn asked_of(&self, peer: PkiId) -> usize {
        self.ranges.values().filter(|range| range.peer == peer && matches!(range.stage, Stage::Asked)).count()
    }

    /// A peer answers with `count` headers from `first` on. `None`: nobody asked it for them.
    pub(super) fn answered(&mut self, peer: PkiId, first: u64, count: u64) -> Option<Answer> {
        let range = self.ranges.get_mut(&first)?;
        if range.peer != peer || !matches!(range.stage, Stage::Asked) || count > range.count {
            return None;
        }
        if count == 0 {
            self.ranges.remove(&first);
            return Some(Answer::Empty);
        }
        range.count = count;
        range.stage = Stage::Verifying;
        Some(Answer::Headers { asked_at: range.at })
    }

    /// A range was verified; `headers` may be fewer than were sent.
    pub(super) fn verified(
        &mut self,
        next: u64,
        tip: Digest,
        first: u64,
        headers: Vec<(VerifiedHeader, usize)>,
    ) -> Linking {
        let Some(range) = self.ranges.get_mut(&first) else { return Linking::Fine };
        if headers.is_empty() {
            self.ranges.remove(&first);
            return Linking::Fine;
        }
        range.count = headers.len() as u64;
        range.stage = Stage::Verified(headers);
        self.link(next, tip)
    }

    /// Appends verified ranges that come next.
    fn link(&mut self, next: u64, tip: Digest) -> Linking {
        loop {
            let end = self.end(next);
            let ready = self.ranges.iter().find(|(first, range)| {
                matches!(range.stage, Stage::Verified(_))
                    && **first <= end
                    && first.saturating_add(range.count) > end
            });
            let Some(first) = ready.map(|(first, _)| *first) else { return Linking::Fine };
            let Some(Range { peer, stage: Stage::Verified(headers), .. }) = self.ranges.remove(&first) else {
                return Linking::Fine;
            };
            for (header, size) in headers {
                let number = header.number();
                if number < self.end(next) {
                    continue;
                }
                let before = self.linked.last_key_value().map_or(tip, |(_, (last, _))| last.hash());
                if header.previous_hash() != Some(before) {
                    return Linking::Unlinked { peer, first: number };
                }
                let is_config = header.is_config();
                self.linked_bytes = self.linked_bytes.saturating_add(header.memory());
                self.linked.insert(number, (header, size));
                if is_config {
                    self.config = Some(number);
                    self.ranges.clear();
                    return Linking::Fine;
                }
            }
        }
    }

    /// Gives up a range that did not verify.
    pub(super) fn give_up(&mut self, first: u64) {
        self.ranges.remove(&first);
    }

    /// Gives up what a peer was asked for and has not answered.
    pub(super) fn give_up_peer(&mut self, peer: PkiId) {
        self.ranges.retain(|_, range| range.peer != peer || !matches!(range.stage, Stage::Asked));
    }

    /// Peers that have not answered within `patience`.
    pub(super) fn silent(&self, now: Time, patience: Duration) -> Vec<PkiId> {
        let silent = self
            .ranges
            .values()
            .filter(|range| matches!(range.stage, Stage::Asked) && range.at + patience <= now);
        silent.map(|range| range.peer).collect()
    }

    /// When [`Self::silent`] names somebody if nothing comes.
    pub(super) fn silent_at(&self, patience: Duration) -> Option<Time> {
        let asked = self.ranges.values().filter(|range| matches!(range.stage, Stage::Asked));
        asked.map(|range| range.at + patience).min()
    }
}
