//! `grapevine-simulator catch-up`.

use std::time::Duration;

use anyhow::bail;
use grapevine_simulator::links::Sharing;
use grapevine_simulator::{CatchUp, CaughtUp};

/// What is measured.
#[derive(Debug, clap::Args)]
pub(crate) struct Rejoin {
    /// Peers that have everything; the first leads.
    #[arg(long, default_value_t = 4)]
    sources: usize,
    /// Peers that have nothing.
    #[arg(long, default_value_t = 1)]
    late: usize,
    /// Bytes of a block; several for a row each.
    #[arg(long, value_delimiter = ',', default_value = "10000,160000,2000000")]
    block_bytes: Vec<usize>,
    /// Megabytes that are missing.
    #[arg(long, default_value_t = 400)]
    megabytes: u64,
    /// Milliseconds of a round trip between any two.
    #[arg(long, default_value_t = 66)]
    round_trip_ms: u64,
    /// Mbit/s of every peer's link, up and down.
    #[arg(long, default_value_t = 1_000)]
    bandwidth_mbit: u64,
    /// Blocks that the orderer makes meanwhile; 0: none.
    #[arg(long, default_value_t = 0)]
    live_blocks: u64,
    /// Bytes of each.
    #[arg(long, default_value_t = 160_000)]
    live_bytes: usize,
    /// Milliseconds between two of them.
    #[arg(long, default_value_t = 200)]
    interval_ms: u64,
    /// Decides everything that is random.
    #[arg(long, default_value_t = 1)]
    seed: u64,
    /// Prints a JSON object for each row.
    #[arg(long)]
    json: bool,
}

impl Rejoin {
    /// Runs and shows.
    pub(crate) fn run(&self) -> anyhow::Result<()> {
        if self.sources == 0 || self.bandwidth_mbit == 0 || self.interval_ms == 0 {
            bail!("--sources, --bandwidth-mbit and --interval-ms must be at least 1");
        }
        if self.late == 0 && self.live_blocks == 0 {
            bail!("without --late and --live-blocks there is nothing to measure");
        }
        for block_bytes in &self.block_bytes {
            if *block_bytes < 100 {
                bail!("--block-bytes: a block has at least 100");
            }
            let row = self.row(*block_bytes).run()?;
            if self.json {
                println!("{}", serde_json::to_string(&row)?);
            } else {
                println!("{}", line(&row));
            }
        }
        Ok(())
    }

    fn row(&self, block_bytes: usize) -> CatchUp {
        let interval = Duration::from_millis(self.interval_ms);
        CatchUp {
            sources: self.sources,
            late: self.late,
            blocks: (self.megabytes.saturating_mul(1_000_000) / block_bytes as u64).max(2),
            block_bytes,
            round_trip: Duration::from_millis(self.round_trip_ms),
            bandwidth: self.bandwidth_mbit.saturating_mul(125_000),
            // What connections of TCP side by side give.
            sharing: Sharing::Fair,
            live: (self.live_blocks > 0).then_some((self.live_blocks, interval)),
            live_bytes: self.live_bytes,
            seed: self.seed,
        }
    }
}

fn line(row: &CaughtUp) -> String {
    let mut line = format!("{} sources, {} blocks of {} bytes", row.sources, row.blocks, row.block_bytes);
    if row.late > 0 {
        line.push_str(&format!(
            ": {} late, first block after {:.0} ms, then {:.1} MB/s, {:.3} copies",
            row.late, row.first_block_ms, row.rate_mb_s, row.copies
        ));
    }
    if let (Some(p50), Some(p99)) = (row.live_p50_ms, row.live_p99_ms) {
        line.push_str(&format!("; live blocks p50 {p50:.1} ms, p99 {p99:.1} ms"));
    }
    line
}
