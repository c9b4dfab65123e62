//! `grapevine channel list` and `grapevine channel info`.

use std::collections::BTreeMap;

use anyhow::Context as _;
use grapevine_channels::ChannelId;
use serde::Serialize;

use super::output;
use super::settings::Settings;
use crate::admin::{AdminClient, ChannelStatus};
use crate::ledger::{Ledger, LedgerError};

/// What `info --json` prints; `list --json` prints a list of these.
#[derive(Debug, Serialize)]
struct Info {
    channel: String,
    height: u64,
    tip: String,
    genesis: String,
    /// Whether a running peer said so, or the files.
    running: bool,
    #[serde(skip_serializing_if = "Option::is_none")]
    hashes: Option<Vec<String>>,
}

pub(super) fn list(settings: &Settings, json: bool) -> anyhow::Result<()> {
    let running = running(settings);
    let ledger = match Ledger::open_read_only(&settings.ledger) {
        Ok(ledger) => ledger,
        // A peer that was never started and never joined has no channels; that is an answer.
        Err(LedgerError::Missing { .. }) => return print_list(&[], json),
        Err(error) => return Err(error.into()),
    };
    let channels = ledger.channels();
    let infos: Result<Vec<Info>, LedgerError> =
        channels.iter().map(|channel| describe(&ledger, channel, &running)).collect();
    print_list(&infos?, json)
}

fn print_list(infos: &[Info], json: bool) -> anyhow::Result<()> {
    if json {
        return Ok(output::print(&format!("{}\n", serde_json::to_string(infos)?))?);
    }
    let heading = ["CHANNEL", "HEIGHT", "TIP"].map(str::to_owned).to_vec();
    let rows = infos.iter().map(|info| vec![info.channel.clone(), info.height.to_string(), info.tip.clone()]);
    let rows: Vec<_> = std::iter::once(heading).chain(rows).collect();
    Ok(output::print(&output::table(&rows))?)
}

pub(super) fn info(settings: &Settings, channel: &ChannelId, json: bool, hashes: bool) -> anyhow::Result<()> {
    let running = running(settings);
    let ledger = Ledger::open_read_only(&settings.ledger)?;
    let mut info = describe(&ledger, channel, &running)?;
    if hashes {
        let list: Result<Vec<String>, anyhow::Error> = (0..ledger.height(channel))
            .map(|number| {
                let hash =
                    ledger.header_hash(channel, number)?.context("the ledger shrank while it was read")?;
                Ok(hash.to_string())
            })
            .collect();
        let list = list?;
        // Hashes come from the files, so height and tip must as well.
        info.height = ledger.height(channel);
        info.tip = list.last().cloned().unwrap_or_default();
        info.hashes = Some(list);
    }
    if json {
        return Ok(output::print(&format!("{}\n", serde_json::to_string(&info)?))?);
    }
    let mut text = format!(
        "channel  {}\nheight   {}\ntip      {}\ngenesis  {}\n",
        info.channel, info.height, info.tip, info.genesis
    );
    for (number, hash) in info.hashes.iter().flatten().enumerate() {
        text.push_str(&format!("{number:>7}  {hash}\n"));
    }
    Ok(output::print(&text)?)
}

/// Channels of the running peer by name; empty if none runs or it does not answer.
fn running(settings: &Settings) -> BTreeMap<String, ChannelStatus> {
    let status = AdminClient::new(&settings.data).status();
    let channels = status.map(|status| status.channels).unwrap_or_default();
    channels.into_iter().map(|channel| (channel.channel.clone(), channel)).collect()
}

fn describe(
    ledger: &Ledger,
    channel: &ChannelId,
    running: &BTreeMap<String, ChannelStatus>,
) -> Result<Info, LedgerError> {
    let unknown = || LedgerError::UnknownChannel { channel: channel.clone() };
    let genesis = ledger.genesis_hash(channel).ok_or_else(unknown)?.to_string();
    let (number, tip) = ledger.tip(channel).ok_or_else(unknown)?;
    let (height, tip, running) = match running.get(channel.as_str()) {
        Some(status) => (status.height, status.tip.clone(), true),
        None => (number.saturating_add(1), tip.to_string(), false),
    };
    Ok(Info { channel: channel.to_string(), height, tip, genesis, running, hashes: None })
}
