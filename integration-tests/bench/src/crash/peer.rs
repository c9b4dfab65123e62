//! The peer that is killed: `grapevine run` and nothing else, in a process that kills itself at a failpoint if its environment says so.
//! `grapevine` itself has no such switch.

use std::ffi::OsString;
use std::path::PathBuf;
use std::process::ExitCode;

use clap::Args;
use grapevine_durability::deadly;

/// Name of the command that the harness starts.
pub(crate) const COMMAND: &str = "crash-peer";

/// What the harness says.
#[derive(Debug, Args)]
pub(crate) struct Arguments {
    /// The peer's configuration
    #[arg(long)]
    config: PathBuf,
}

/// Runs until SIGTERM, SIGINT or its death.
pub(crate) fn run(arguments: &Arguments) -> anyhow::Result<ExitCode> {
    if let Some((point, occurrence)) = deadly::ordered()? {
        deadly::arm(point, occurrence)?;
    }
    let command = ["grapevine", "run", "--config"].map(OsString::from);
    Ok(grapevine_peer::cli::main(command.into_iter().chain([arguments.config.clone().into_os_string()])))
}
