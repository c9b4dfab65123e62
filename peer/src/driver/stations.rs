//! When each block was received, verified, handed to the ledger and committed, for whoever measures (`--block-trace`).
//!
//! Bounds: [`RECEIVED_MAX`] blocks under verification are remembered, the first ones go; blocks on their way to the disk are
//! bounded by the chains. Without a trace nothing is remembered.

use std::collections::{BTreeMap, BTreeSet};

use grapevine_block_trace::{BlockTrace, Station, now};
use grapevine_channels::ChannelId;
use grapevine_channels::node::Ticket;

/// Most blocks under verification whose arrival is remembered.
const RECEIVED_MAX: usize = 1_024;

/// See the module's header.
#[derive(Debug)]
pub(super) struct Stations {
    trace: BlockTrace,
    received: BTreeMap<Ticket, u64>,
    handed: BTreeMap<ChannelId, BTreeSet<u64>>,
}

impl Stations {
    pub(super) fn new(trace: BlockTrace) -> Self {
        Self { trace, received: BTreeMap::new(), handed: BTreeMap::new() }
    }

    /// A block is here. What its number is, nobody has checked yet.
    pub(super) fn received(&mut self, ticket: Ticket) {
        if self.trace.is_on() {
            self.received.insert(ticket, now());
            if self.received.len() > RECEIVED_MAX {
                self.received.pop_first();
            }
        }
    }

    /// It was verified; `number` is `None` if it was found not to be authentic.
    pub(super) fn verified(&mut self, ticket: Ticket, channel: &ChannelId, number: Option<u64>) {
        let received = self.received.remove(&ticket);
        if let (Some(at), Some(number)) = (received, number) {
            self.trace.note_at(channel.as_str(), number, Station::Received, at);
            self.trace.note(channel.as_str(), number, Station::Verified);
        }
    }

    /// The ledger is given a block.
    pub(super) fn handed(&mut self, channel: &ChannelId, number: u64) {
        if self.trace.is_on() {
            self.trace.note(channel.as_str(), number, Station::Handed);
            self.handed.entry(channel.clone()).or_default().insert(number);
        }
    }

    /// All blocks below `height` are on disk.
    pub(super) fn committed(&mut self, channel: &ChannelId, height: u64) {
        let Some(handed) = self.handed.get_mut(channel) else { return };
        let waiting = handed.split_off(&height);
        for number in std::mem::replace(handed, waiting) {
            self.trace.note(channel.as_str(), number, Station::Committed);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_station_is_noted_once_for_each_block() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("trace");
        let channel: ChannelId = "trade".parse().unwrap();
        let mut stations = Stations::new(BlockTrace::to_file(&path).unwrap());
        stations.received(Ticket(1));
        stations.received(Ticket(2));
        stations.verified(Ticket(2), &channel, None);
        stations.verified(Ticket(1), &channel, Some(5));
        stations.handed(&channel, 5);
        stations.handed(&channel, 6);
        stations.committed(&channel, 6);
        stations.committed(&channel, 6);
        drop(stations);
        let events = grapevine_block_trace::read(&path).unwrap();
        let seen: Vec<_> = events.iter().map(|event| (event.number, event.station)).collect();
        assert_eq!(
            seen,
            [
                (5, Station::Received),
                (5, Station::Verified),
                (5, Station::Handed),
                (6, Station::Handed),
                (5, Station::Committed)
            ]
        );
    }

    #[test]
    fn what_is_remembered_is_bounded_and_nothing_without_a_trace() {
        let mut off = Stations::new(BlockTrace::off());
        off.received(Ticket(1));
        assert!(off.received.is_empty());
        let directory = tempfile::tempdir().unwrap();
        let mut stations = Stations::new(BlockTrace::to_file(&directory.path().join("trace")).unwrap());
        (0..2 * RECEIVED_MAX as u64).for_each(|ticket| stations.received(Ticket(ticket)));
        assert_eq!(stations.received.len(), RECEIVED_MAX);
    }
}
