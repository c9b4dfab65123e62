//! Blocks that were found damaged, and how they come back.
//!
//! A block whose record cannot be read, or is not what the index says, is never handed out: reading it fails, and its number
//! is remembered here until [`Ledger::restore`] has put the block in its place. The driver hears of it
//! ([`Ledger::damage_found`]) and fetches the block from other peers.
//!
//! # What may take a lost block's place
//! A block with the header hash that the index names, or else the next block's previous hash, or the channel's tip: the header
//! fixes number, link and data. That its signatures hold is for the caller to check, as for any block: only an
//! [`AuthenticBlock`] is taken.
//!
//! # Bounds
//! At most [`DAMAGED_MAX`] numbers are remembered; more are found again when they are read or verified.

use std::collections::BTreeSet;
use std::sync::{Mutex, MutexGuard, PoisonError};

use grapevine_channels::ChannelId;
use grapevine_channels::block::AuthenticBlock;
use grapevine_crypto::Digest;
use tokio::sync::Notify;

use super::keys;
use super::store::Staged;
use super::{Ledger, LedgerError};

/// Most damaged blocks remembered at a time.
pub const DAMAGED_MAX: usize = 4_096;

/// What was found and is not mended yet.
#[derive(Debug, Default)]
pub(super) struct Damage {
    blocks: Mutex<BTreeSet<(ChannelId, u64)>>,
    found: Notify,
}

impl Damage {
    pub(super) fn note(&self, channel: &ChannelId, number: u64) {
        let mut blocks = self.lock();
        if blocks.len() < DAMAGED_MAX && blocks.insert((channel.clone(), number)) {
            tracing::error!(%channel, number, "a stored block is damaged; it is not handed out and will be fetched again");
            self.found.notify_one();
        }
    }

    fn lock(&self) -> MutexGuard<'_, BTreeSet<(ChannelId, u64)>> {
        self.blocks.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Ledger {
    /// Completes when a damaged block has been found since the last call.
    pub async fn damage_found(&self) {
        self.store.damage.found.notified().await;
    }

    /// Damaged blocks that are known and not yet restored, by channel and number.
    #[must_use]
    pub fn damaged(&self) -> Vec<(ChannelId, u64)> {
        self.store.damage.lock().iter().cloned().collect()
    }

    /// Has the blocks of `range` of a channel looked at: those that cannot be read are damaged from now on. Returns how many
    /// those are.
    pub fn mark_damaged(&self, channel: &ChannelId, numbers: impl IntoIterator<Item = u64>) -> usize {
        let height = self.height(channel);
        let bad = numbers.into_iter().filter(|number| *number < height);
        bad.filter(|number| self.block(channel, *number).is_err()).count()
    }

    /// The header hash that block `number` must have, by what is left; `None` while that is not known.
    #[must_use]
    pub fn expected_hash(&self, channel: &ChannelId, number: u64) -> Option<Digest> {
        let head = self.heads().get(channel).copied()?;
        if number == 0 {
            return Some(head.genesis);
        }
        let next = number.checked_add(1)?;
        if next == head.height {
            return Some(head.tip);
        }
        if let Ok(Some(entry)) = self.index_entry(channel, number) {
            return Some(entry.hash);
        }
        let (_, next) = self.decoded(channel, next).ok()??;
        Digest::try_from(next.header().previous_hash.as_slice()).ok()
    }

    /// Puts a block in the place of one that was lost; on the disk when the call returns. A block that is not lost stays.
    ///
    /// # Errors
    /// [`LedgerError::NotTheLostBlock`], storage errors.
    pub fn restore(&self, channel: &ChannelId, block: &AuthenticBlock) -> Result<(), LedgerError> {
        let number = block.number();
        let refused = |detail: &str| LedgerError::NotTheLostBlock {
            channel: channel.clone(),
            number,
            detail: detail.to_owned(),
        };
        if number >= self.height(channel) {
            return Err(refused("the ledger does not reach so far"));
        }
        if matches!(self.block(channel, number), Ok(Some(_))) {
            self.store.damage.lock().remove(&(channel.clone(), number));
            return Ok(());
        }
        let expected = self.expected_hash(channel, number);
        let expected = expected.ok_or_else(|| refused("the block after it has to be restored first"))?;
        if block.hash() != expected {
            return Err(refused("its header hash is another"));
        }
        {
            let mut position = self.writer()?;
            let mut staged = Staged::new(*position);
            staged.block(channel, block);
            let newest = self.config_block(channel).ok().flatten().map_or(0, |(newest, _)| newest);
            if block.is_config() && number >= newest {
                staged.config(channel, block);
            }
            staged.put(keys::META, keys::POSITION.to_vec(), staged.next_position.to_be_bytes().to_vec());
            let next = staged.next_position;
            self.store.write(staged)?;
            *position = next;
        }
        self.store.damage.lock().remove(&(channel.clone(), number));
        tracing::info!(%channel, number, "a damaged block has been restored");
        Ok(())
    }
}
