//! The ledger: every block of every channel this peer has joined, in one RocksDB.
//!
//! # Promises
//! - **Durable**: when [`Ledger::append`] returns, its blocks survive `kill -9` and power loss: one atomic write batch, with the
//!   write-ahead log on, synced before the call returns. Either all blocks of a call are there after a crash or none.
//! - **Linked**: a block is stored only if its number is the channel's height and its previous hash the tip's header hash.
//!   Whether it is *authentic* was decided before: [`AuthenticBlock`] can only be made by verification.
//! - **Never replaced**: there is no call that overwrites or removes a block. A block that was lost to damage is restored only
//!   by one of the same header hash.
//! - **Nothing corrupt is handed out**: a block read is compared with the checksum taken when it was committed and with its
//!   header hash, besides RocksDB's own checksums. One that fails is remembered as damaged, to be fetched again.
//! - **Opens whatever is left**: opening checks the heads and the last [`CHECKED_BLOCKS`] blocks of each channel; a torn tail is
//!   cut and comes again from other peers; files that contradict each other are mended from the blocks (see `recover`).
//! - **Stops after a failed write**: what a failed sync left on disk is unknown, so nothing is written until the ledger has been
//!   opened again ([`Ledger::reopen`]), which writes what was in doubt anew and syncs that.
//! - **Readable while a peer runs**: [`Ledger::open_read_only`] sees the ledger as it stood at opening, and takes no lock.
//!
//! # Bounds
//! Memory of the store is bounded as the settings module says; [`Ledger::append`] holds one copy of the blocks given while it
//! writes. Number of channels: what the operator joins.
//!
//! The layout of keys stands in `ledger/keys.rs`; `meta` carries a format version, and another one is refused.

mod damage;
mod error;
mod evidence;
mod examine;
pub mod failpoint;
mod keys;
mod open;
mod options;
mod recover;
mod space;
mod store;
#[cfg(test)]
mod tests;
mod thread;
mod transactions;

use std::collections::BTreeMap;
use std::fmt;
use std::ops::Range;
use std::path::Path;
use std::sync::atomic::Ordering;
use std::sync::{Arc, MutexGuard, PoisonError};

use bytes::Bytes;
use grapevine_channels::ChannelId;
use grapevine_channels::block::{AuthenticBlock, Block};
use grapevine_crypto::Digest;

pub use damage::DAMAGED_MAX;
pub use error::LedgerError;
pub use evidence::EVIDENCE_MAX;
pub use examine::{Examination, Finding, Progress};
pub use space::free_bytes;
pub use thread::{
    CommitRefused, LedgerCounters, LedgerLimits, LedgerReport, LedgerState, LedgerThread, RETRY_MAX,
};

use failpoint::Failpoint;
use keys::{Head, IndexEntry};
use store::{Staged, Store};

/// Name of the ledger's directory inside `peer.fileSystemPath`.
pub const DIRECTORY: &str = "ledger";
/// How many of a channel's last blocks are checked at opening, as long as they are no more than [`CHECKED_BYTES`] together.
pub const CHECKED_BLOCKS: u64 = 8;
/// Bound in bytes of the check at opening, for each channel; the last block is always checked.
pub const CHECKED_BYTES: usize = 32 * 1024 * 1024;

/// Blocks to be appended to one channel, all or none of them.
#[derive(Clone, Debug)]
pub struct Commit {
    /// Channel to append to.
    pub channel: ChannelId,
    /// Consecutive blocks, the first being the next of the channel.
    pub blocks: Vec<AuthenticBlock>,
}

/// Where a channel stands.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct ChannelHead {
    /// Number of blocks stored, at least 1.
    pub height: u64,
    /// Header hash of the last block.
    pub tip: Digest,
}

/// The ledger of one peer. Clones share the same store; reads run beside writes, writes run one after the other.
#[derive(Clone)]
pub struct Ledger {
    store: Arc<Store>,
}

impl fmt::Debug for Ledger {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter
            .debug_struct("Ledger")
            .field("path", &self.store.path)
            .field("read_only", &self.store.read_only)
            .finish_non_exhaustive()
    }
}

impl Ledger {
    /// Opens the ledger in directory `path` for writing, creates it where it is missing, and checks what it holds.
    ///
    /// # Errors
    /// See [`LedgerError`]: in use, not a directory, no permission, newer format, damaged.
    pub fn open(path: impl AsRef<Path>) -> Result<Self, LedgerError> {
        open::for_writing(path.as_ref())
    }

    /// Opens the ledger for reading as it stands now, also while a peer writes to it. Later commits are not seen. Blocks are
    /// checked when they are read; damage of one keeps nobody from reading the others.
    ///
    /// # Errors
    /// [`LedgerError::Missing`] where there is none, else as [`Ledger::open`].
    pub fn open_read_only(path: impl AsRef<Path>) -> Result<Self, LedgerError> {
        open::for_reading(path.as_ref())
    }

    /// Closes the ledger and opens it again, after a write has failed. Readers get [`LedgerError::Reopening`] meanwhile.
    /// What was in the log is written to files anew and synced, so that what the ledger holds afterwards is certain. With
    /// `damaged`, everything but the blocks is made again from them. Nothing changes if it cannot be opened: try again.
    ///
    /// # Errors
    /// As [`Ledger::open`].
    pub fn reopen(&self, damaged: bool) -> Result<(), LedgerError> {
        open::again(&self.store, damaged)
    }

    /// Whether a write has failed and the ledger has not been opened again since.
    #[must_use]
    pub fn is_stopped(&self) -> bool {
        self.store.stopped.load(Ordering::Acquire)
    }

    /// Directory of the ledger.
    #[must_use]
    pub fn path(&self) -> &Path {
        &self.store.path
    }

    /// Channels joined, in the order of their names.
    #[must_use]
    pub fn channels(&self) -> Vec<ChannelId> {
        self.heads().keys().cloned().collect()
    }

    /// Number of blocks of `channel`; 0 if it is not joined.
    #[must_use]
    pub fn height(&self, channel: &ChannelId) -> u64 {
        self.heads().get(channel).map_or(0, |head| head.height)
    }

    /// Number and header hash of the last block of `channel`.
    #[must_use]
    pub fn tip(&self, channel: &ChannelId) -> Option<(u64, Digest)> {
        self.heads().get(channel).map(|head| (head.height.saturating_sub(1), head.tip))
    }

    /// Header hash of the genesis block of `channel`.
    #[must_use]
    pub fn genesis_hash(&self, channel: &ChannelId) -> Option<Digest> {
        self.heads().get(channel).map(|head| head.genesis)
    }

    /// Joins `channel` by its genesis block. Joining again with the same block changes nothing.
    ///
    /// # Errors
    /// [`LedgerError::OtherGenesis`] if it was joined with another block, [`LedgerError::NotGenesis`] for any other block.
    pub fn create_channel(&self, channel: &ChannelId, genesis: &AuthenticBlock) -> Result<(), LedgerError> {
        let mut position = self.writer()?;
        if genesis.number() != 0 || genesis.previous_hash().is_some() {
            return Err(LedgerError::NotGenesis { channel: channel.clone(), number: genesis.number() });
        }
        let head = Head { genesis: genesis.hash(), height: 1, tip: genesis.hash() };
        let known = self.heads().get(channel).copied();
        if let Some(known) = known {
            return if known.genesis == head.genesis {
                Ok(())
            } else {
                Err(LedgerError::OtherGenesis {
                    channel: channel.clone(),
                    stored: known.genesis,
                    offered: head.genesis,
                })
            };
        }
        let mut staged = Staged::new(*position);
        staged.block(channel, genesis);
        staged.config(channel, genesis);
        staged.heads.insert(channel.clone(), head);
        self.write(staged, &mut position)
    }

    /// Appends consecutive blocks to `channel`; on the disk when the call returns. All or none.
    ///
    /// # Errors
    /// [`LedgerError::NotNext`] and [`LedgerError::NotLinked`] for a block that does not follow the tip,
    /// [`LedgerError::UnknownChannel`], and storage errors, after which the ledger takes no more writes.
    pub fn append(&self, channel: &ChannelId, blocks: &[AuthenticBlock]) -> Result<(), LedgerError> {
        let commit = Commit { channel: channel.clone(), blocks: blocks.to_vec() };
        self.append_group(std::slice::from_ref(&commit))?
            .into_iter()
            .try_for_each(|outcome| outcome.map(drop))
    }

    /// Appends several commits with one synced write. A commit that does not follow its channel's tip is left out, with its
    /// reason; the others are not touched by it. The answers stand in the order of the commits, with the head each one led to.
    ///
    /// # Errors
    /// Storage errors: then nothing of the group counts as committed, and the ledger takes no more writes.
    pub fn append_group(
        &self,
        commits: &[Commit],
    ) -> Result<Vec<Result<ChannelHead, LedgerError>>, LedgerError> {
        let mut position = self.writer()?;
        let mut staged = Staged::new(*position);
        let mut outcomes = Vec::with_capacity(commits.len());
        for commit in commits {
            let known = staged.heads.get(&commit.channel).copied();
            let known = known.or_else(|| self.heads().get(&commit.channel).copied());
            let outcome = match follow(known, commit) {
                Ok(head) => {
                    for block in &commit.blocks {
                        staged.block(&commit.channel, block);
                    }
                    if let Some(config) = commit.blocks.iter().rev().find(|block| block.is_config()) {
                        staged.config(&commit.channel, config);
                    }
                    staged.heads.insert(commit.channel.clone(), head);
                    Ok(ChannelHead { height: head.height, tip: head.tip })
                }
                Err(error) => Err(error),
            };
            outcomes.push(outcome);
        }
        self.write(staged, &mut position)?;
        Ok(outcomes)
    }

    /// The encoded block `number` of `channel`, as it was appended; `None` if it is not there.
    ///
    /// # Errors
    /// [`LedgerError::Damaged`] if what is stored is not the block the index names.
    pub fn block(&self, channel: &ChannelId, number: u64) -> Result<Option<Bytes>, LedgerError> {
        Ok(self.decoded(channel, number)?.map(|(encoded, _)| encoded))
    }

    /// Header hash of block `number` of `channel`, from the index; `None` if it is not there.
    ///
    /// # Errors
    /// Storage errors and unreadable index entries.
    pub fn header_hash(&self, channel: &ChannelId, number: u64) -> Result<Option<Digest>, LedgerError> {
        Ok(self.index_entry(channel, number)?.map(|entry| entry.hash))
    }

    /// Number of the block of `channel` whose header hash is `hash`; `None` if it is not there.
    ///
    /// # Errors
    /// Storage errors and unreadable index entries.
    pub fn number_of(&self, channel: &ChannelId, hash: &Digest) -> Result<Option<u64>, LedgerError> {
        let store = &self.store;
        let Some(record) = store.read(keys::HASHES, &keys::by_hash(channel, hash))? else {
            return Ok(None);
        };
        let number = keys::number(&record).ok_or_else(|| store.damaged("an index entry is unreadable"))?;
        Ok((number < self.height(channel)).then_some(number))
    }

    /// The blocks of `channel` with numbers in `range`, in order, read one by one as the iterator advances. Ends at the height
    /// the channel has when this is called.
    pub fn iterate(
        &self,
        channel: &ChannelId,
        range: Range<u64>,
    ) -> impl Iterator<Item = Result<(u64, Bytes), LedgerError>> + use<> {
        let (ledger, channel) = (self.clone(), channel.clone());
        (range.start..range.end.min(self.height(&channel))).map(move |number| {
            let missing = || damaged(&channel, number, "the block is missing");
            Ok((number, ledger.block(&channel, number)?.ok_or_else(missing)?))
        })
    }

    /// Number and encoding of the newest config block of `channel`, from a copy that is kept apart from the blocks; `None` if
    /// there is none.
    ///
    /// # Errors
    /// Storage errors and an unreadable copy.
    pub fn config_block(&self, channel: &ChannelId) -> Result<Option<(u64, Bytes)>, LedgerError> {
        let Some(record) = self.store.read(keys::META, &keys::config(channel))? else { return Ok(None) };
        let record = Bytes::from(record);
        let number = record.get(..8).and_then(keys::number);
        let number = number.ok_or_else(|| self.store.damaged("the copy of a config block is unreadable"))?;
        Ok((number < self.height(channel)).then(|| (number, record.slice(8..))))
    }

    /// Reads what the peer keeps under `key` (an incarnation counter and the like).
    ///
    /// # Errors
    /// Storage errors.
    pub fn meta_get(&self, key: &[u8]) -> Result<Option<Vec<u8>>, LedgerError> {
        self.store.read(keys::META, &keys::state(key))
    }

    /// Keeps `value` under `key`, on the disk when the call returns. Cannot touch the ledger's own records.
    ///
    /// # Errors
    /// Storage errors, [`LedgerError::ReadOnly`].
    pub fn meta_put(&self, key: &[u8], value: &[u8]) -> Result<(), LedgerError> {
        let _position = self.writer()?;
        let mut staged = Staged::default();
        staged.put(keys::META, keys::state(key), value.to_vec());
        self.store.write(staged)
    }

    fn heads(&self) -> std::sync::RwLockReadGuard<'_, BTreeMap<ChannelId, Head>> {
        self.store.heads.read().unwrap_or_else(PoisonError::into_inner)
    }

    fn set_head(&self, channel: &ChannelId, head: Head) {
        let mut heads = self.store.heads.write().unwrap_or_else(PoisonError::into_inner);
        heads.insert(channel.clone(), head);
    }

    fn writer(&self) -> Result<MutexGuard<'_, u64>, LedgerError> {
        if self.store.read_only {
            return Err(LedgerError::ReadOnly);
        }
        let position = self.store.next_position.lock().unwrap_or_else(PoisonError::into_inner);
        if self.store.stopped.load(Ordering::Acquire) { Err(LedgerError::Stopped) } else { Ok(position) }
    }

    /// Writes what was staged and only then lets readers see the new heads.
    fn write(&self, mut staged: Staged, position: &mut u64) -> Result<(), LedgerError> {
        if staged.heads.is_empty() {
            return Ok(());
        }
        for (channel, head) in staged.heads.clone() {
            staged.put(keys::META, keys::head(&channel), head.encode());
        }
        let next_position = staged.next_position;
        staged.put(keys::META, keys::POSITION.to_vec(), next_position.to_be_bytes().to_vec());
        let mut heads = std::mem::take(&mut staged.heads);
        failpoint::reach(Failpoint::Staged);
        self.store.write(staged)?;
        failpoint::reach(Failpoint::Synced);
        *position = next_position;
        self.store.heads.write().unwrap_or_else(PoisonError::into_inner).append(&mut heads);
        failpoint::reach(Failpoint::Visible);
        Ok(())
    }

    fn index_entry(&self, channel: &ChannelId, number: u64) -> Result<Option<IndexEntry>, LedgerError> {
        if number >= self.height(channel) {
            return Ok(None);
        }
        let record = self.store.read(keys::NUMBERS, &keys::by_number(channel, number));
        let record = record.map_err(|error| as_block_damage(channel, number, error))?;
        let Some(record) = record else {
            return Err(damaged(channel, number, "its index entry is missing"));
        };
        match IndexEntry::decode(&record) {
            Some(entry) => Ok(Some(entry)),
            None => Err(damaged(channel, number, "its index entry is unreadable")),
        }
    }

    /// A stored block that is the one committed.
    fn decoded(&self, channel: &ChannelId, number: u64) -> Result<Option<(Bytes, Block)>, LedgerError> {
        let read = self.read_checked(channel, number);
        if let Err(LedgerError::Damaged { .. }) = &read {
            self.store.damage.note(channel, number);
        }
        read
    }

    fn read_checked(&self, channel: &ChannelId, number: u64) -> Result<Option<(Bytes, Block)>, LedgerError> {
        let Some(entry) = self.index_entry(channel, number)? else {
            return Ok(None);
        };
        let encoded = self.store.block(&keys::block(entry.position, number, channel));
        let encoded = encoded.map_err(|error| as_block_damage(channel, number, error))?;
        let encoded = encoded.ok_or_else(|| damaged(channel, number, "the block is missing"))?;
        if keys::checksum(&encoded) != entry.checksum {
            return Err(damaged(channel, number, "its bytes are not those that were committed"));
        }
        let block = Block::decode(encoded.clone(), encoded.len())
            .map_err(|error| damaged(channel, number, &error.to_string()))?;
        if block.header().number != number || block.header_hash() != entry.hash {
            return Err(damaged(channel, number, "the block is not the one in the index"));
        }
        Ok(Some((encoded, block)))
    }
}

/// Damage of the store that was met while reading a block is damage of that block: it can be fetched again. So is a place
/// that the disk cannot read.
fn as_block_damage(channel: &ChannelId, number: u64, error: LedgerError) -> LedgerError {
    match error {
        LedgerError::DamagedStore { detail, .. } => damaged(channel, number, &detail),
        LedgerError::Storage { source, .. } if source.as_ref().contains("Input/output error") => {
            damaged(channel, number, source.as_ref())
        }
        other => other,
    }
}

/// The head that `commit` leads to.
fn follow(known: Option<Head>, commit: &Commit) -> Result<Head, LedgerError> {
    let channel = &commit.channel;
    let mut head = known.ok_or_else(|| LedgerError::UnknownChannel { channel: channel.clone() })?;
    for block in &commit.blocks {
        let number = block.number();
        if number != head.height {
            return Err(LedgerError::NotNext {
                channel: channel.clone(),
                expected: head.height,
                found: number,
            });
        }
        if block.previous_hash() != Some(head.tip) {
            return Err(LedgerError::NotLinked { channel: channel.clone(), number, tip: head.tip });
        }
        head.height = head.height.saturating_add(1);
        head.tip = block.hash();
    }
    Ok(head)
}

fn damaged(channel: &ChannelId, number: u64, detail: &str) -> LedgerError {
    LedgerError::Damaged { channel: channel.clone(), number, detail: detail.to_owned() }
}
