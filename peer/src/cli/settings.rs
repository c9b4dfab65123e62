//! What the commands need from `peer.yaml` and the environment.

use std::io::Write as _;
use std::path::{Path, PathBuf};

use anyhow::Context as _;
use grapevine_channels::ChannelId;
use grapevine_configs::{ConfigFile, PeerConfig, Warning};
use grapevine_crypto::MspId;

use crate::ledger::DIRECTORY;

/// Where a peer keeps its things.
#[derive(Debug)]
pub(super) struct Settings {
    /// `peer.fileSystemPath`: data directory, home of the admin socket.
    pub(super) data: PathBuf,
    /// Directory of the ledger.
    pub(super) ledger: PathBuf,
    /// `peer.localMspId`.
    pub(super) msp_id: MspId,
    /// `peer.mspConfigPath`.
    pub(super) msp_directory: PathBuf,
}

/// Reads the configuration; warnings go to standard error.
pub(super) fn load(path: &Path) -> anyhow::Result<Settings> {
    let (config, warnings) = read(path)?;
    for warning in warnings {
        // Standard error may be closed; the command works all the same.
        let _closed =
            std::io::Write::write_fmt(&mut std::io::stderr(), format_args!("grapevine: {warning}\n"));
    }
    let data = config.peer.file_system_path;
    let (msp_id, msp_directory) = (config.peer.local_msp_id.as_str().into(), config.peer.msp_config_path);
    Ok(Settings { ledger: data.join(DIRECTORY), data, msp_id, msp_directory })
}

/// Prints warnings to standard error.
pub(super) fn warn(warnings: &[Warning]) {
    for warning in warnings {
        // Standard error may be closed; the command works all the same.
        let _closed = writeln!(std::io::stderr(), "grapevine: {warning}");
    }
}

/// Reads the configuration; warnings are logged.
pub(super) fn load_and_log(path: &Path) -> anyhow::Result<PeerConfig> {
    let (config, warnings) = read(path)?;
    for warning in warnings {
        tracing::warn!("{warning}");
    }
    Ok(config)
}

fn read(path: &Path) -> anyhow::Result<(PeerConfig, Vec<Warning>)> {
    Ok(PeerConfig::load(path, environment())?)
}

/// The variables that are text; configuration variables always are.
pub(super) fn environment() -> impl Iterator<Item = (String, String)> {
    std::env::vars_os()
        .filter_map(|(name, value)| Some((name.into_string().ok()?, value.into_string().ok()?)))
}

/// The channel named on the command line.
pub(super) fn channel(name: &str) -> anyhow::Result<ChannelId> {
    name.parse().with_context(|| format!("--channel {name} is not a channel's name"))
}
