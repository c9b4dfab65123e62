//! Walking a whole channel: whether every block is there, is what its orderers signed, follows the one before, and can be found.
//!
//! For each block, in order: it can be read and its checksum holds; it has the number and header hash of its index entry; its
//! data has the hash its header names; it follows the block before; its signatures satisfy the config in force, and a config
//! block's config follows from the one before; it is found by header hash and each of its transactions by id.
//!
//! Nothing is written and nothing stops the walk: what is wrong is listed, up to a bound, and every number
//! concerned is in [`Examination::bad`].

use std::collections::BTreeSet;
use std::sync::Arc;

use grapevine_channels::ChannelId;
use grapevine_channels::block::{AuthenticBlock, Block};
use grapevine_channels::config::ChannelConfig;
use grapevine_channels::verify::{BlockVerifier, VerifyError};
use grapevine_crypto::Digest;

use super::store::transaction_ids;
use super::{Ledger, LedgerError};

/// Most findings described; the numbers of all are kept.
pub(super) const FINDINGS_MAX: usize = 1_000;

/// How far a walk is.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Progress {
    /// Blocks looked at.
    pub blocks: u64,
    /// Blocks of the channel.
    pub height: u64,
    /// Encoded bytes looked at.
    pub bytes: u64,
}

/// Something that is wrong with a block or with what finds it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Finding {
    /// The block.
    pub number: u64,
    /// What is wrong.
    pub detail: String,
}

/// What a walk found.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Examination {
    /// How far it went.
    pub progress: Progress,
    /// What is wrong, in the order of the blocks.
    pub findings: Vec<Finding>,
    /// Numbers of all blocks with findings.
    pub bad: BTreeSet<u64>,
    /// Blocks whose signatures could not be checked, because a config block before them is damaged.
    pub unchecked: u64,
    /// Header hash of the last block, if it could be read.
    pub tip: Option<Digest>,
}

impl Examination {
    /// Whether everything is as it should be.
    #[must_use]
    pub fn is_sound(&self) -> bool {
        self.bad.is_empty() && self.unchecked == 0
    }

    /// The bad blocks as inclusive ranges.
    #[must_use]
    pub fn bad_ranges(&self) -> Vec<(u64, u64)> {
        let mut ranges: Vec<(u64, u64)> = Vec::new();
        for number in &self.bad {
            match ranges.last_mut() {
                Some((_, last)) if last.checked_add(1) == Some(*number) => *last = *number,
                _ => ranges.push((*number, *number)),
            }
        }
        ranges
    }

    fn find(&mut self, number: u64, detail: impl Into<String>) {
        self.bad.insert(number);
        if self.findings.len() < FINDINGS_MAX {
            self.findings.push(Finding { number, detail: detail.into() });
        }
    }
}

impl Ledger {
    /// Walks `channel` from its genesis block to the height it has now; `report` is called after each block.
    ///
    /// # Errors
    /// [`LedgerError::UnknownChannel`], and storage errors that are not damage.
    pub fn examine(
        &self,
        channel: &ChannelId,
        mut report: impl FnMut(Progress),
    ) -> Result<Examination, LedgerError> {
        let height = self.height(channel);
        if height == 0 {
            return Err(LedgerError::UnknownChannel { channel: channel.clone() });
        }
        let mut found = Examination::default();
        found.progress.height = height;
        let mut walk = Walk { verifier: self.first_verifier(channel), previous: None };
        for number in 0..height {
            match self.read_checked(channel, number) {
                Ok(Some((encoded, block))) => {
                    let length = u64::try_from(encoded.len()).unwrap_or(u64::MAX);
                    found.progress.bytes = found.progress.bytes.saturating_add(length);
                    walk.block(number, block, &mut found);
                    self.examine_index(channel, number, &AuthenticBlock::stored(encoded), &mut found)?;
                }
                Ok(None) => found.find(number, "the block is missing"),
                Err(LedgerError::Damaged { detail, .. }) => {
                    walk.previous = self.header_hash(channel, number).ok().flatten();
                    found.find(number, detail);
                }
                Err(error) => return Err(error),
            }
            found.progress.blocks = number.saturating_add(1);
            report(found.progress);
        }
        found.tip = walk.previous;
        if self.tip(channel).map(|(_, tip)| tip) != walk.previous {
            found.find(height.saturating_sub(1), "the channel's head names another header hash");
        }
        Ok(found)
    }

    /// Writes what finds a block anew, for one that can be read; on the disk when the call returns.
    ///
    /// # Errors
    /// Storage errors; damage of the block.
    pub fn reindex(&self, channel: &ChannelId, number: u64) -> Result<(), LedgerError> {
        let Some(entry) = self.index_entry(channel, number)? else { return Ok(()) };
        let Some((encoded, _)) = self.decoded(channel, number)? else { return Ok(()) };
        let block = AuthenticBlock::stored(encoded)
            .map_err(|error| super::damaged(channel, number, &error.to_string()))?;
        let _position = self.writer()?;
        let mut staged = super::Staged::default();
        staged.index(channel, &block, entry.position);
        self.store.write(staged)
    }

    /// Under the genesis block's config; that block may be damaged, and its copy not.
    fn first_verifier(&self, channel: &ChannelId) -> Option<BlockVerifier> {
        let stored = self.read_checked(channel, 0).ok().flatten().map(|(encoded, _)| encoded);
        let copy = || self.config_block(channel).ok().flatten().filter(|(number, _)| *number == 0);
        let encoded = stored.or_else(|| copy().map(|(_, encoded)| encoded))?;
        let size = encoded.len();
        let config = ChannelConfig::from_block(&Block::decode(encoded, size).ok()?).ok()?;
        Some(BlockVerifier::new(Arc::new(config)))
    }

    fn examine_index(
        &self,
        channel: &ChannelId,
        number: u64,
        block: &Result<AuthenticBlock, grapevine_channels::block::BlockError>,
        found: &mut Examination,
    ) -> Result<(), LedgerError> {
        let Ok(block) = block else { return Ok(()) };
        match self.number_of(channel, &block.hash()) {
            Ok(Some(indexed)) if indexed == number => {}
            Ok(_) | Err(LedgerError::DamagedStore { .. }) => {
                found.find(number, "it is not found by its header hash");
            }
            Err(error) => return Err(error),
        }
        for (id, place) in transaction_ids(block) {
            match self.is_indexed(channel, &id, number, place) {
                Ok(true) => {}
                Ok(false) | Err(LedgerError::DamagedStore { .. }) => {
                    found.find(number, format!("transaction {place} is not found by its id"));
                    break;
                }
                Err(error) => return Err(error),
            }
        }
        Ok(())
    }
}

struct Walk {
    /// `None` from where the config in force is not known.
    verifier: Option<BlockVerifier>,
    previous: Option<Digest>,
}

impl Walk {
    fn block(&mut self, number: u64, block: Block, found: &mut Examination) {
        if block.compute_data_hash().as_ref() != block.header().data_hash.as_slice() {
            found.find(number, "its transactions do not have the hash its header names");
        }
        let names = Digest::try_from(block.header().previous_hash.as_slice()).ok();
        if number > 0 && self.previous.is_some() && names != self.previous {
            found.find(number, "it does not follow the block before");
        }
        self.previous = Some(block.header_hash());
        if number > 0 {
            self.signatures(number, block, found);
        }
    }

    fn signatures(&mut self, number: u64, block: Block, found: &mut Examination) {
        let Some(verifier) = &self.verifier else {
            found.unchecked = found.unchecked.saturating_add(1);
            return;
        };
        match verifier.verify(block) {
            Ok(block) if block.is_config() => match verifier.config().next(&block) {
                Ok(next) => self.verifier = Some(BlockVerifier::new(Arc::new(next))),
                Err(error) => found.find(number, format!("its config does not follow: {error}")),
            },
            Ok(_) => {}
            // The config it was made under is in a block that is damaged, or that could not be used.
            Err(VerifyError::OtherConfig { last_config, config, .. })
                if last_config > config && found.bad.contains(&last_config) =>
            {
                self.verifier = None;
                found.unchecked = found.unchecked.saturating_add(1);
            }
            Err(error) => found.find(number, error.to_string()),
        }
    }
}
