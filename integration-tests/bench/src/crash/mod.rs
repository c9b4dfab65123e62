//! `grapevine-bench crash`: what peers that are killed again and again have lost.
//!
//! Two peers commit blocks from an orderer that never rests. They are killed (SIGKILL) in turns: at a random moment, at a failpoint of the
//! commit path, and at a system call on the ledger's files, before it, after it or halfway through it. Until then every block that the
//! admin socket or the Deliver server told of is noted. Then the ledger is opened as the kill left it, before the peer can fetch anything again,
//! and every noted block must be there, be the orderer's byte for byte, and pass the walk of `channel verify`. [`campaign`] says how.
//!
//! | field | meaning |
//! |---|---|
//! | `kills` | peers killed |
//! | `kills_at_failpoints`, `kills_at_system_calls` | those that reached their point |
//! | `kills_while_committing` | those that had committed blocks since their start |
//! | `reported_blocks` | blocks reported as committed |
//! | `lost_blocks` | of those, not there afterwards; anything but 0 is an error |
//! | `restart_max_s` | longest time from the start of a peer on what a kill left until it reports all blocks that it had reported before |
//! | `drop_unsynced` | whether each kill also lost every write that was not synced, as a power failure does |

mod campaign;
mod check;
mod peer;
mod reports;

use std::path::PathBuf;

use clap::Args;
use grapevine_network::Interrupt;
use serde::Serialize;

use crate::output;
use campaign::{Campaign, Outcome};

pub(crate) use peer::{Arguments as PeerArguments, COMMAND, run as run_peer};

/// What to measure.
#[derive(Debug, Args)]
pub(crate) struct Arguments {
    /// How often a peer is killed
    #[arg(long, value_name = "N", default_value_t = 100)]
    pub(crate) kills: u64,
    /// Drop every write that was not followed by a sync, as a power failure does
    #[arg(long)]
    pub(crate) drop_unsynced: bool,
    /// Begin of the random numbers
    #[arg(long, value_name = "N", default_value_t = 1)]
    pub(crate) seed: u64,
    /// File for the result; - for standard output
    #[arg(long, value_name = "FILE")]
    pub(crate) json: Option<PathBuf>,
}

#[derive(Debug, Serialize)]
struct Report {
    kills: u64,
    kills_at_failpoints: u64,
    kills_at_system_calls: u64,
    kills_while_committing: u64,
    reported_blocks: u64,
    lost_blocks: u64,
    restart_max_s: f64,
    drop_unsynced: bool,
    seed: u64,
}

/// Measures and reports.
pub(crate) fn run(arguments: &Arguments, interrupt: &Interrupt) -> anyhow::Result<()> {
    anyhow::ensure!(arguments.kills > 0, "--kills: write a number above 0");
    let campaign =
        Campaign { kills: arguments.kills, drop_unsynced: arguments.drop_unsynced, seed: arguments.seed };
    let report = report(arguments, &campaign.run(interrupt)?);
    if let Some(path) = &arguments.json {
        output::write_json(path, &report)?;
    }
    eprintln!(
        "{} kills ({} at failpoints, {} at system calls, {} while committing), {} blocks reported, {} lost, restart at most {} s",
        report.kills,
        report.kills_at_failpoints,
        report.kills_at_system_calls,
        report.kills_while_committing,
        report.reported_blocks,
        report.lost_blocks,
        report.restart_max_s
    );
    anyhow::ensure!(report.lost_blocks == 0, "{} reported blocks were lost", report.lost_blocks);
    Ok(())
}

fn report(arguments: &Arguments, outcome: &Outcome) -> Report {
    Report {
        kills: outcome.kills,
        kills_at_failpoints: outcome.at_failpoints,
        kills_at_system_calls: outcome.at_system_calls,
        kills_while_committing: outcome.while_committing,
        reported_blocks: outcome.reported_blocks,
        lost_blocks: outcome.lost_blocks,
        restart_max_s: output::rounded(outcome.restart_max.as_secs_f64()),
        drop_unsynced: arguments.drop_unsynced,
        seed: arguments.seed,
    }
}
