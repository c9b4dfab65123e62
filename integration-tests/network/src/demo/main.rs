//! `grapevine-demo`: a whole network on this machine, watched live.
//!
//! Two organisations of three peers and one orderer run as separate processes. A real file goes in at the orderer as
//! transactions of channel `trade`, some lines go into channel `audit` of Org1 alone. Meanwhile Org1's leader is killed and later restarted; then the orderer is
//! stopped and a peer that was held back starts with an empty ledger. At the end the file is exported from every ledger and compared byte for byte,
//! all header hashes are compared, and Org2's files are searched for anything of `audit`.
//!
//! Exit status: 0 if everything was verified (the last line then says so), 1 if not, 130 after Ctrl-C, 143 after SIGTERM.
//! Whatever happens, no process is left behind.

mod report;
mod screen;
mod story;

use std::path::{Path, PathBuf};
use std::process::ExitCode;

use anyhow::Context;
use clap::Parser;
use grapevine_network::Interrupt;

/// Runs a whole network on this machine, live, and verifies that every ledger is the same.
#[derive(Debug, Parser)]
#[command(name = "grapevine-demo", version)]
struct Arguments {
    /// The file that goes through the ledger; by default the orderer-mock binary itself.
    #[arg(long)]
    input: Option<PathBuf>,
    /// The network; it needs the channels `trade` and `audit` and three peers in each organisation.
    #[arg(long)]
    config: Option<PathBuf>,
    /// Over how many seconds the file is submitted.
    #[arg(long, default_value_t = 20.0, value_parser = seconds)]
    pace: f64,
    /// Keep the directory with ledgers and logs.
    #[arg(long)]
    keep: bool,
}

fn seconds(text: &str) -> Result<f64, String> {
    match text.parse::<f64>() {
        Ok(number) if (1.0..=600.0).contains(&number) => Ok(number),
        _ => Err("write a number of seconds from 1 to 600".to_owned()),
    }
}

fn main() -> ExitCode {
    let arguments = Arguments::parse();
    let stop = match Interrupt::on_signals() {
        Ok(stop) => stop,
        Err(error) => {
            eprintln!("demo: {error:#}");
            return ExitCode::FAILURE;
        }
    };
    let result = run(&arguments, &stop);
    if let Some(status) = stop.exit_status() {
        eprintln!("demo: stopped; every process is gone");
        return ExitCode::from(status);
    }
    match result {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("demo: {error:#}");
            ExitCode::FAILURE
        }
    }
}

fn run(arguments: &Arguments, stop: &Interrupt) -> anyhow::Result<()> {
    let config = arguments
        .config
        .clone()
        .unwrap_or_else(|| Path::new(env!("CARGO_MANIFEST_DIR")).join("../../configs/demo/network.yaml"));
    let input = match &arguments.input {
        Some(input) => input.clone(),
        None => grapevine_network::binaries::Binaries::ready()?.orderer_mock,
    };
    let bytes = std::fs::read(&input)
        .with_context(|| format!("cannot read {}; name a file with INPUT=path", input.display()))?;
    anyhow::ensure!(!bytes.is_empty(), "{} is empty; name a file with some content", input.display());
    let verified = story::Story {
        config,
        input,
        bytes,
        pace: arguments.pace,
        keep: arguments.keep,
        interrupted: stop.flag(),
    }
    .tell()?;
    // The network is gone by now: nothing runs behind the last line.
    println!("\n{verified}");
    Ok(())
}
