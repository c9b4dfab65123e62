//! `orderer-mock fault`.

use std::path::PathBuf;

use anyhow::Result;
use clap::Args;
use grapevine_channels::ChannelId;
use grapevine_configs::{ConfigFile, OrdererConfig};
use grapevine_orderer_mock::control::switch_fault;
use grapevine_orderer_mock::faults::Fault;

use crate::log_warnings;

#[derive(Debug, Args)]
pub(crate) struct FaultArgs {
    /// The orderer.yaml of the running orderer.
    #[arg(long)]
    config: PathBuf,
    /// The channel; without it all channels.
    #[arg(long)]
    channel: Option<ChannelId>,
    #[command(subcommand)]
    kind: Fault,
}

pub(crate) fn run(arguments: &FaultArgs) -> Result<()> {
    let (config, warnings) = OrdererConfig::load(&arguments.config, std::env::vars())?;
    log_warnings(&warnings);
    let channel = arguments.channel.as_ref().map(ChannelId::as_str);
    switch_fault(&config.file_ledger.location, channel, arguments.kind)?;
    println!("done");
    Ok(())
}
