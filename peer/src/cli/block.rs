//! `grapevine block show`: a block as people read it.
//!
//! From a peer's ledger the config in force is at hand, so signatures are checked and config changes shown. A file stands
//! alone: give the block of the config in force by `--config-block` for the same. Without it a config block shows what its
//! update writes.

use std::fmt::Write as _;
use std::path::Path;
use std::sync::Arc;

use anyhow::Context as _;
use grapevine_channels::ChannelId;
use grapevine_channels::block::{BLOCK_SIZE_MAX, Block};
use grapevine_channels::config::ChannelConfig;
use grapevine_channels::describe::{
    BlockDescription, ConfigChange, IdentityDescription, SignerDescription, TransactionDescription,
};

use super::output;
use super::settings::Settings;
use super::source::{StoredChannel, read_block};

/// Shows a block of a file; `config_block` is a file with the config in force.
pub(super) fn show_file(path: &Path, config_block: Option<&Path>, json: bool) -> anyhow::Result<()> {
    let block = decode(path)?;
    let config = match config_block {
        Some(path) => {
            let block = decode(path)?;
            let config = ChannelConfig::from_block(&block).with_context(|| {
                let problem = if block.is_config() { "cannot be used" } else { "carries no config" };
                format!("{} {problem}; check --config-block", path.display())
            })?;
            Some(Arc::new(config))
        }
        None => None,
    };
    print(&BlockDescription::new(&block, config.as_ref()), json)
}

/// Shows a block of a channel that the peer has joined.
pub(super) fn show_stored(
    settings: &Settings,
    channel: &ChannelId,
    number: u64,
    json: bool,
) -> anyhow::Result<()> {
    let stored = StoredChannel::open(settings, channel)?;
    let block = stored.block(number)?;
    // A block can be shown even if the config before it cannot be read.
    let config = stored.config_before(&block).unwrap_or_default();
    print(&BlockDescription::new(&block, config.as_ref()), json)
}

fn decode(path: &Path) -> anyhow::Result<Block> {
    Block::decode(read_block(path)?, BLOCK_SIZE_MAX)
        .with_context(|| format!("{} is not a block", path.display()))
}

fn print(block: &BlockDescription, json: bool) -> anyhow::Result<()> {
    let text = if json { format!("{}\n", serde_json::to_string_pretty(block)?) } else { render(block) };
    Ok(output::print(&text)?)
}

fn render(block: &BlockDescription) -> String {
    let mut text = String::new();
    let last_config = block.last_config.map_or_else(|| "-".to_owned(), |number| number.to_string());
    let data_note = if block.data_hash_holds { "" } else { "   DOES NOT FIT THE TRANSACTIONS" };
    let authentic = match (block.authentic, &block.problem) {
        (Some(true), _) => "yes",
        (Some(false), Some(problem)) => &format!("NO: {problem}"),
        (Some(false), None) => "NO",
        (None, _) if block.number == 0 => "block 0 is not signed",
        (None, _) => "not checked, the config in force is not at hand",
    };
    let previous = if block.previous_hash.is_empty() { "-" } else { &block.previous_hash };
    for (name, value) in [
        ("block", block.number.to_string()),
        ("channel", block.channel.clone().unwrap_or_else(|| "-".to_owned())),
        ("header hash", block.header_hash.clone()),
        ("data hash", format!("{}{data_note}", block.data_hash)),
        ("previous hash", previous.to_owned()),
        ("size", format!("{} bytes", block.size)),
        ("last config", last_config),
        ("authentic", authentic.to_owned()),
    ] {
        line(&mut text, &format!("{name:<14} {value}"));
    }
    render_signers(&mut text, &block.signers);
    render_transactions(&mut text, &block.transactions);
    if let Some(changes) = &block.config_difference {
        render_changes(&mut text, "CONFIG CHANGES", changes);
    }
    if let Some(written) = &block.config_update {
        render_changes(&mut text, "CONFIG UPDATE (what stood there before: --config-block)", written);
    }
    text
}

fn render_signers(text: &mut String, signers: &[SignerDescription]) {
    if signers.is_empty() {
        return;
    }
    let heading = ["SIGNER", "MSP", "ROLE", "SIGNATURE"].map(str::to_owned).to_vec();
    let rows = signers.iter().map(|signer| {
        let name = match signer.consenter {
            Some(consenter) => {
                format!("{} (consenter {consenter})", name(&signer.identity)).trim_start().to_owned()
            }
            None => name(&signer.identity),
        };
        let valid = match signer.valid {
            Some(true) => "valid",
            Some(false) => "NOT VALID",
            None => "not checked",
        };
        vec![name, signer.identity.msp_id.clone(), role(&signer.identity), valid.to_owned()]
    });
    let rows: Vec<_> = std::iter::once(heading).chain(rows).collect();
    line(text, "");
    text.push_str(&output::table(&rows));
}

fn render_transactions(text: &mut String, transactions: &[TransactionDescription]) {
    let heading = ["INDEX", "TYPE", "TX ID", "CREATOR", "MSP", "BYTES"].map(str::to_owned).to_vec();
    let rows = transactions.iter().map(|transaction| {
        let kind = match &transaction.problem {
            Some(problem) => format!("not readable: {problem}"),
            None => transaction.kind.clone(),
        };
        let tx_id = if transaction.tx_id.is_empty() { "-".to_owned() } else { transaction.tx_id.clone() };
        vec![
            transaction.index.to_string(),
            kind,
            tx_id,
            name(&transaction.creator),
            transaction.creator.msp_id.clone(),
            transaction.size.to_string(),
        ]
    });
    let rows: Vec<_> = std::iter::once(heading).chain(rows).collect();
    line(text, "");
    text.push_str(&output::table(&rows));
}

fn render_changes(text: &mut String, heading: &str, changes: &[ConfigChange]) {
    line(text, &format!("\n{heading}"));
    if changes.is_empty() {
        line(text, "none but version numbers");
    }
    for change in changes {
        line(text, &change.path);
        if let Some(before) = &change.before {
            line(text, &format!("  - {before}"));
        }
        if let Some(after) = &change.after {
            line(text, &format!("  + {after}"));
        }
    }
}

fn name(identity: &IdentityDescription) -> String {
    if identity.common_name.is_empty() { "-".to_owned() } else { identity.common_name.clone() }
}

fn role(identity: &IdentityDescription) -> String {
    identity.role.clone().unwrap_or_else(|| "-".to_owned())
}

fn line(text: &mut String, line: &str) {
    // Writing to a string does not fail.
    let _written = writeln!(text, "{line}");
}
