//! `grapevine-bench burden`: what peers that catch up cost those that have everything.
//!
//! Some peers have a history; live blocks are spread among them, first with nobody behind and then the same again while late peers, which
//! start with empty ledgers, fetch the history from them. With `--link-mbit` every process has a link of its own, which both share.
//!
//! | field | is |
//! |---|---|
//! | `live_p50_ms`, `live_p99_ms` | from the orderer having written a block until a peer that is not late hands it to its ledger: `[alone, burdened]` |
//! | `live_p99_ratio` | burdened ÷ alone |
//! | `late_mb_s` | what the late peers committed a second while live blocks were spread, each, in 10^6 bytes |
//! | `still_behind` | whether they were busy to the end of the load; if not, use more blocks |

use std::path::PathBuf;
use std::time::{Duration, Instant};

use anyhow::Context as _;
use clap::Args;
use grapevine_network::{Interrupt, Network, namespaces};
use serde::Serialize;

use crate::dissemination::latency::{Latencies, Passages, percentile};
use crate::dissemination::load;
use crate::network::{self, CHANNEL, SETTLE_WITHIN};
use crate::output::{rounded, write_json};
use crate::sample::to_f64;
use crate::wait;

/// Live blocks before the measured ones.
const WARM_UP_BLOCKS: u64 = 10;
/// Rest before each load.
const REST: Duration = Duration::from_secs(2);
/// Everybody has the history within this time.
const HISTORY_WITHIN: Duration = Duration::from_secs(600);

/// What to measure.
#[derive(Debug, Args)]
pub(crate) struct Arguments {
    /// Peers that have everything
    #[arg(long, value_name = "N", default_value_t = 5)]
    peers: usize,
    /// Peers that catch up from them
    #[arg(long, value_name = "N", default_value_t = 2)]
    late: usize,
    /// Blocks of the history
    #[arg(long, value_name = "K", default_value_t = 700)]
    blocks: u64,
    /// Size of every block in bytes
    #[arg(long, value_name = "B", default_value_t = 160_000)]
    block_bytes: u64,
    /// Live blocks, alone and again with the burden
    #[arg(long, value_name = "K", default_value_t = 40)]
    live_blocks: u64,
    /// Time between two live blocks in milliseconds
    #[arg(long, value_name = "T", default_value_t = 200)]
    interval_ms: u64,
    /// Limit of every link in Mbit/s, either direction: each process in a network namespace of its own; as root
    #[arg(long, value_name = "M", value_parser = clap::value_parser!(u32).range(1..=100_000))]
    link_mbit: Option<u32>,
    /// File for the result; - for standard output
    #[arg(long, value_name = "FILE")]
    json: Option<PathBuf>,
}

#[derive(Debug, Serialize)]
struct Burden {
    peers: usize,
    late: usize,
    blocks: u64,
    block_bytes: u64,
    live_blocks: u64,
    interval_ms: u64,
    link_mbit: Option<u32>,
    live_p50_ms: [f64; 2],
    live_p99_ms: [f64; 2],
    live_p99_ratio: f64,
    late_mb_s: f64,
    still_behind: bool,
}

/// Measures and reports.
pub(crate) fn run(arguments: &Arguments, interrupt: &Interrupt) -> anyhow::Result<()> {
    anyhow::ensure!(arguments.peers > 1 && arguments.late > 0, "--peers must be above 1 and --late above 0");
    anyhow::ensure!(arguments.blocks > 0 && arguments.live_blocks > 0, "write numbers of blocks above 0");
    anyhow::ensure!(arguments.interval_ms > 0 && arguments.block_bytes > 0, "write numbers above 0");
    if arguments.link_mbit.is_some() {
        namespaces::isolate()?;
    }
    let network = start(arguments, interrupt)?;
    let (present, late) = names(arguments);
    let peers: Vec<&str> = present.iter().map(String::as_str).collect();
    let interval = Duration::from_millis(arguments.interval_ms);
    let spread =
        |blocks, interval| load::run_among(&network, &peers, blocks, arguments.block_bytes, interval);
    let history =
        load::all_at_once(&network, &peers, arguments.blocks, arguments.block_bytes, HISTORY_WITHIN)?;
    spread(WARM_UP_BLOCKS, interval)?;
    wait::until(&network, Instant::now() + REST)?;
    let alone = spread(arguments.live_blocks, interval)?;
    for peer in &late {
        network.start(peer)?;
    }
    let began = Instant::now();
    let before = heights(&network, &late)?;
    let burdened = spread(arguments.live_blocks, interval)?;
    let took = began.elapsed().as_secs_f64();
    let after = heights(&network, &late)?;
    let still_behind = after.iter().all(|height| *height < history.end);
    network.stop_all()?;
    let came = after.iter().zip(&before).map(|(after, before)| to_f64(after.saturating_sub(*before)));
    let came = came.sum::<f64>() / to_f64(late.len() as u64);
    let measured = [alone, burdened].map(|numbers| latencies(&network, &peers, numbers));
    let [alone, burdened] = measured;
    let both = [alone?, burdened?];
    let of = |share: f64| both.each_ref().map(|values| rounded(percentile(values, share)));
    let p99 = of(0.99);
    let result = Burden {
        peers: arguments.peers,
        late: arguments.late,
        blocks: arguments.blocks,
        block_bytes: arguments.block_bytes,
        live_blocks: arguments.live_blocks,
        interval_ms: arguments.interval_ms,
        link_mbit: arguments.link_mbit,
        live_p50_ms: of(0.5),
        live_p99_ms: p99,
        live_p99_ratio: rounded(p99[1] / p99[0].max(1e-6)),
        late_mb_s: rounded(came * to_f64(arguments.block_bytes) / 1e6 / took),
        still_behind,
    };
    eprintln!(
        "p99 {} ms alone, {} ms while {} catch up at {} MB/s each: {} times{}",
        result.live_p99_ms[0],
        result.live_p99_ms[1],
        result.late,
        result.late_mb_s,
        result.live_p99_ratio,
        if still_behind { "" } else { "; they were done before the load was" }
    );
    arguments.json.as_deref().map_or(Ok(()), |path| write_json(path, &result))
}

/// Those that are there, and those that come later.
fn names(arguments: &Arguments) -> (Vec<String>, Vec<String>) {
    let all = (0..arguments.peers + arguments.late).map(|index| format!("peer{index}"));
    let mut present: Vec<String> = all.collect();
    let late = present.split_off(arguments.peers);
    (present, late)
}

fn start(arguments: &Arguments, interrupt: &Interrupt) -> anyhow::Result<Network> {
    let mut builder = network::builder(arguments.peers + arguments.late, interrupt)?;
    for peer in names(arguments).1 {
        builder = builder.hold_back(peer);
    }
    if let Some(mbit) = arguments.link_mbit {
        builder = builder.link_mbit(mbit).change(move |config| {
            config.gossip.0.insert("linkMbit".to_owned(), mbit.into());
        });
    }
    let network = builder.start()?;
    let wanted = arguments.peers.saturating_sub(1);
    network.wait_until("all peers to be connected", SETTLE_WITHIN, || {
        for peer in names(arguments).0 {
            let connected = network.status(&peer)?.members.iter().filter(|member| member.connected).count();
            if connected < wanted {
                return Ok(Err(format!("{peer} is connected to {connected}")));
            }
        }
        Ok(Ok(()))
    })?;
    Ok(network)
}

fn heights(network: &Network, peers: &[String]) -> anyhow::Result<Vec<u64>> {
    peers.iter().map(|peer| Ok(network.status(peer)?.height(CHANNEL))).collect()
}

/// Milliseconds from written to handed of every peer and block, ascending.
fn latencies(network: &Network, peers: &[&str], numbers: std::ops::Range<u64>) -> anyhow::Result<Vec<f64>> {
    let orderer = *network.orderers().first().context("the network has an orderer")?;
    let written = Passages::new(network.trace(orderer)?, CHANNEL, &numbers);
    let mut passages = Vec::new();
    for peer in peers {
        passages.push(((*peer).to_owned(), Passages::new(network.trace(peer)?, CHANNEL, &numbers)));
    }
    Ok(Latencies::new(&written, &passages, numbers).map_err(anyhow::Error::msg)?.handed_ms)
}
