//! The configs of a channel, as the chain in the ledger carries them.
//!
//! Each block says in its signed metadata which config block is in force after it (a config block names itself), so the
//! configs form a chain of their own through the ledger: the config before a block is that after the block below it.
//!
//! Bound: [`removals`] looks at the newest [`CONFIGS_MAX`] configs and keeps the newest [`REMOVALS_MAX`] removals.

use std::collections::BTreeMap;
use std::sync::Arc;

use anyhow::Context as _;
use grapevine_channels::ChannelId;
use grapevine_channels::block::Block;
use grapevine_channels::config::ChannelConfig;
use grapevine_channels::isolation::LastBlock;
use grapevine_crypto::MspId;

use crate::ledger::Ledger;

/// Most configs that are read, from the newest down, to find removed organisations.
pub const CONFIGS_MAX: usize = 256;
/// Most removed organisations known for a channel; those removed first are forgotten first.
pub const REMOVALS_MAX: usize = 64;

/// An organisation that a config block removed from a channel.
#[derive(Clone, Debug)]
pub struct Removal {
    /// The block that removed it.
    pub last: LastBlock,
    /// The last config it was a member under: says who its peers are.
    pub config: Arc<ChannelConfig>,
}

/// Removed organisations that have not come back.
pub type Removals = BTreeMap<MspId, Removal>;

/// A block of the ledger.
///
/// # Errors
/// If it is not there, or storage fails.
pub fn block(ledger: &Ledger, channel: &ChannelId, number: u64) -> anyhow::Result<Block> {
    // The newest config block is kept twice, so that damage to one of the two does not matter.
    let copy = || ledger.config_block(channel).ok().flatten().filter(|(newest, _)| *newest == number);
    let encoded = match ledger.block(channel, number) {
        Ok(encoded) => encoded,
        Err(error) => Some(copy().ok_or(error)?.1),
    };
    let encoded = encoded.with_context(|| {
        let height = ledger.height(channel);
        format!("the ledger has no block {number} of channel {channel}: its height is {height}")
    })?;
    let size_max = encoded.len();
    Block::decode(encoded, size_max)
        .with_context(|| format!("block {number} of channel {channel} cannot be read"))
}

/// The number of the config block in force after a block.
#[must_use]
pub fn config_number_after(block: &Block) -> u64 {
    // Block 0 carries no signed index; it is the config.
    block.last_config_index().filter(|_| block.number() > 0).unwrap_or(0)
}

/// The config in force after a block.
///
/// # Errors
/// If a block is missing or storage fails, or the config cannot be used.
pub fn config_after(
    ledger: &Ledger,
    channel: &ChannelId,
    block_number: u64,
) -> anyhow::Result<Arc<ChannelConfig>> {
    config_in(ledger, channel, config_number_after(&block(ledger, channel, block_number)?))
}

/// The config that a config block carries.
///
/// # Errors
/// As [`config_after`].
pub fn config_in(ledger: &Ledger, channel: &ChannelId, number: u64) -> anyhow::Result<Arc<ChannelConfig>> {
    let config = ChannelConfig::from_block(&block(ledger, channel, number)?);
    let unusable = || format!("the config of channel {channel} in block {number} cannot be used");
    config.map(Arc::new).with_context(unusable)
}

/// The organisations that were removed from a channel and are not members under its `newest` config, as far down as the config blocks can be
/// read.
pub fn removals(ledger: &Ledger, channel: &ChannelId, newest: &Arc<ChannelConfig>) -> Removals {
    let mut removals = Removals::new();
    if let Err(error) = find_removals(ledger, channel, newest, &mut removals) {
        // No reason not to start: those removed before get no blocks from here.
        tracing::warn!(%channel, "not all removed organisations are known: {error:#}");
    }
    removals
}

fn find_removals(
    ledger: &Ledger,
    channel: &ChannelId,
    newest: &Arc<ChannelConfig>,
    removals: &mut Removals,
) -> anyhow::Result<()> {
    let mut after = newest.clone();
    for _ in 1..CONFIGS_MAX {
        let number = after.config_block_number();
        let Some(below) = number.checked_sub(1) else { break };
        let before = config_after(ledger, channel, below)?;
        let hash = ledger.header_hash(channel, number)?.context("the ledger lacks a hash")?;
        for (organization, removal) in removed_between(&before, &after, LastBlock { number, hash }) {
            if !newest.application_orgs().contains_key(&organization) && removals.len() < REMOVALS_MAX {
                // Seen from the newest down: the last removal of an organisation counts.
                removals.entry(organization).or_insert(removal);
            }
        }
        after = before;
    }
    Ok(())
}

/// Brings removals up to date with a new config, which came with block `last`.
pub fn advance(
    removals: &mut Removals,
    before: &Arc<ChannelConfig>,
    after: &Arc<ChannelConfig>,
    last: LastBlock,
) {
    removals.extend(removed_between(before, after, last));
    removals.retain(|organization, _| !after.application_orgs().contains_key(organization));
    while removals.len() > REMOVALS_MAX {
        let first = removals.iter().min_by_key(|(_, removal)| removal.last.number);
        let Some(first) = first.map(|(organization, _)| organization.clone()) else { return };
        removals.remove(&first);
    }
}

fn removed_between(
    before: &Arc<ChannelConfig>,
    after: &Arc<ChannelConfig>,
    last: LastBlock,
) -> impl Iterator<Item = (MspId, Removal)> {
    before
        .application_orgs()
        .keys()
        .filter(|organization| !after.application_orgs().contains_key(*organization))
        .map(move |organization| (organization.clone(), Removal { last, config: before.clone() }))
}
