//! `grapevine channel verify` and `grapevine channel repair`.
//!
//! `verify` walks the ledger's files, whether the peer runs or not, and changes nothing. `repair` walks too, then has the
//! running peer put right what is wrong: what finds a block is written anew, and a block that is damaged is fetched from
//! other peers. It waits until that is done and walks again.

use std::time::{Duration, Instant};

use anyhow::{Context as _, bail};
use grapevine_channels::ChannelId;
use serde::Serialize;

use super::output;
use super::progress::ProgressBar;
use super::settings::Settings;
use crate::admin::{AdminClient, AdminClientError, ChannelStatus, RANGES_MAX};
use crate::ledger::{Examination, Ledger};

/// How often the peer is asked how far it is.
const POLL_INTERVAL: Duration = Duration::from_millis(200);
/// A repair without progress for this long is left to the peer.
const PATIENCE: Duration = Duration::from_secs(60);

/// What `verify --json` prints.
#[derive(Debug, Serialize)]
struct Report {
    channel: String,
    sound: bool,
    height: u64,
    bytes: u64,
    seconds: f64,
    tip: Option<String>,
    bad_ranges: Vec<(u64, u64)>,
    unchecked: u64,
    findings: Vec<(u64, String)>,
}

pub(super) fn verify(settings: &Settings, channel: &ChannelId, json: bool) -> anyhow::Result<()> {
    let started = Instant::now();
    let found = examine(settings, channel)?;
    let seconds = started.elapsed().as_secs_f64();
    if json {
        let report = Report {
            channel: channel.to_string(),
            sound: found.is_sound(),
            height: found.progress.height,
            bytes: found.progress.bytes,
            seconds,
            tip: found.tip.map(|tip| tip.to_string()),
            bad_ranges: found.bad_ranges(),
            unchecked: found.unchecked,
            findings: found.findings.iter().map(|found| (found.number, found.detail.clone())).collect(),
        };
        output::print(&format!("{}\n", serde_json::to_string(&report)?))?;
    } else {
        output::print(&describe(channel, &found, seconds))?;
    }
    if !found.is_sound() {
        bail!(
            "channel {channel} is damaged at {}; mend it with: grapevine channel repair -c {channel}",
            ranges(&found)
        );
    }
    Ok(())
}

pub(super) fn repair(settings: &Settings, channel: &ChannelId) -> anyhow::Result<()> {
    let found = examine(settings, channel)?;
    if found.is_sound() {
        return Ok(output::print(&describe(channel, &found, 0.0))?);
    }
    output::print(&format!("channel {channel} is damaged at {}\n", ranges(&found)))?;
    let client = AdminClient::new(&settings.data);
    let mut bad = found.bad_ranges();
    bad.truncate(RANGES_MAX);
    match client.repair(channel.as_str(), bad) {
        Ok(_) => {}
        Err(error @ AdminClientError::NotRunning { .. }) => {
            return Err(anyhow::Error::new(error)
                .context("the peer fetches damaged blocks from others while it runs"));
        }
        Err(error) => return Err(error.into()),
    }
    wait(&client, channel)?;
    let after = examine(settings, channel)?;
    output::print(&describe(channel, &after, 0.0))?;
    if !after.is_sound() {
        bail!("channel {channel} is still damaged at {}; look into the peer's log", ranges(&after));
    }
    Ok(())
}

/// Until the peer has looked at everything and nothing is damaged.
fn wait(client: &AdminClient, channel: &ChannelId) -> anyhow::Result<()> {
    let mut last = (u64::MAX, 0);
    let mut progress_at = Instant::now();
    loop {
        let status = client.status()?;
        let of = status.channels.into_iter().find(|of| of.channel == channel.as_str());
        let ChannelStatus { damaged, restored, repairing, .. } =
            of.with_context(|| format!("the running peer has not joined channel {channel}"))?;
        if damaged == 0 && !repairing {
            return Ok(());
        }
        if (damaged, restored) != last || repairing {
            last = (damaged, restored);
            progress_at = Instant::now();
        }
        if progress_at.elapsed() > PATIENCE {
            bail!(
                "{damaged} blocks of channel {channel} are still damaged, for no connected member has sent them: connect the peer to others that have the channel; it goes on trying by itself"
            );
        }
        std::thread::sleep(POLL_INTERVAL);
    }
}

fn examine(settings: &Settings, channel: &ChannelId) -> anyhow::Result<Examination> {
    let ledger = Ledger::open_read_only(&settings.ledger)?;
    let mut bar = ProgressBar::new();
    let found = ledger.examine(channel, |progress| bar.show(progress));
    bar.finish();
    Ok(found?)
}

fn describe(channel: &ChannelId, found: &Examination, seconds: f64) -> String {
    let mut text: String =
        found.findings.iter().map(|found| format!("block {}: {}\n", found.number, found.detail)).collect();
    if found.unchecked > 0 {
        let unchecked = found.unchecked;
        text.push_str(&format!(
            "{unchecked} blocks: signatures not checked, for a config block before them is damaged\n"
        ));
    }
    if found.is_sound() {
        let (height, tip) = (found.progress.height, found.tip.map(|tip| tip.to_string()).unwrap_or_default());
        let megabytes = found.progress.bytes / 1_000_000;
        let time = if seconds > 0.0 { format!(" in {seconds:.1} s") } else { String::new() };
        text.push_str(&format!(
            "channel {channel} is sound: {height} blocks, {megabytes} MB{time}, header hash of the last {tip}\n"
        ));
    }
    text
}

fn ranges(found: &Examination) -> String {
    let ranges = found.bad_ranges();
    let shown = ranges.iter().take(10).map(|(first, last)| match first == last {
        true => format!("block {first}"),
        false => format!("blocks {first} to {last}"),
    });
    let mut text = shown.collect::<Vec<_>>().join(", ");
    if ranges.len() > 10 {
        text.push_str(&format!(" and {} more places", ranges.len() - 10));
    }
    if text.is_empty() {
        text.push_str("a config block that cannot be used");
    }
    text
}
