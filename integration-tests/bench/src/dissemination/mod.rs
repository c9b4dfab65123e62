//! `grapevine-bench dissemination`: how blocks spread from an orderer to all peers of an organisation, by several protocols, one after the other
//! under the same load on the same machine.
//!
//! | protocol | is |
//! |---|---|
//! | `grapevine`, `classic`, `direct` | our peer with `peer.gossip.dissemination` set so; with `direct` every peer pulls from the orderer |
//! | `gossipsub` | rust-libp2p's gossipsub carrying the same blocks, in a peer that has nothing else to do ([`crate::gossipsub`]) |
//!
//! # One run
//! A fresh network is started; all peers are connected and have a source. A few blocks warm it up, then follows a quiet time, in which the idle traffic is
//! measured, then the load: blocks of one transaction, paced. Sizes are those of the orderer's block files.
//!
//! With `--link-mbit` every peer and the orderer sit behind links of that speed ([`grapevine_network::namespaces`]), otherwise loopback joins them.
//!
//! # Measures
//! Times come from the block traces of the processes ([`grapevine_block_trace`]): a latency is the time from the orderer having written (synced) a block
//! until a peer has verified it and hands it to its ledger. All peers count, the leader among them.
//!
//! | field | is |
//! |---|---|
//! | `p50_ms`, `p90_ms`, `p99_ms`, `max_ms` | of the latencies of all peers and blocks |
//! | `last_p50_ms`, `last_p90_ms` | of the latencies of each block's slowest peer |
//! | `commit_p50_ms` | from handing it to the ledger until the ledger has synced it, median over peers and blocks |
//! | `copies` | bytes a peer read from its sockets during the load ÷ bytes of the blocks, mean over the peers: everything counts, encryption, control frames and the orderer's stream. TCP/IP headers don't |
//! | `orderer_egress_blocks` | bytes the orderer wrote to its sockets ÷ bytes of the blocks; the answers to who submits are among them |
//! | `orderer_pullers` | peers that pull from the orderer when the load ends: each should account for one block of the egress |
//! | `cpu_ms_per_peer_block` | processor time of a peer, user and kernel, for each block; mean over the peers |
//! | `rss_mb_per_peer`, `rss_mb_max` | the most resident memory a peer had, in 10^6 bytes: mean over the peers, and the largest |
//! | `idle_bytes_per_s_per_peer` | bytes a peer read from its sockets a second in the quiet time; mean over the peers |

pub(crate) mod latency;
pub(crate) mod load;
mod protocol;
mod run;
mod table;

use std::path::PathBuf;

use anyhow::Context;
use clap::Args;
use grapevine_network::{Interrupt, namespaces};

use crate::output::write_json;
use crate::plot;
use protocol::Protocol;

/// What to measure.
#[derive(Debug, Args)]
pub(crate) struct Arguments {
    /// Number of peers
    #[arg(long, value_name = "N", default_value_t = 20)]
    peers: usize,
    /// Size of a block in bytes
    #[arg(long, value_name = "B", default_value_t = 160_000)]
    block_bytes: u64,
    /// Number of blocks
    #[arg(long, value_name = "K", default_value_t = 60)]
    blocks: u64,
    /// Time between two blocks in milliseconds
    #[arg(long, value_name = "T", default_value_t = 200)]
    interval_ms: u64,
    /// Limit of every link in Mbit/s, either direction: each process in a network namespace of its own; as root
    #[arg(long, value_name = "M", value_parser = clap::value_parser!(u32).range(1..=100_000))]
    link_mbit: Option<u32>,
    /// Protocols, in this order
    #[arg(long, value_enum, value_delimiter = ',', default_value = "grapevine,classic,direct,gossipsub")]
    compare: Vec<Protocol>,
    /// Length of the quiet time before the load, in seconds
    #[arg(long, value_name = "S", default_value_t = 5)]
    idle_seconds: u64,
    /// File for the results; - for standard output
    #[arg(long, value_name = "FILE")]
    json: Option<PathBuf>,
    /// File for the distributions of latencies as SVG
    #[arg(long, value_name = "FILE")]
    plot: Option<PathBuf>,
}

/// Measures and reports.
pub(crate) fn run(arguments: &Arguments, interrupt: &Interrupt) -> anyhow::Result<()> {
    anyhow::ensure!(arguments.blocks > 0, "--blocks: write a number above 0");
    anyhow::ensure!(arguments.interval_ms > 0, "--interval-ms: write a number above 0");
    anyhow::ensure!(arguments.idle_seconds > 0, "--idle-seconds: write a number above 0");
    if arguments.link_mbit.is_some() {
        namespaces::isolate()?;
    }
    let (mut results, mut curves) = (Vec::new(), Vec::new());
    for protocol in &arguments.compare {
        eprintln!(
            "{}: {} blocks of {} bytes to {} peers",
            protocol.name(),
            arguments.blocks,
            arguments.block_bytes,
            arguments.peers
        );
        let (result, latencies) = run::measure(arguments, *protocol, interrupt)
            .with_context(|| format!("measuring {}", protocol.name()))?;
        results.push(result);
        curves.push(plot::Curve { name: protocol.name().to_owned(), values_ms: latencies });
    }
    eprint!("\n{}", table::render(&results));
    if let Some(path) = &arguments.plot {
        let title = title(arguments);
        std::fs::write(path, plot::distributions(&title, &curves))
            .with_context(|| format!("cannot write {}", path.display()))?;
    }
    arguments.json.as_deref().map_or(Ok(()), |path| write_json(path, &results))
}

fn title(arguments: &Arguments) -> String {
    let Arguments { peers, block_bytes, blocks, interval_ms, .. } = arguments;
    let links =
        arguments.link_mbit.map_or_else(|| "loopback".to_owned(), |mbit| format!("links of {mbit} Mbit/s"));
    let size = crate::output::bytes(*block_bytes);
    format!("{blocks} blocks of {size}, one every {interval_ms} ms, to {peers} peers over {links}")
}
