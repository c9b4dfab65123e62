//! `grapevine-bench idle`: what a network costs in which nothing happens.
//!
//! All peers are connected to each other and follow one leader. After a rest, in which what the start brought has settled, nothing is submitted for the
//! measured time.
//!
//! | field | is |
//! |---|---|
//! | `bytes_per_s_per_peer` | bytes a peer reads from its sockets a second, those of the orderer's stream among them; mean over the peers |
//! | `cpu_percent_per_peer` | processor time of a peer, user and kernel, in percent of one core; mean over the peers |
//! | `rss_mb_per_peer` | resident memory of a peer at the end, in 10^6 bytes; mean over the peers |
//! | `rss_mb_max` | of the largest of them |
//! | `orderer_bytes_per_s` | bytes the orderer writes a second |

use std::path::PathBuf;
use std::time::{Duration, Instant};

use clap::Args;
use grapevine_network::{Interrupt, Network};
use serde::Serialize;

use crate::output::{rounded, write_json};
use crate::sample::{Sample, memory_mb};
use crate::{network, wait};

/// Rest between the start and the measured time.
const REST: Duration = Duration::from_secs(5);

/// What to measure.
#[derive(Debug, Args)]
pub(crate) struct Arguments {
    /// Number of peers
    #[arg(long, value_name = "N", default_value_t = 20)]
    peers: usize,
    /// Length of the measured time
    #[arg(long, value_name = "S", default_value_t = 30)]
    seconds: u64,
    /// File for the result; - for standard output
    #[arg(long, value_name = "FILE")]
    json: Option<PathBuf>,
}

#[derive(Debug, Serialize)]
struct Idle {
    peers: usize,
    seconds: f64,
    bytes_per_s_per_peer: f64,
    cpu_percent_per_peer: f64,
    rss_mb_per_peer: f64,
    rss_mb_max: f64,
    orderer_bytes_per_s: f64,
}

/// Measures and reports.
pub(crate) fn run(arguments: &Arguments, interrupt: &Interrupt) -> anyhow::Result<()> {
    anyhow::ensure!(arguments.seconds > 0, "--seconds: write a number above 0");
    let network = network::builder(arguments.peers, interrupt)?.start()?;
    network::settle(&network, 1)?;
    wait::until(&network, Instant::now() + REST)?;
    let idle = measure(&network, Duration::from_secs(arguments.seconds))?;
    network.stop_all()?;
    eprintln!(
        "{} idle peers over {:.0} s: each reads {:.0} bytes/s, takes {:.2} % of a core and {:.0} MB",
        idle.peers, idle.seconds, idle.bytes_per_s_per_peer, idle.cpu_percent_per_peer, idle.rss_mb_per_peer
    );
    arguments.json.as_deref().map_or(Ok(()), |path| write_json(path, &idle))
}

fn measure(network: &Network, length: Duration) -> anyhow::Result<Idle> {
    let before = Sample::take(network)?;
    wait::until(network, Instant::now() + length)?;
    let spent = Sample::take(network)?.since(&before);
    let (mean, max) = memory_mb(network, |peer| network.present_memory_kib(peer))?;
    Ok(Idle {
        peers: network.peers().len(),
        seconds: rounded(spent.seconds),
        bytes_per_s_per_peer: rounded(spent.bytes_in_per_peer / spent.seconds),
        cpu_percent_per_peer: rounded(100.0 * spent.cpu_seconds_per_peer / spent.seconds),
        rss_mb_per_peer: rounded(mean),
        rss_mb_max: rounded(max),
        orderer_bytes_per_s: rounded(spent.orderer_bytes / spent.seconds),
    })
}
