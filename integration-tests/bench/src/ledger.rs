//! `grapevine-bench ledger`: what the ledger costs on this disk.
//!
//! | field | meaning |
//! |---|---|
//! | `committed_mb`, `blocks`, `syncs` | what was committed, and with how many synced writes |
//! | `rate_mb_s` | committed megabytes a second, with nothing else to do |
//! | `written_ratio` | bytes handed to the operating system ÷ bytes committed |
//! | `device_ratio` | bytes that block devices were made to write ÷ bytes committed; 0 in memory |
//! | `openings` | megabytes in the ledger, and the seconds it took to open it after it was closed without being flushed |

use std::path::PathBuf;

use clap::Args;
use grapevine_durability::measure;
use serde::Serialize;

use crate::output;

/// What to measure.
#[derive(Debug, Args)]
pub(crate) struct Arguments {
    /// Size of a block in bytes
    #[arg(long, value_name = "B", default_value_t = 160_000)]
    pub(crate) block_bytes: usize,
    /// Megabytes to commit
    #[arg(long, value_name = "N", default_value_t = 2_000)]
    pub(crate) megabytes: u64,
    /// How often the ledger is opened on the way
    #[arg(long, value_name = "N", default_value_t = 10)]
    pub(crate) openings: u64,
    /// Directory for the ledger, made and removed; default: a temporary one
    #[arg(long, value_name = "DIR")]
    pub(crate) directory: Option<PathBuf>,
    /// File for the result; - for standard output
    #[arg(long, value_name = "FILE")]
    pub(crate) json: Option<PathBuf>,
}

#[derive(Debug, Serialize)]
struct Report {
    block_bytes: usize,
    committed_mb: f64,
    blocks: u64,
    syncs: u64,
    rate_mb_s: f64,
    written_ratio: f64,
    device_ratio: f64,
    openings: Vec<(f64, f64)>,
}

/// Measures and reports.
#[expect(clippy::cast_precision_loss, reason = "figures for people")]
pub(crate) fn run(arguments: &Arguments) -> anyhow::Result<()> {
    let parent = arguments.directory.clone().unwrap_or_else(std::env::temp_dir);
    std::fs::create_dir_all(&parent)?;
    let directory = tempfile::Builder::new().prefix("grapevine-ledger-").tempdir_in(&parent)?;
    let bytes = arguments.megabytes.saturating_mul(1_000_000);
    let measured =
        measure(&directory.path().join("ledger"), arguments.block_bytes, bytes, arguments.openings)?;
    let megabytes = |bytes: u64| output::rounded(bytes as f64 / 1e6);
    let committed = measured.committed_bytes.max(1) as f64;
    let report = Report {
        block_bytes: arguments.block_bytes,
        committed_mb: megabytes(measured.committed_bytes),
        blocks: measured.blocks,
        syncs: measured.syncs,
        rate_mb_s: output::rounded(committed / 1e6 / measured.took.as_secs_f64().max(1e-6)),
        written_ratio: output::rounded(measured.written_bytes as f64 / committed),
        device_ratio: output::rounded(measured.device_bytes as f64 / committed),
        openings: measured
            .openings
            .iter()
            .map(|(bytes, took)| (megabytes(*bytes), output::rounded(took.as_secs_f64())))
            .collect(),
    };
    if let Some(path) = &arguments.json {
        output::write_json(path, &report)?;
    }
    let slowest = report.openings.iter().map(|(_, seconds)| *seconds).fold(0.0, f64::max);
    eprintln!(
        "{} MB in {} blocks and {} syncs at {} MB/s; {} bytes written for each committed ({} on devices); opening took at most {slowest} s",
        report.committed_mb,
        report.blocks,
        report.syncs,
        report.rate_mb_s,
        report.written_ratio,
        report.device_ratio
    );
    Ok(())
}
