//! `grapevine channel verify-blocks`: whether a directory of block files is a channel's chain.
//!
//! The files are named `NUMBER.block`, with any number of leading zeros, as `channel export --blocks-dir` and Fabric's
//! `peer channel fetch` write them; other files are left alone. Every number from 1 (or 0) to the highest must be there
//! once. The genesis block is the one given on the command line, which the caller vouches for; a file of number 0 must have
//! its header and data. Each block must be authentic under the config in force, link to the block before and, if it is a
//! config block, carry a config that follows from the one before: the rules by which a peer accepts blocks. Nothing is
//! believed that orderers did not sign; metadata beyond the signatures is neither looked at nor vouched for.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use anyhow::{Context as _, bail};
use grapevine_channels::block::{AuthenticBlock, BLOCK_SIZE_MAX, Block};
use grapevine_channels::config::ChannelConfig;
use grapevine_channels::verify::BlockVerifier;

use super::output;
use super::source::read_block;

/// Ending of the files' names.
const ENDING: &str = ".block";

pub(super) fn verify_blocks(genesis: &Path, directory: &Path) -> anyhow::Result<()> {
    let files = block_files(directory)?;
    let mut chain = Chain::start(genesis)?;
    let channel = chain.verifier.config().channel_id().clone();
    if let Some(path) = files.get(&0) {
        chain.check_genesis(path).with_context(|| bad(0, path))?;
    }
    for (number, path) in files.range(1..) {
        let expected = chain.tip.number().saturating_add(1);
        if *number != expected {
            let place = directory.display();
            bail!(
                "block {expected}: there is no such block in {place}, though there is one of number {number}"
            );
        }
        chain.append(path).with_context(|| bad(*number, path))?;
    }
    let (count, last) = (files.len(), chain.tip.number());
    let blocks = if count == 1 { "block" } else { "blocks" };
    let line = format!(
        "{count} {blocks} of channel {channel} verified, up to number {last}, header hash {}\n",
        chain.tip.hash()
    );
    Ok(output::print(&line)?)
}

fn bad(number: u64, path: &Path) -> String {
    format!("block {number} ({})", path.display())
}

/// What has been verified so far.
struct Chain {
    tip: AuthenticBlock,
    verifier: BlockVerifier,
}

impl Chain {
    fn start(genesis: &Path) -> anyhow::Result<Self> {
        let wrong = || format!("{} is not a channel's genesis block; check --genesis", genesis.display());
        let block = Block::decode(read_block(genesis)?, BLOCK_SIZE_MAX).with_context(wrong)?;
        let tip = AuthenticBlock::genesis(&block).with_context(wrong)?;
        let config = ChannelConfig::from_block(&block).with_context(wrong)?;
        Ok(Self { tip, verifier: BlockVerifier::new(Arc::new(config)) })
    }

    fn check_genesis(&self, path: &Path) -> anyhow::Result<()> {
        let block = AuthenticBlock::genesis(&Block::decode(read_block(path)?, BLOCK_SIZE_MAX)?)?;
        if block.hash() != self.tip.hash() {
            bail!(
                "it is another genesis block than that of --genesis: {} instead of {}",
                block.hash(),
                self.tip.hash()
            );
        }
        Ok(())
    }

    fn append(&mut self, path: &Path) -> anyhow::Result<()> {
        let block = Block::decode(read_block(path)?, self.verifier.config().block_size_max())?;
        let expected = self.tip.number().saturating_add(1);
        if block.number() != expected {
            bail!("it has number {} inside", block.number());
        }
        let block = self.verifier.verify(block)?;
        if block.previous_hash() != Some(self.tip.hash()) {
            bail!(
                "it does not link to block {}, whose header hash is {}",
                self.tip.number(),
                self.tip.hash()
            );
        }
        if block.is_config() {
            let next = self.verifier.config().next(&block)?;
            self.verifier = BlockVerifier::new(Arc::new(next));
        }
        self.tip = block;
        Ok(())
    }
}

/// The block files of a directory by number.
fn block_files(directory: &Path) -> anyhow::Result<BTreeMap<u64, PathBuf>> {
    let unreadable = || format!("cannot read the directory {}", directory.display());
    let mut files = BTreeMap::new();
    for entry in std::fs::read_dir(directory).with_context(unreadable)? {
        let path = entry.with_context(unreadable)?.path();
        let name = path.file_name().and_then(|name| name.to_str()).unwrap_or_default();
        let Some(digits) = name.strip_suffix(ENDING) else { continue };
        if digits.is_empty() || !digits.bytes().all(|byte| byte.is_ascii_digit()) {
            continue;
        }
        let number: u64 =
            digits.parse().with_context(|| format!("{}: no block has such a number", path.display()))?;
        if let Some(other) = files.insert(number, path.clone()) {
            bail!("block {number}: both {} and {} claim to be it", other.display(), path.display());
        }
    }
    if files.is_empty() {
        bail!("there are no files NUMBER{ENDING} in {}", directory.display());
    }
    Ok(files)
}
