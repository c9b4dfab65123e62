//! `grapevine-bench crash`: what a peer that is killed again and again has lost.

use std::path::PathBuf;

use clap::Args;
use grapevine_network::Interrupt;

/// What to measure.
#[derive(Debug, Args)]
pub(crate) struct Arguments {
    /// How often the peer is killed
    #[arg(long, value_name = "N", default_value_t = 100)]
    pub(crate) kills: u64,
    /// Drop every write that was not followed by a sync, as a power failure does
    #[arg(long)]
    pub(crate) drop_unsynced: bool,
    /// File for the result; - for standard output
    #[arg(long, value_name = "FILE")]
    pub(crate) json: Option<PathBuf>,
}

/// Measures and reports.
pub(crate) fn run(arguments: &Arguments, _interrupt: &Interrupt) -> anyhow::Result<()> {
    anyhow::bail!("not measured by this version: {arguments:?}")
}
