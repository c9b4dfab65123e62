//! Where commands get blocks and configs from: files, and the ledger of a peer that may be running.

use std::io::Read as _;
use std::path::Path;
use std::sync::Arc;

use anyhow::{Context as _, bail};
use bytes::Bytes;
use grapevine_channels::ChannelId;
use grapevine_channels::block::{BLOCK_SIZE_MAX, Block};
use grapevine_channels::config::ChannelConfig;
use grapevine_crypto::Digest;

use super::settings::Settings;
use crate::history;
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
        history::block(&self.ledger, &self.channel, number)
    }

    /// The blocks kept as evidence against the orderers.
    pub(super) fn evidence(&self) -> anyhow::Result<Vec<Block>> {
        let decode = |bytes: Bytes| {
            let size_max = bytes.len();
            Block::decode(bytes, size_max).context("a block kept as evidence cannot be read")
        };
        self.ledger.evidence(&self.channel)?.into_iter().map(decode).collect()
    }

    /// Header hash of a block; `None` if it is not there.
    pub(super) fn header_hash(&self, number: u64) -> anyhow::Result<Option<Digest>> {
        Ok(self.ledger.header_hash(&self.channel, number)?.filter(|_| number < self.height))
    }

    /// The newest config.
    pub(super) fn newest_config(&self) -> anyhow::Result<Arc<ChannelConfig>> {
        history::config_after(&self.ledger, &self.channel, self.height.saturating_sub(1))
    }

    /// The config that was in force when a block was made: for a config block, the one before it. None before block 0.
    pub(super) fn config_before(&self, block: &Block) -> anyhow::Result<Option<Arc<ChannelConfig>>> {
        match block.number().checked_sub(1) {
            Some(previous) => history::config_after(&self.ledger, &self.channel, previous).map(Some),
            None => Ok(None),
        }
    }
}
