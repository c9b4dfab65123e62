//! What a run is measured by.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt;
use std::time::Duration;

use grapevine_channels::time::Time;
use serde::Serialize;
use sha2::{Digest as _, Sha256};

use crate::truth::{ChannelIndex, Site};

/// The outcome of a run. Latencies run from the moment the orderer made a block to its commit on a peer's disk, in milliseconds.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct Report {
    /// What spread the blocks.
    pub protocol: String,
    /// Peers.
    pub peers: usize,
    /// Organisations.
    pub organizations: usize,
    /// Bytes of a block.
    pub block_bytes: usize,
    /// Blocks made, of all channels.
    pub blocks: u64,
    /// The seed.
    pub seed: u64,
    /// Median over peers and blocks.
    pub p50_ms: f64,
    /// 99th percentile over peers and blocks.
    pub p99_ms: f64,
    /// Mean over blocks of the last peer's.
    pub last_ms_mean: f64,
    /// The last peer's of the worst block.
    pub last_ms_max: f64,
    /// Bytes of blocks that reached a peer, from peers and orderer, ÷ bytes it needed.
    pub copies: f64,
    /// Bytes of blocks that the leader of an organisation sent ÷ bytes of the blocks.
    pub leader_egress_blocks: f64,
    /// Control bytes received, for each peer and second.
    pub control_bytes_per_s: f64,
    /// Blocks × peers that came first by request instead of push or from the orderer.
    pub missed: u64,
    /// Elections won.
    pub leader_changes: u64,
    /// Peers disconnected for misbehaviour.
    pub penalties: u64,
    /// Events handled.
    pub events: u64,
    /// Virtual seconds.
    pub virtual_s: f64,
    /// From the last fault and block until everybody had everything and agreed.
    pub settled_ms: f64,
    /// SHA-256 over every event: time, from, to, kind, size.
    pub trace_hash: String,
}

impl fmt::Display for Report {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        let rows = [
            ("peers", format!("{} in {} organisations", self.peers, self.organizations)),
            ("blocks", format!("{} of {} bytes", self.blocks, self.block_bytes)),
            ("orderer to commit, p50", format!("{:.3} ms", self.p50_ms)),
            ("orderer to commit, p99", format!("{:.3} ms", self.p99_ms)),
            ("last peer, mean", format!("{:.3} ms", self.last_ms_mean)),
            ("last peer, worst block", format!("{:.3} ms", self.last_ms_max)),
            ("copies per peer", format!("{:.3}", self.copies)),
            ("leader egress", format!("{:.2} blocks", self.leader_egress_blocks)),
            ("control", format!("{:.0} bytes/s per peer", self.control_bytes_per_s)),
            ("missed by push", self.missed.to_string()),
            ("elections won", self.leader_changes.to_string()),
            ("penalties", self.penalties.to_string()),
            ("settled after", format!("{:.0} ms", self.settled_ms)),
            ("simulated", format!("{:.1} s, {} events", self.virtual_s, self.events)),
            ("trace", self.trace_hash.clone()),
        ];
        for (name, value) in rows {
            writeln!(formatter, "{name:<24} {value}")?;
        }
        Ok(())
    }
}

/// What is counted while a run goes on.
#[derive(Debug, Default)]
pub(crate) struct Measurements {
    trace: Sha256,
    pub(crate) events: u64,
    /// Latency of every commit, by block.
    commits: BTreeMap<(ChannelIndex, u64), Vec<Duration>>,
    pub(crate) block_bytes_received: u64,
    pub(crate) control_bytes_received: u64,
    pub(crate) leader_bytes_sent: u64,
    arrived: BTreeSet<(Site, ChannelIndex, u64)>,
    missed: u64,
    pub(crate) leader_changes: u64,
    /// Peers that ever led.
    pub(crate) leaders: BTreeSet<Site>,
    /// Bytes of blocks that left the orderer.
    pub(crate) orderer_bytes_sent: u64,
    pub(crate) penalties: u64,
    /// Peers declared dead by somebody though they were healthy.
    pub(crate) healthy_declared_dead: u64,
}

/// Latency figures, in milliseconds.
#[derive(Debug, Default)]
pub(crate) struct Latencies {
    pub(crate) p50_ms: f64,
    pub(crate) p99_ms: f64,
    pub(crate) last_ms_mean: f64,
    pub(crate) last_ms_max: f64,
}

impl Measurements {
    pub(crate) fn trace(&mut self, at: Time, from: Site, to: Site, kind: u8, size: usize) {
        for number in [at.as_nanos(), from as u64, to as u64, u64::from(kind), size as u64] {
            self.trace.update(number.to_le_bytes());
        }
    }

    pub(crate) fn committed(&mut self, channel: ChannelIndex, number: u64, latency: Duration) {
        self.commits.entry((channel, number)).or_default().push(latency);
    }

    /// A block reached a peer; `missed`: by request.
    pub(crate) fn arrived(&mut self, peer: Site, channel: ChannelIndex, number: u64, missed: bool) {
        if self.arrived.insert((peer, channel, number)) && missed {
            self.missed += 1;
        }
    }

    /// Blocks × peers that came first by request.
    pub(crate) fn missed(&self) -> u64 {
        self.missed
    }

    pub(crate) fn trace_hash(&self) -> String {
        self.trace.clone().finalize().iter().map(|byte| format!("{byte:02x}")).collect()
    }

    /// Number of commits.
    pub(crate) fn commits(&self) -> u64 {
        self.commits.values().map(|latencies| latencies.len() as u64).sum()
    }

    pub(crate) fn latencies(&self) -> Latencies {
        let mut all: Vec<f64> = self.commits.values().flatten().map(|latency| ms(*latency)).collect();
        all.sort_by(f64::total_cmp);
        let last: Vec<f64> = self
            .commits
            .values()
            .filter_map(|latencies| latencies.iter().max())
            .map(|last| ms(*last))
            .collect();
        if all.is_empty() {
            return Latencies::default();
        }
        Latencies {
            p50_ms: percentile(&all, 50),
            p99_ms: percentile(&all, 99),
            last_ms_mean: last.iter().sum::<f64>() / last.len() as f64,
            last_ms_max: last.iter().copied().fold(0.0, f64::max),
        }
    }
}

/// Milliseconds.
pub(crate) fn ms(duration: Duration) -> f64 {
    duration.as_secs_f64() * 1_000.0
}

/// The nearest-rank percentile of sorted times, in thousandths; in milliseconds.
pub(crate) fn permille(sorted: &[Duration], permille: usize) -> f64 {
    let rank = (sorted.len() * permille).div_ceil(1_000).max(1);
    sorted.get(rank - 1).copied().map_or(0.0, ms)
}

/// The nearest-rank percentile of sorted values.
fn percentile(sorted: &[f64], percent: usize) -> f64 {
    let rank = (sorted.len() * percent).div_ceil(100).max(1);
    sorted.get(rank - 1).copied().unwrap_or_default()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn percentiles_are_nearest_rank() {
        let values: Vec<f64> = (1..=200).map(f64::from).collect();
        assert_eq!(percentile(&values, 50), 100.0);
        assert_eq!(percentile(&values, 99), 198.0);
        assert_eq!(percentile(&values[..1], 99), 1.0);
    }
}
