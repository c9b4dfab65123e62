//! Where commands get blocks and configs from: files, and the ledger of a peer that may be running.

use std::io::Read as _;
use std::path::Path;
use std::sync::Arc;

use anyhow::{Context as _, bail};
use bytes::Bytes;
use grapevine_channels::ChannelId;
use grapevine_channels::block::{BLOCK_SIZE_MAX, Block};
use grapevine_channels::config::ChannelConfig;

use super::settings::Settings;
use crate::ledger::{Ledger, LedgerError};

/// Reads a file that is no larger than a block can be.
pub(super) fn read_block(path: &Path) -> anyhow::Result<Bytes> {
    let unreadable = || format!("cannot read the block {}; check the path", path.display());
    let limit = u64::try_from(BLOCK_SIZE_MAX).unwrap_or(u64::MAX);
    let file = std::fs::File::open(path).with_context(unreadable)?;
    let mut bytes = Vec::new();
    file.take(limit.saturating_add(1)).read_to_end(&mut bytes).with_context(unreadable)?;
    if bytes.len() > BLOCK_SIZE_MAX {
        bail!("{} is larger than any block; check the path", path.display());
    }
    Ok(bytes.into())
}

/// A channel in the ledger, as it stood when it was opened.
pub(super) struct StoredChannel {
    ledger: Ledger,
    channel: ChannelId,
    /// Number of blocks.
    pub(super) height: u64,
}

impl StoredChannel {
    pub(super) fn open(settings: &Settings, channel: &ChannelId) -> anyhow::Result<Self> {
        let ledger = Ledger::open_read_only(&settings.ledger)?;
        if ledger.tip(channel).is_none() {
            return Err(LedgerError::UnknownChannel { channel: channel.clone() }.into());
        }
        let height = ledger.height(channel);
        Ok(Self { ledger, channel: channel.clone(), height })
    }

    /// A block that is there.
    pub(super) fn block(&self, number: u64) -> anyhow::Result<Block> {
        let encoded = self.ledger.block(&self.channel, number)?.with_context(|| {
            let (channel, height) = (&self.channel, self.height);
            format!("the ledger has no block {number} of channel {channel}: its height is {height}")
        })?;
        let size_max = encoded.len();
        Block::decode(encoded, size_max)
            .with_context(|| format!("block {number} of channel {} cannot be read", self.channel))
    }

    /// The newest config.
    pub(super) fn newest_config(&self) -> anyhow::Result<Arc<ChannelConfig>> {
        self.config_of(&self.block(self.height.saturating_sub(1))?)
    }

    /// The config that was in force when a block was made: for a config block, the one before it. None before block 0.
    pub(super) fn config_before(&self, block: &Block) -> anyhow::Result<Option<Arc<ChannelConfig>>> {
        match block.number().checked_sub(1) {
            Some(previous) => self.config_of(&self.block(previous)?).map(Some),
            None => Ok(None),
        }
    }

    /// The config in force after a block.
    fn config_of(&self, block: &Block) -> anyhow::Result<Arc<ChannelConfig>> {
        let number = block.last_config_index().filter(|_| block.number() > 0).unwrap_or(0);
        let config = ChannelConfig::from_block(&self.block(number)?);
        let config =
            config.with_context(|| format!("the config of channel {} cannot be read", self.channel))?;
        Ok(Arc::new(config))
    }
}
