//! `grapevine net init`: the files of a whole network.

use std::path::Path;
use std::time::{SystemTime, UNIX_EPOCH};

use anyhow::Context as _;
use grapevine_configs::{ConfigFile, NetworkConfig};

use super::{output, settings};
use crate::net_init::{ProcessKind, net_init};

pub(super) fn init(config: &Path, directory: &Path) -> anyhow::Result<()> {
    let (config, warnings) = NetworkConfig::load(config, settings::environment())?;
    settings::warn(&warnings);
    let now = SystemTime::now()
        .duration_since(UNIX_EPOCH)
        .ok()
        .and_then(|since| i64::try_from(since.as_secs()).ok())
        .context("the clock of this machine is not set; set it, for certificates carry the time")?;
    let report = net_init(&config, directory, now)?;
    let mut rows = Vec::new();
    for process in &report.processes {
        let program = match process.kind {
            ProcessKind::Peer => "grapevine",
            ProcessKind::Orderer => "orderer-mock",
        };
        rows.push(vec![
            process.name.clone(),
            process.msp_id.clone(),
            process.listen_address.to_string(),
            format!("{program} run --config {}", process.config.display()),
        ]);
    }
    for (channel, block) in &report.channels {
        rows.push(vec![channel.clone(), "channel".to_owned(), String::new(), block.display().to_string()]);
    }
    let heading = if report.replaced { "Made anew in" } else { "Made in" };
    let text = format!("{heading} {}:\n{}", report.directory.display(), output::table(&rows));
    Ok(output::print(&text)?)
}
