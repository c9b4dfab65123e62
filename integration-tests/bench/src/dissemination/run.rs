//! One protocol under load.

use std::time::{Duration, Instant};

use anyhow::Context;
use grapevine_network::{Interrupt, Network};
use serde::Serialize;

use super::latency::{Latencies, Passages, percentile};
use super::protocol::Protocol;
use super::{Arguments, load};
use crate::network::{self, CHANNEL};
use crate::output::rounded;
use crate::sample::{Sample, memory_mb, to_f64};
use crate::wait;

/// Blocks before the measured ones: connections are warm, and round trips known.
const WARM_UP_BLOCKS: u64 = 10;

/// Rest before the quiet time and before the load: what was before has settled.
const REST: Duration = Duration::from_secs(2);

/// The measures; the parent module says what they are.
#[derive(Debug, Clone, Serialize)]
pub(super) struct Outcome {
    pub(super) protocol: &'static str,
    pub(super) peers: usize,
    pub(super) block_bytes: u64,
    pub(super) blocks: u64,
    pub(super) interval_ms: u64,
    pub(super) link_mbit: Option<u32>,
    pub(super) p50_ms: f64,
    pub(super) p90_ms: f64,
    pub(super) p99_ms: f64,
    pub(super) max_ms: f64,
    pub(super) last_p50_ms: f64,
    pub(super) last_p90_ms: f64,
    pub(super) commit_p50_ms: f64,
    pub(super) copies: f64,
    pub(super) orderer_egress_blocks: f64,
    pub(super) orderer_pullers: usize,
    pub(super) cpu_ms_per_peer_block: f64,
    pub(super) rss_mb_per_peer: f64,
    pub(super) rss_mb_max: f64,
    pub(super) idle_bytes_per_s_per_peer: f64,
}

/// Runs one protocol; returns the measures and all latencies, in milliseconds, ascending.
pub(super) fn measure(
    arguments: &Arguments,
    protocol: Protocol,
    interrupt: &Interrupt,
) -> anyhow::Result<(Outcome, Vec<f64>)> {
    let network = start(arguments, protocol, interrupt)?;
    network::settle(&network, protocol.pullers(arguments.peers))?;
    let interval = Duration::from_millis(arguments.interval_ms);

    // The first blocks also tell what a transaction adds to its payload.
    let warmed = load::run(&network, WARM_UP_BLOCKS, arguments.block_bytes, interval)?;
    let overhead = load::block_bytes(&network, warmed.end - 1)?.saturating_sub(arguments.block_bytes);
    let payload_bytes = arguments.block_bytes.saturating_sub(overhead).max(1);

    wait::until(&network, Instant::now() + REST)?;
    let before_idle = Sample::take(&network)?;
    wait::until(&network, Instant::now() + Duration::from_secs(arguments.idle_seconds))?;
    let idle = Sample::take(&network)?.since(&before_idle);
    wait::until(&network, Instant::now() + REST)?;

    let before_load = Sample::take(&network)?;
    let numbers = load::run(&network, arguments.blocks, payload_bytes, interval)?;
    let spent = Sample::take(&network)?.since(&before_load);
    let orderer_pullers = network::pullers(&network)?;
    let (rss_mb_per_peer, rss_mb_max) = memory_mb(&network, |peer| network.peak_memory_kib(peer))?;
    let mut bytes = 0;
    for number in numbers.clone() {
        bytes += load::block_bytes(&network, number)?;
    }
    // The traces are whole only behind the processes.
    network.stop_all()?;
    let latencies = latencies(&network, numbers)?;

    let of_bytes = |value: f64| rounded(value / to_f64(bytes));
    let handed = |share: f64| rounded(percentile(&latencies.handed_ms, share));
    let outcome = Outcome {
        protocol: protocol.name(),
        peers: arguments.peers,
        block_bytes: bytes / arguments.blocks,
        blocks: arguments.blocks,
        interval_ms: arguments.interval_ms,
        link_mbit: arguments.link_mbit,
        p50_ms: handed(0.5),
        p90_ms: handed(0.9),
        p99_ms: handed(0.99),
        max_ms: handed(1.0),
        last_p50_ms: rounded(percentile(&latencies.last_ms, 0.5)),
        last_p90_ms: rounded(percentile(&latencies.last_ms, 0.9)),
        commit_p50_ms: rounded(percentile(&latencies.commit_ms, 0.5)),
        copies: of_bytes(spent.bytes_in_per_peer),
        orderer_egress_blocks: of_bytes(spent.orderer_bytes),
        orderer_pullers,
        cpu_ms_per_peer_block: rounded(1e3 * spent.cpu_seconds_per_peer / to_f64(arguments.blocks)),
        rss_mb_per_peer: rounded(rss_mb_per_peer),
        rss_mb_max: rounded(rss_mb_max),
        idle_bytes_per_s_per_peer: rounded(idle.bytes_in_per_peer / idle.seconds),
    };
    Ok((outcome, latencies.handed_ms))
}

fn start(arguments: &Arguments, protocol: Protocol, interrupt: &Interrupt) -> anyhow::Result<Network> {
    let mut builder = protocol.apply(network::builder(arguments.peers, interrupt)?)?;
    if let Some(mbit) = arguments.link_mbit {
        // Peers are told how fast their link is, as an operator would tell them.
        builder = builder.link_mbit(mbit).change(move |config| {
            config.gossip.0.insert("linkMbit".to_owned(), mbit.into());
        });
    }
    Ok(builder.start()?)
}

fn latencies(network: &Network, numbers: std::ops::Range<u64>) -> anyhow::Result<Latencies> {
    let orderers = network.orderers();
    let orderer = orderers.first().context("the network has an orderer")?;
    let written = Passages::new(network.trace(orderer)?, CHANNEL, &numbers);
    let mut peers = Vec::new();
    for peer in network.peers() {
        peers.push((peer.to_owned(), Passages::new(network.trace(peer)?, CHANNEL, &numbers)));
    }
    Latencies::new(&written, &peers, numbers).map_err(anyhow::Error::msg)
}
