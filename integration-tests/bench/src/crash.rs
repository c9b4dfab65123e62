//! `grapevine-bench crash`: what a ledger whose process is killed again and again has lost.
//!
//! A child process appends blocks to two channels as fast as its ledger takes them and says what is committed. It is killed
//! (SIGKILL) in turns at a random moment, at each named point of the commit path, and at system calls on the ledger's files;
//! then the ledger is opened and every block that was ever reported is compared byte by byte. The campaign is
//! `grapevine-durability`'s.
//!
//! | field | meaning |
//! |---|---|
//! | `kills` | processes killed |
//! | `kills_at_failpoints`, `kills_at_system_calls` | those that reached their point |
//! | `reported_blocks` | blocks reported as committed |
//! | `lost_blocks` | of those, not there afterwards; anything but 0 is an error |
//! | `restart_max_s` | longest time from starting a process on what a kill left to its ledger being open, recovery included |
//! | `drop_unsynced` | whether each kill also lost every write that was not synced, as a power failure does |

use std::path::PathBuf;
use std::process::Command;
use std::sync::atomic::Ordering;

use anyhow::Context as _;
use clap::Args;
use grapevine_durability::writer::{self, Orders};
use grapevine_durability::{Campaign, Outcome};
use grapevine_network::Interrupt;
use serde::Serialize;

use crate::output;

/// What to measure.
#[derive(Debug, Args)]
pub(crate) struct Arguments {
    /// How often the process is killed
    #[arg(long, value_name = "N", default_value_t = 100)]
    pub(crate) kills: u64,
    /// Drop every write that was not followed by a sync, as a power failure does
    #[arg(long)]
    pub(crate) drop_unsynced: bool,
    /// Begin of the random numbers
    #[arg(long, value_name = "N", default_value_t = 1)]
    pub(crate) seed: u64,
    /// Directory for the ledger, made and removed; default: a temporary one
    #[arg(long, value_name = "DIR")]
    pub(crate) directory: Option<PathBuf>,
    /// File for the result; - for standard output
    #[arg(long, value_name = "FILE")]
    pub(crate) json: Option<PathBuf>,
}

#[derive(Debug, Serialize)]
struct Report {
    kills: u64,
    kills_at_failpoints: u64,
    kills_at_system_calls: u64,
    reported_blocks: u64,
    lost_blocks: u64,
    restart_max_s: f64,
    drop_unsynced: bool,
    seed: u64,
}

/// Name of the command that the child process is started with.
pub(crate) const WRITER: &str = "crash-writer";

/// What the child process does.
pub(crate) fn run_writer() -> anyhow::Result<()> {
    let orders = Orders::taken()?.context("this command is for `grapevine-bench crash` alone")?;
    writer::run(&orders)
}

/// Measures and reports.
pub(crate) fn run(arguments: &Arguments, interrupt: &Interrupt) -> anyhow::Result<()> {
    let campaign =
        Campaign { kills: arguments.kills, drop_unsynced: arguments.drop_unsynced, seed: arguments.seed };
    let parent = match &arguments.directory {
        Some(directory) => std::path::absolute(directory)?,
        None => std::env::temp_dir(),
    };
    std::fs::create_dir_all(&parent)?;
    let directory = tempfile::Builder::new().prefix("grapevine-crash-").tempdir_in(&parent)?;
    let program = std::env::current_exe().context("cannot find this program")?;
    let writer = || {
        let mut command = Command::new(&program);
        command.arg(WRITER);
        Ok(command)
    };
    let flag = interrupt.flag();
    let outcome = campaign.run(directory.path(), &writer, &|| !flag.load(Ordering::Relaxed))?;
    let report = report(arguments, &outcome);
    if let Some(path) = &arguments.json {
        output::write_json(path, &report)?;
    }
    eprintln!(
        "{} kills ({} at failpoints, {} at system calls), {} blocks reported, {} lost, restart at most {} s",
        report.kills,
        report.kills_at_failpoints,
        report.kills_at_system_calls,
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
        reported_blocks: outcome.blocks,
        lost_blocks: outcome.lost_blocks,
        restart_max_s: output::rounded(outcome.restart_max.as_secs_f64()),
        drop_unsynced: arguments.drop_unsynced,
        seed: arguments.seed,
    }
}
