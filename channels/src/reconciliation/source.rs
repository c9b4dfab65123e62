//! One member as a source of blocks: what it claims, what it was asked for, how fast it is, how far it is trusted.

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use grapevine_crypto::{Digest, MspId};

use super::{
    ASKED_PER_SOURCE_MAX, CLAIMS_PER_PEER_MAX, REST_MAX, REST_MIN, WINDOW_BYTES_FIRST, WINDOW_BYTES_MAX,
};
use crate::time::Time;

/// A block that was asked for and is not here.
#[derive(Debug, Clone, Copy)]
pub(super) struct Asked {
    pub(super) at: Time,
    /// Bytes it is expected to have.
    pub(super) bytes: usize,
    /// What the source had delivered by then.
    delivered_then: u64,
}

/// Speed of a source, from the blocks it sent: the greatest rate seen lately times the shortest response is what the
/// path holds (bandwidth × delay); twice that is asked for at a time.
#[derive(Debug, Default)]
struct Pace {
    delivered: u64,
    /// Bytes a second.
    rate: f64,
    response_min: Option<Duration>,
}

#[derive(Debug)]
pub(super) struct Source {
    pub(super) organization: MspId,
    pub(super) own_organization: bool,
    /// Number and header hash of its last block, as it says.
    pub(super) tip: Option<(u64, Digest)>,
    /// Its history differs from the own one, and that was looked into.
    pub(super) diverges: bool,
    /// Number of its tip for which the ledger was asked last.
    pub(super) looked_up: Option<u64>,
    height: u64,
    claimed: BTreeSet<u64>,
    asked: BTreeMap<u64, Asked>,
    asked_bytes: usize,
    /// Asked for and given up: a late answer still tells how slow the source is.
    late: BTreeMap<u64, Asked>,
    heard_at: Time,
    failures: u32,
    rests_until: Time,
    pace: Pace,
}

impl Source {
    pub(super) fn new(now: Time, organization: MspId, own_organization: bool) -> Self {
        Self {
            organization,
            own_organization,
            tip: None,
            diverges: false,
            looked_up: None,
            height: 0,
            claimed: BTreeSet::new(),
            asked: BTreeMap::new(),
            asked_bytes: 0,
            late: BTreeMap::new(),
            heard_at: now,
            failures: 0,
            rests_until: now,
            pace: Pace::default(),
        }
    }

    /// Whether it says it has this block. By height only if `by_height`.
    pub(super) fn claims(&self, number: u64, by_height: bool) -> bool {
        (by_height && number < self.height) || self.claimed.contains(&number)
    }

    pub(super) fn height(&self) -> u64 {
        self.height
    }

    /// One past the highest block it claims.
    pub(super) fn claim_end(&self, by_height: bool) -> u64 {
        let claimed = self.claimed.last().map_or(0, |last| last.saturating_add(1));
        if by_height { self.height.max(claimed) } else { claimed }
    }

    pub(super) fn set_height(&mut self, height: u64) {
        self.height = height;
        self.claimed = self.claimed.split_off(&height);
    }

    /// It could not show what it claims from `end` on.
    pub(super) fn lower_height(&mut self, end: u64) {
        self.height = self.height.min(end);
    }

    pub(super) fn claim(&mut self, number: u64) -> bool {
        self.claimed.len() < CLAIMS_PER_PEER_MAX && self.claimed.insert(number)
    }

    pub(super) fn disclaim(&mut self, number: u64) {
        self.claimed.remove(&number);
    }

    pub(super) fn forget_below(&mut self, number: u64) {
        self.claimed = self.claimed.split_off(&number);
        self.late = self.late.split_off(&number);
    }

    pub(super) fn rests(&self, now: Time) -> bool {
        self.rests_until > now
    }

    pub(super) fn rests_until(&self) -> Time {
        self.rests_until
    }

    pub(super) fn failures(&self) -> u32 {
        self.failures
    }

    /// Bytes a second of useful blocks, as far as it is known.
    pub(super) fn rate(&self) -> f64 {
        self.pace.rate
    }

    pub(super) fn asked(&self) -> &BTreeMap<u64, Asked> {
        &self.asked
    }

    pub(super) fn asked_bytes(&self) -> usize {
        self.asked_bytes
    }

    /// Whether `bytes` more may be asked for. One block always may.
    pub(super) fn has_room(&self, bytes: usize) -> bool {
        if self.asked.is_empty() {
            return true;
        }
        // After a failure one block at a time, until one comes.
        self.failures == 0
            && self.asked.len() < ASKED_PER_SOURCE_MAX
            && self.asked_bytes.saturating_add(bytes) <= self.window()
    }

    /// Bytes it may be asked for at a time: twice bandwidth × delay.
    pub(super) fn window(&self) -> usize {
        let Some(response) = self.pace.response_min else { return WINDOW_BYTES_FIRST };
        let held = 2.0 * self.pace.rate * response.as_secs_f64();
        (held as usize).clamp(WINDOW_BYTES_FIRST, WINDOW_BYTES_MAX)
    }

    /// When `bytes` more would be here, in seconds: decides who is asked.
    pub(super) fn expected_s(&self, bytes: usize) -> f64 {
        self.asked_bytes.saturating_add(bytes) as f64 / self.pace.rate.max(1e6)
    }

    pub(super) fn ask(&mut self, now: Time, number: u64, bytes: usize) {
        if self.asked.is_empty() {
            self.heard_at = now;
        }
        self.late.remove(&number);
        self.asked_bytes = self.asked_bytes.saturating_add(bytes);
        self.asked.insert(number, Asked { at: now, bytes, delivered_then: self.pace.delivered });
    }

    /// A block arrived. Returns how long it took, if it had been asked for.
    pub(super) fn arrived(&mut self, now: Time, number: u64) -> Option<Duration> {
        let asked = match self.take(number) {
            Some(asked) => asked,
            None => self.late.remove(&number)?,
        };
        self.heard_at = now;
        self.failures = 0;
        self.rests_until = self.rests_until.min(now);
        let response = now.since(asked.at);
        let pace = &mut self.pace;
        pace.delivered = pace.delivered.saturating_add(asked.bytes as u64);
        let seconds = response.as_secs_f64().max(1e-6);
        let rate = pace.delivered.saturating_sub(asked.delivered_then) as f64 / seconds;
        // Up at once, down slowly: a rate below the greatest may only mean that little was asked for.
        pace.rate = if rate > pace.rate { rate } else { pace.rate + (rate - pace.rate) * 0.02 };
        pace.response_min = Some(pace.response_min.map_or(response, |least| least.min(response)));
        Some(response)
    }

    /// It will not send this block.
    pub(super) fn take(&mut self, number: u64) -> Option<Asked> {
        let asked = self.asked.remove(&number)?;
        self.asked_bytes = self.asked_bytes.saturating_sub(asked.bytes);
        Some(asked)
    }

    pub(super) fn heard_at(&self) -> Time {
        self.heard_at
    }

    /// When nothing has come for `patience` although it owes blocks.
    pub(super) fn silent_at(&self, patience: Duration) -> Option<Time> {
        (!self.asked.is_empty()).then(|| self.heard_at + patience)
    }

    /// It failed: what it was asked for is free for others, and it rests, twice as long each time in a row.
    pub(super) fn fail(&mut self, now: Time, retries_max: u32) {
        self.late.append(&mut self.asked);
        while self.late.len() > ASKED_PER_SOURCE_MAX {
            self.late.pop_first();
        }
        self.asked_bytes = 0;
        self.failures = self.failures.saturating_add(1);
        self.pace.rate /= 2.0;
        let doublings = self.failures.min(retries_max.saturating_add(1)).saturating_sub(1);
        let rest = REST_MIN.saturating_mul(2u32.saturating_pow(doublings));
        self.rest(now, rest.min(REST_MAX));
    }

    /// It is left alone for a while.
    pub(super) fn rest(&mut self, now: Time, rest: Duration) {
        self.rests_until = self.rests_until.max(now + rest);
    }

    /// It refused since its queue is full, or has nothing: fewer bytes at a time from now on.
    pub(super) fn slow_down(&mut self) {
        self.pace.rate /= 2.0;
    }
}
