//! When each block reached each peer, whatever spread it: the figures by which protocols are compared.
//!
//! A *row* is one block in one organisation of its channel. It begins (t = 0) when the organisation's leader holds the
//! block verified, and is over when every peer that was there then holds it verified, too. Its *limit* is what no protocol can
//! beat: bytes ÷ bandwidth + the longest one-way latency from the leader.

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use grapevine_channels::time::Time;

use crate::truth::{ChannelIndex, Site};

/// A block in an organisation: channel, organisation, number.
pub(crate) type RowKey = (ChannelIndex, usize, u64);

/// What became of a block in an organisation.
#[derive(Debug, Clone, PartialEq)]
pub struct Row {
    /// When the leader had it.
    pub held_at: Time,
    /// The leader.
    pub leader: Site,
    /// Until the last peer had it.
    pub last: Duration,
    /// The least that any protocol could take.
    pub limit: Duration,
    /// Bytes of the block.
    pub block_bytes: usize,
    /// Honest peers that were to get it, the leader not counted.
    pub receivers: usize,
    /// Of them, who never had it.
    pub missing: usize,
    /// Who had it first on request.
    pub repaired: usize,
    /// Bytes of its bodies that came to honest peers.
    pub body_bytes: u64,
    /// Bytes of its bodies that the leader sent.
    pub leader_bytes: u64,
}

impl Row {
    /// Time until the last peer had it ÷ limit.
    pub fn over_limit(&self) -> f64 {
        self.last.as_secs_f64() / self.limit.as_secs_f64().max(1e-12)
    }
}

#[derive(Debug)]
struct Open {
    missing: BTreeSet<Site>,
}

/// The books of a run.
#[derive(Debug, Default)]
pub(crate) struct Scoreboard {
    rows: BTreeMap<RowKey, Row>,
    open: BTreeMap<RowKey, Open>,
    /// Blocks that came before the row began.
    early: BTreeMap<RowKey, BTreeSet<Site>>,
    latencies: Vec<Duration>,
}

impl Scoreboard {
    /// The leader holds a block verified; `receivers` are to get it.
    pub(crate) fn held(
        &mut self,
        key: RowKey,
        now: Time,
        leader: Site,
        limit: Duration,
        block_bytes: usize,
        receivers: impl Iterator<Item = Site>,
    ) {
        if self.rows.contains_key(&key) {
            return;
        }
        let mut missing: BTreeSet<Site> = receivers.filter(|site| *site != leader).collect();
        let receivers = missing.len();
        let row = Row {
            held_at: now,
            leader,
            last: Duration::ZERO,
            limit,
            block_bytes,
            receivers,
            missing: receivers,
            repaired: 0,
            body_bytes: 0,
            leader_bytes: 0,
        };
        self.rows.insert(key, row);
        let early = self.early.remove(&key).unwrap_or_default();
        for site in early.iter().filter(|site| missing.contains(site)) {
            self.arrived(key, *site, Duration::ZERO, false);
        }
        missing.retain(|site| !early.contains(site));
        if !missing.is_empty() {
            self.open.insert(key, Open { missing });
        }
    }

    /// A peer holds a block verified for the first time.
    pub(crate) fn got(&mut self, key: RowKey, now: Time, site: Site, on_request: bool) {
        let Some(row) = self.rows.get(&key) else {
            self.early.entry(key).or_default().insert(site);
            return;
        };
        let latency = now.since(row.held_at);
        let Some(open) = self.open.get_mut(&key) else { return };
        if open.missing.remove(&site) {
            if open.missing.is_empty() {
                self.open.remove(&key);
            }
            self.arrived(key, site, latency, on_request);
        }
    }

    fn arrived(&mut self, key: RowKey, _site: Site, latency: Duration, on_request: bool) {
        let Some(row) = self.rows.get_mut(&key) else { return };
        row.missing -= 1;
        row.repaired += usize::from(on_request);
        row.last = row.last.max(latency);
        self.latencies.push(latency);
    }

    /// A body came to a peer from another; `counts`: the peer is one of those that all is about.
    pub(crate) fn body(&mut self, key: RowKey, from: Site, bytes: usize, counts: bool) {
        if let Some(row) = self.rows.get_mut(&key) {
            row.body_bytes += if counts { bytes as u64 } else { 0 };
            if from == row.leader {
                row.leader_bytes += bytes as u64;
            }
        }
    }

    /// A peer is gone, and with it what it was to get.
    pub(crate) fn gone(&mut self, site: Site, channel: Option<ChannelIndex>) {
        let rows = &mut self.rows;
        self.open.retain(|key, open| {
            if channel.is_none_or(|channel| channel == key.0)
                && open.missing.remove(&site)
                && let Some(row) = rows.get_mut(key)
            {
                row.missing -= 1;
                row.receivers -= 1;
            }
            !open.missing.is_empty()
        });
    }

    /// Whether everybody has every block that a leader has had.
    pub(crate) fn is_complete(&self) -> bool {
        self.open.is_empty()
    }

    /// Number of rows.
    pub(crate) fn rows(&self) -> usize {
        self.rows.len()
    }

    /// What became of each block, and every latency of it.
    pub(crate) fn finish(self) -> (BTreeMap<RowKey, Row>, Vec<Duration>) {
        (self.rows, self.latencies)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const KEY: RowKey = (0, 0, 1);

    fn ms(milliseconds: u64) -> Duration {
        Duration::from_millis(milliseconds)
    }

    #[test]
    fn a_row_runs_from_the_leader_to_the_last() {
        let mut board = Scoreboard::default();
        board.got(KEY, Time::from_millis(1), 3, false);
        board.held(KEY, Time::from_millis(5), 0, ms(10), 1_000, 0..5);
        board.got(KEY, Time::from_millis(15), 1, false);
        board.got(KEY, Time::from_millis(45), 2, true);
        board.got(KEY, Time::from_millis(99), 2, false);
        assert!(!board.is_complete());
        board.gone(4, None);
        assert!(board.is_complete());
        board.body(KEY, 0, 1_000, true);
        board.body(KEY, 1, 1_000, true);
        board.body(KEY, 1, 1_000, false);
        let (rows, latencies) = board.finish();
        let row = &rows[&KEY];
        assert_eq!((row.receivers, row.missing, row.repaired), (3, 0, 1));
        assert_eq!((row.last, row.body_bytes, row.leader_bytes), (ms(40), 2_000, 1_000));
        assert!((row.over_limit() - 4.0).abs() < 1e-9);
        assert_eq!(latencies, [Duration::ZERO, ms(10), ms(40)]);
    }

    #[test]
    fn who_never_gets_it_is_missing() {
        let mut board = Scoreboard::default();
        board.held(KEY, Time::ZERO, 0, ms(1), 1, 0..3);
        board.got(KEY, Time::from_millis(1), 1, false);
        assert_eq!(board.finish().0[&KEY].missing, 1);
    }
}
