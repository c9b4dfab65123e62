//! The figures of an experiment.

use std::collections::BTreeMap;
use std::fmt;
use std::time::Duration;

use serde::Serialize;
use sha2::{Digest as _, Sha256};

use crate::experiment::Experiment;
use crate::measured::Measured;
use crate::models::hex;
use crate::report::{ms, permille};
use crate::scoreboard::Row;

/// Blocks after which peers that failed are known.
const LEARNED_AFTER: u64 = 3;
/// Results list single blocks up to this many.
const BLOCKS_LISTED_MAX: u64 = 64;

/// What an experiment came to. Times run from the moment the leader holds a block verified until peers do, in milliseconds; *limit* is
/// block bytes ÷ bandwidth + the longest one-way latency from the leader.
#[derive(Debug, Clone, Serialize)]
pub struct Outcome {
    /// The protocol.
    pub protocol: String,
    /// Peers, leaders included.
    pub peers: usize,
    /// Organisations.
    pub organizations: usize,
    /// Channels.
    pub channels: usize,
    /// Bytes of a block.
    pub block_bytes: usize,
    /// Blocks in each channel and placement.
    pub blocks: u64,
    /// `wan`, `lan` or another.
    pub links: String,
    /// Share of silent peers.
    pub silent: f64,
    /// Share of ordered pairs of which the first does not know the second.
    pub views_off: f64,
    /// Placements.
    pub placements: u64,
    /// The seed.
    pub seed: u64,
    /// Mean time to the last peer.
    pub last_ms_mean: f64,
    /// Mean of time to the last peer ÷ limit.
    pub last_over_limit: f64,
    /// The same of the worst placement.
    pub last_over_limit_worst: f64,
    /// Of the first block alone, when nobody knows yet who is silent.
    pub last_over_limit_first: f64,
    /// The worst placement's first block.
    pub last_over_limit_first_worst: f64,
    /// Of the blocks after the third; absent where there are none.
    pub last_over_limit_learned: Option<f64>,
    /// The worst placement's.
    pub last_over_limit_learned_worst: Option<f64>,
    /// Mean limit.
    pub limit_ms_mean: f64,
    /// Median over peers and blocks.
    pub p50_ms: f64,
    /// 99th percentile.
    pub p99_ms: f64,
    /// 99.9th percentile.
    pub p999_ms: f64,
    /// Bytes that came to honest peers from others, control frames and headers included (a small frame counts as 48
    /// bytes), ÷ bytes they needed.
    pub copies: f64,
    /// The same of bodies and their headers alone.
    pub body_copies: f64,
    /// Of the first block alone: bodies.
    pub body_copies_first: f64,
    /// Control bytes for each peer and block.
    pub control_bytes_per_peer_block: f64,
    /// Blocks that a leader sent for each that it had.
    pub leader_egress_blocks: f64,
    /// Peers × blocks that dissemination did not bring.
    pub missed: u64,
    /// Peers × blocks that came first on request.
    pub repaired: u64,
    /// Peers × blocks.
    pub deliveries: u64,
    /// Events handled.
    pub events: u64,
    /// Block by block, mean over placements, where there are few.
    pub per_block: Vec<BlockOutcome>,
    /// SHA-256 over the traces of all placements.
    pub trace_hash: String,
}

/// One block, over placements, organisations and channels.
#[derive(Debug, Clone, Serialize)]
pub struct BlockOutcome {
    /// Its number.
    pub block: u64,
    /// Mean time to the last peer.
    pub last_ms_mean: f64,
    /// Mean of that ÷ limit.
    pub last_over_limit: f64,
    /// The worst.
    pub last_over_limit_worst: f64,
    /// Bodies.
    pub body_copies: f64,
    /// Peers that missed it.
    pub missed: u64,
    /// Peers that had it on request.
    pub repaired: u64,
}

impl Outcome {
    pub(crate) fn of(experiment: &Experiment, placements: &[Measured]) -> Self {
        let rows: Vec<&Row> = placements.iter().flat_map(|run| run.rows.values()).collect();
        let mut latencies: Vec<Duration> =
            placements.iter().flat_map(|run| run.latencies.iter().copied()).collect();
        latencies.sort_unstable();
        let of = |wanted: &dyn Fn(u64) -> bool| -> Vec<f64> {
            let means = placements.iter().map(|run| {
                let rows = run.rows.iter().filter(|((.., number), _)| wanted(*number));
                mean(rows.map(|(_, row)| row.over_limit()))
            });
            means.flatten().collect()
        };
        let (all, first, learned) =
            (of(&|_| true), of(&|number| number == 1), of(&|number| number > LEARNED_AFTER));
        let needed = bytes_needed(rows.iter().copied());
        let control: u64 = placements.iter().map(|run| run.control_bytes).sum();
        let bodies: u64 = placements.iter().map(|run| run.body_bytes).sum();
        let deliveries: usize = rows.iter().map(|row| row.receivers).sum();
        let led: usize = rows.iter().map(|row| row.block_bytes).sum();
        let per_block = by_number(placements);
        let mut trace = Sha256::new();
        placements.iter().for_each(|run| trace.update(run.trace_hash.as_bytes()));
        Self {
            protocol: experiment.protocol.name().into(),
            peers: experiment.peers,
            organizations: experiment.organizations,
            channels: experiment.channels,
            block_bytes: experiment.block_bytes,
            blocks: experiment.blocks,
            links: experiment.distance.name(),
            silent: experiment.silent,
            views_off: experiment.views_off,
            placements: experiment.placements,
            seed: experiment.seed,
            last_ms_mean: mean(rows.iter().map(|row| ms(row.last))).unwrap_or(0.0),
            last_over_limit: mean(all.iter().copied()).unwrap_or(0.0),
            last_over_limit_worst: worst(&all).unwrap_or(0.0),
            last_over_limit_first: mean(first.iter().copied()).unwrap_or(0.0),
            last_over_limit_first_worst: worst(&first).unwrap_or(0.0),
            last_over_limit_learned: mean(learned.iter().copied()),
            last_over_limit_learned_worst: worst(&learned),
            limit_ms_mean: mean(rows.iter().map(|row| ms(row.limit))).unwrap_or(0.0),
            p50_ms: permille(&latencies, 500),
            p99_ms: permille(&latencies, 990),
            p999_ms: permille(&latencies, 999),
            copies: (control + bodies) as f64 / needed,
            body_copies: bodies as f64 / needed,
            body_copies_first: per_block.get(&1).map_or(0.0, |rows| copies_of(rows)),
            control_bytes_per_peer_block: control as f64 / (deliveries as f64).max(1.0),
            leader_egress_blocks: rows.iter().map(|row| row.leader_bytes).sum::<u64>() as f64
                / (led as f64).max(1.0),
            missed: rows.iter().map(|row| row.missing as u64).sum(),
            repaired: rows.iter().map(|row| row.repaired as u64).sum(),
            deliveries: deliveries as u64,
            events: placements.iter().map(|run| run.events).sum(),
            per_block: if experiment.blocks <= BLOCKS_LISTED_MAX {
                per_block.iter().map(|(number, rows)| block_outcome(*number, rows)).collect()
            } else {
                Vec::new()
            },
            trace_hash: hex(&trace.finalize()),
        }
    }
}

fn block_outcome(block: u64, rows: &[&Row]) -> BlockOutcome {
    BlockOutcome {
        block,
        last_ms_mean: mean(rows.iter().map(|row| ms(row.last))).unwrap_or(0.0),
        last_over_limit: mean(rows.iter().map(|row| row.over_limit())).unwrap_or(0.0),
        last_over_limit_worst: rows.iter().map(|row| row.over_limit()).fold(0.0, f64::max),
        body_copies: copies_of(rows),
        missed: rows.iter().map(|row| row.missing as u64).sum(),
        repaired: rows.iter().map(|row| row.repaired as u64).sum(),
    }
}

fn by_number(placements: &[Measured]) -> BTreeMap<u64, Vec<&Row>> {
    let mut by_number: BTreeMap<u64, Vec<&Row>> = BTreeMap::new();
    for ((.., number), row) in placements.iter().flat_map(|run| &run.rows) {
        by_number.entry(*number).or_default().push(row);
    }
    by_number
}

fn bytes_needed<'a>(rows: impl Iterator<Item = &'a Row>) -> f64 {
    rows.map(|row| (row.receivers * row.block_bytes) as f64).sum::<f64>().max(1.0)
}

fn copies_of(rows: &[&Row]) -> f64 {
    rows.iter().map(|row| row.body_bytes).sum::<u64>() as f64 / bytes_needed(rows.iter().copied())
}

fn mean(values: impl Iterator<Item = f64>) -> Option<f64> {
    let (sum, count) = values.fold((0.0, 0u64), |(sum, count), value| (sum + value, count + 1));
    (count > 0).then(|| sum / count as f64)
}

fn worst(values: &[f64]) -> Option<f64> {
    values.iter().copied().reduce(f64::max)
}

impl fmt::Display for Outcome {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        let worst = |mean: f64, worst: f64| format!("{mean:.2} (worst placement {worst:.2})");
        let learned = self.last_over_limit_learned.zip(self.last_over_limit_learned_worst);
        let rows = [
            ("protocol", format!("{}, {} peers, {}", self.protocol, self.peers, self.links)),
            (
                "blocks",
                format!("{} of {} bytes, {} placements", self.blocks, self.block_bytes, self.placements),
            ),
            ("time to last ÷ limit", worst(self.last_over_limit, self.last_over_limit_worst)),
            ("  first block", worst(self.last_over_limit_first, self.last_over_limit_first_worst)),
            (
                "  after three blocks",
                learned.map_or_else(|| "–".into(), |(mean, worst_placement)| worst(mean, worst_placement)),
            ),
            ("time to last", format!("{:.2} ms", self.last_ms_mean)),
            (
                "p50 / p99 / p99.9",
                format!("{:.2} / {:.2} / {:.2} ms", self.p50_ms, self.p99_ms, self.p999_ms),
            ),
            ("copies", format!("{:.4}, of them bodies {:.4}", self.copies, self.body_copies)),
            ("  first block, bodies", format!("{:.4}", self.body_copies_first)),
            ("leader egress", format!("{:.2} blocks", self.leader_egress_blocks)),
            ("missed", format!("{} of {}", self.missed, self.deliveries)),
            ("on request", self.repaired.to_string()),
            ("trace", self.trace_hash.clone()),
        ];
        for (name, value) in rows {
            writeln!(formatter, "{name:<24} {value}")?;
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn means_and_worsts() {
        assert_eq!(mean([1.0, 3.0].into_iter()), Some(2.0));
        assert_eq!(mean(std::iter::empty()), None);
        assert_eq!(worst(&[1.0, 3.0, 2.0]), Some(3.0));
    }
}
