//! `grapevine-bench failover`: how long blocks stay away from the other peers when the leader goes, while the orderer makes one of 10 KB
//! every 200 ms.
//!
//! In each run the leader is killed (SIGKILL), stands still (SIGSTOP) and is asked to end (SIGTERM), one after the other, and with `--cut` loses all packets
//! from and to it; each time the others must go on, and it comes back and catches up before the next. A gap is the longest time between two blocks committed by one surviving peer, from a second before the
//! leader goes until another one has led for some seconds; the 200 ms between two blocks are part of it.
//!
//! | field | is |
//! |---|---|
//! | `gap_p50_s`, `gap_max_s` | after SIGKILL: median and maximum over the runs of the gap of the peer that waited longest |
//! | `gap_stop_max_s` | after SIGSTOP, maximum |
//! | `handover_max_s` | after SIGTERM, maximum |
//! | `gap_cut_max_s` | with packets lost, maximum; null without `--cut` |
//! | `gaps_s`, `gaps_stop_s`, `handovers_s`, `gaps_cut_s` | those of each run |

use std::path::PathBuf;
use std::time::{Duration, Instant};

use anyhow::Context;
use clap::Args;
use grapevine_block_trace::{Event, Station, now};
use grapevine_network::{Interrupt, Network, Payload, Submission, namespaces};
use serde::Serialize;

use crate::network::{self, CHANNEL, SETTLE_WITHIN};
use crate::output::{rounded, write_json};
use crate::sample::to_f64;
use crate::wait;

/// Time between two blocks.
const INTERVAL: Duration = Duration::from_millis(200);

/// Size of a transaction, and nearly that of a block.
const PAYLOAD_BYTES: usize = 9_000;

/// Links of the processes where packets are to be lost; no limit to these blocks.
const LINK_MBIT: u32 = 1_000;

/// Blocks flow for so long before the leader goes.
const BEFORE: Duration = Duration::from_secs(1);

/// How long after the leader has gone the others are watched: longer than any gap should be.
const WATCHED: Duration = Duration::from_secs(8);

/// Longest time that events are on their way to the trace files.
const TRACE_DELAY: Duration = Duration::from_millis(300);

/// What to measure.
#[derive(Debug, Args)]
pub(crate) struct Arguments {
    /// Number of peers
    #[arg(long, value_name = "N", default_value_t = 20)]
    peers: usize,
    /// How often the leader goes in each of the three ways
    #[arg(long, value_name = "R", default_value_t = 5)]
    runs: u32,
    /// Also lose all packets from and to the leader: every process runs in a network namespace of its own, behind a gigabit link; as root
    #[arg(long)]
    cut: bool,
    /// File for the result; - for standard output
    #[arg(long, value_name = "FILE")]
    json: Option<PathBuf>,
}

/// How a leader goes.
#[derive(Debug, Clone, Copy)]
enum Going {
    Killed,
    Stopped,
    Asked,
    Cut,
}

#[derive(Debug, Serialize)]
struct Failover {
    peers: usize,
    runs: u32,
    gap_p50_s: f64,
    gap_max_s: f64,
    gap_stop_max_s: f64,
    handover_max_s: f64,
    gap_cut_max_s: Option<f64>,
    gaps_s: Vec<f64>,
    gaps_stop_s: Vec<f64>,
    handovers_s: Vec<f64>,
    gaps_cut_s: Vec<f64>,
}

/// Measures and reports.
pub(crate) fn run(arguments: &Arguments, interrupt: &Interrupt) -> anyhow::Result<()> {
    anyhow::ensure!(arguments.peers > 1, "--peers: write a number above 1, so that someone can take over");
    anyhow::ensure!(arguments.runs > 0, "--runs: write a number above 0");
    let mut builder = network::builder(arguments.peers, interrupt)?;
    if arguments.cut {
        namespaces::isolate()?;
        builder = builder.link_mbit(LINK_MBIT);
    }
    let network = builder.start()?;
    network::settle(&network, 1)?;
    let _load = load(&network, arguments.runs)?;
    let (mut killed, mut stopped, mut asked, mut cut) = (Vec::new(), Vec::new(), Vec::new(), Vec::new());
    for run in 1..=arguments.runs {
        killed.push(gap(&network, Going::Killed)?);
        stopped.push(gap(&network, Going::Stopped)?);
        asked.push(gap(&network, Going::Asked)?);
        if arguments.cut {
            cut.push(gap(&network, Going::Cut)?);
        }
        let last = |gaps: &[f64]| gaps.last().copied().unwrap_or(0.0);
        eprintln!(
            "run {run}: gap {:.2} s after SIGKILL, {:.2} s after SIGSTOP, {:.2} s after SIGTERM, {:.2} s cut off",
            last(&killed),
            last(&stopped),
            last(&asked),
            last(&cut)
        );
    }
    let max = |gaps: &[f64]| gaps.iter().copied().fold(0.0, f64::max);
    let mut ascending = killed.clone();
    ascending.sort_by(f64::total_cmp);
    let result = Failover {
        peers: arguments.peers,
        runs: arguments.runs,
        gap_p50_s: ascending.get((ascending.len() - 1) / 2).copied().unwrap_or(0.0),
        gap_max_s: max(&killed),
        gap_stop_max_s: max(&stopped),
        handover_max_s: max(&asked),
        gap_cut_max_s: (!cut.is_empty()).then(|| max(&cut)),
        gaps_s: killed,
        gaps_stop_s: stopped,
        handovers_s: asked,
        gaps_cut_s: cut,
    };
    arguments.json.as_deref().map_or(Ok(()), |path| write_json(path, &result))
}

/// Transactions at a steady pace for longer than all runs take; dropping it ends them.
fn load(network: &Network, runs: u32) -> anyhow::Result<Submission<'_>> {
    // A run watches four times at most and waits as often until all is well again.
    let length = 4 * runs * (BEFORE + WATCHED + SETTLE_WITHIN);
    let transactions = usize::try_from(length.as_millis() / INTERVAL.as_millis())?;
    let path = network.directory().join("load");
    let file = std::fs::File::create(&path).and_then(|file| {
        // Zeros cost no disk; each transaction has a nonce of its own.
        file.set_len(u64::try_from(transactions * PAYLOAD_BYTES).unwrap_or(u64::MAX))
    });
    file.with_context(|| format!("cannot write {}", path.display()))?;
    let payload = Payload::file(path).pieces(PAYLOAD_BYTES).rate(1.0 / INTERVAL.as_secs_f64());
    Ok(network.submit_in_background(CHANNEL, payload)?)
}

/// Makes the leader go; returns the gap and leaves the network whole.
fn gap(network: &Network, going: Going) -> anyhow::Result<f64> {
    network::settle(network, 1)?;
    let leader = leader(network)?;
    wait::until(network, Instant::now() + BEFORE)?;
    let gone = now();
    match going {
        Going::Killed => network.kill(&leader)?,
        Going::Stopped => network.freeze(&leader)?,
        Going::Asked => network.stop(&leader)?,
        Going::Cut => network.lose_packets(&leader)?,
    }
    wait::until(network, Instant::now() + WATCHED)?;
    let until = now();
    wait::until(network, Instant::now() + TRACE_DELAY)?;
    let from = gone.saturating_sub(u64::try_from(BEFORE.as_nanos()).unwrap_or(0));
    let mut longest: f64 = 0.0;
    for peer in network.peers() {
        if peer != leader {
            longest = longest.max(longest_gap(&network.trace(peer)?, from, until));
        }
    }
    match going {
        Going::Killed | Going::Asked => network.start(&leader)?,
        Going::Stopped => network.thaw(&leader)?,
        Going::Cut => network.pass_packets(&leader)?,
    }
    Ok(rounded(longest))
}

/// The longest time in seconds without a commit between two moments.
fn longest_gap(events: &[Event], from: u64, until: u64) -> f64 {
    let inside = |at: &u64| (from..until).contains(at);
    let commits = events.iter().filter(|event| event.station == Station::Committed).map(|event| event.at);
    let (mut last, mut longest) = (from, 0);
    for at in commits.filter(inside).chain([until]) {
        longest = longest.max(at.saturating_sub(last));
        last = at;
    }
    to_f64(longest) / 1e9
}

/// The peer that pulls from the orderer.
fn leader(network: &Network) -> anyhow::Result<String> {
    for peer in network.peers() {
        if network.status(peer)?.channel(CHANNEL).is_some_and(|channel| channel.orderer.is_some()) {
            return Ok(peer.to_owned());
        }
    }
    anyhow::bail!("nobody pulls from the orderer")
}

#[cfg(test)]
mod tests {
    use super::*;

    fn commits(at: &[u64]) -> Vec<Event> {
        let event =
            |at: &u64| Event { channel: CHANNEL.into(), number: *at, station: Station::Committed, at: *at };
        at.iter().map(event).collect()
    }

    #[test]
    fn the_longest_time_without_a_commit_counts_its_ends() {
        let second = 1_000_000_000;
        let events = commits(&[second / 2, second, 2 * second, 5 * second, 6 * second, 30 * second]);
        assert!((longest_gap(&events, second, 7 * second) - 3.0).abs() < 1e-9);
        assert!((longest_gap(&events, second, 20 * second) - 14.0).abs() < 1e-9, "none came any more");
        assert!((longest_gap(&[], 0, second) - 1.0).abs() < 1e-9);
    }
}
