//! RocksDB as the ledger uses it: one handle that can be closed and opened again, and what one synced write carries.

use std::collections::BTreeMap;
use std::path::PathBuf;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, PoisonError, RwLock};
use std::time::{Duration, Instant};

use bytes::Bytes;
use grapevine_channels::ChannelId;
use grapevine_channels::block::AuthenticBlock;
use grapevine_channels::transaction::transaction_payload;
use rocksdb::{ColumnFamily, DB, WriteBatch};

use super::damage::Damage;
use super::error::LedgerError;
use super::keys::{self, Head, IndexEntry};
use super::options;

/// Longest wait for readers to let go of the store that is to be opened again.
const CLOSE_TIMEOUT: Duration = Duration::from_secs(10);

pub(super) struct Store {
    /// `None` while it is being opened again.
    database: RwLock<Option<Arc<DB>>>,
    pub(super) path: PathBuf,
    pub(super) read_only: bool,
    /// A write failed; what is on disk is unknown.
    pub(super) stopped: AtomicBool,
    pub(super) heads: RwLock<BTreeMap<ChannelId, Head>>,
    /// Next free position; its lock orders the writers.
    pub(super) next_position: Mutex<u64>,
    pub(super) damage: Damage,
}

impl Store {
    pub(super) fn new(database: DB, path: PathBuf, read_only: bool) -> Self {
        Self {
            database: RwLock::new(Some(Arc::new(database))),
            path,
            read_only,
            stopped: AtomicBool::new(false),
            heads: RwLock::new(BTreeMap::new()),
            next_position: Mutex::new(0),
            damage: Damage::default(),
        }
    }

    pub(super) fn database(&self) -> Result<Arc<DB>, LedgerError> {
        self.database.read().unwrap_or_else(PoisonError::into_inner).clone().ok_or(LedgerError::Reopening)
    }

    /// Closes the files and lets go of their lock. Readers that are at it are waited for.
    pub(super) fn close(&self) -> Result<(), LedgerError> {
        let closed = self.database.write().unwrap_or_else(PoisonError::into_inner).take();
        let Some(mut database) = closed else { return Ok(()) };
        let deadline = Instant::now() + CLOSE_TIMEOUT;
        loop {
            match Arc::try_unwrap(database) {
                Ok(database) => {
                    drop(database);
                    return Ok(());
                }
                Err(shared) if Instant::now() > deadline => {
                    *self.database.write().unwrap_or_else(PoisonError::into_inner) = Some(shared);
                    return Err(LedgerError::Reopening);
                }
                Err(shared) => {
                    database = shared;
                    std::thread::sleep(Duration::from_millis(1));
                }
            }
        }
    }

    /// Takes the place of what was closed.
    pub(super) fn replace(&self, database: Arc<DB>) {
        *self.database.write().unwrap_or_else(PoisonError::into_inner) = Some(database);
    }

    pub(super) fn read(&self, family: &str, key: &[u8]) -> Result<Option<Vec<u8>>, LedgerError> {
        let database = self.database()?;
        let family =
            find_family(&database, family).ok_or_else(|| self.damaged("a column family is missing"))?;
        database.get_cf(family, key).map_err(|source| options::classify(&self.path, source))
    }

    pub(super) fn block(&self, key: &[u8]) -> Result<Option<Bytes>, LedgerError> {
        let database = self.database()?;
        let family =
            find_family(&database, keys::BLOCKS).ok_or_else(|| self.damaged("a column family is missing"))?;
        let value = database.get_cf_opt(family, key, &options::uncached());
        Ok(value.map_err(|source| options::classify(&self.path, source))?.map(Bytes::from))
    }

    pub(super) fn write(&self, staged: Staged) -> Result<(), LedgerError> {
        let database = self.database()?;
        // At once: a batch that grows by doubling takes twice its size, and is copied.
        let mut batch = WriteBatch::with_capacity_bytes(staged.batch_bytes());
        for (family, key, value) in &staged.puts {
            let family =
                find_family(&database, family).ok_or_else(|| self.damaged("a column family is missing"))?;
            batch.put_cf(family, key, value);
        }
        // The block's bytes go from the caller's memory into the batch, once.
        for (key, block) in &staged.blocks {
            let family = find_family(&database, keys::BLOCKS)
                .ok_or_else(|| self.damaged("a column family is missing"))?;
            batch.put_cf(family, key, block.encoded());
        }
        database.write_opt(batch, &options::synced()).map_err(|source| {
            self.stopped.store(true, Ordering::Release);
            options::classify(&self.path, source)
        })
    }

    pub(super) fn damaged(&self, detail: &str) -> LedgerError {
        LedgerError::DamagedStore { path: self.path.clone(), detail: detail.to_owned() }
    }
}

pub(super) fn find_family<'a>(database: &'a DB, name: &str) -> Option<&'a ColumnFamily> {
    database.cf_handle(name)
}

/// What a batch needs for a record besides key and value, at most.
const RECORD_BYTES: usize = 16;

/// What one synced write will carry.
#[derive(Default)]
pub(super) struct Staged {
    puts: Vec<(&'static str, Vec<u8>, Vec<u8>)>,
    blocks: Vec<(Vec<u8>, AuthenticBlock)>,
    pub(super) next_position: u64,
    pub(super) heads: BTreeMap<ChannelId, Head>,
}

impl Staged {
    pub(super) fn new(next_position: u64) -> Self {
        Self { next_position, ..Self::default() }
    }

    pub(super) fn put(&mut self, family: &'static str, key: Vec<u8>, value: Vec<u8>) {
        self.puts.push((family, key, value));
    }

    /// The block at the next position, and what finds it.
    pub(super) fn block(&mut self, channel: &ChannelId, block: &AuthenticBlock) {
        let (number, position) = (block.number(), self.next_position);
        self.index(channel, block, position);
        self.blocks.push((keys::block(position, number, channel), block.clone()));
        self.next_position = position.saturating_add(1);
    }

    /// What finds a block that lies at `position`.
    pub(super) fn index(&mut self, channel: &ChannelId, block: &AuthenticBlock, position: u64) {
        let (number, hash) = (block.number(), block.hash());
        let entry = IndexEntry { position, hash, checksum: keys::checksum(block.encoded()) };
        self.put(keys::NUMBERS, keys::by_number(channel, number), entry.encode());
        self.put(keys::HASHES, keys::by_hash(channel, &hash), number.to_be_bytes().to_vec());
        for (id, place) in transaction_ids(block) {
            let fingerprint = keys::fingerprint(channel, &id);
            self.put(keys::TRANSACTIONS, keys::transaction(fingerprint, number, place), Vec::new());
        }
    }

    /// The channel's newest config block, a second time: a peer can take part in the channel whatever becomes of the first.
    pub(super) fn config(&mut self, channel: &ChannelId, block: &AuthenticBlock) {
        let record = [block.number().to_be_bytes().as_slice(), block.encoded()].concat();
        self.put(keys::META, keys::config(channel), record);
    }

    /// Bytes of the batch, or a little more.
    fn batch_bytes(&self) -> usize {
        let puts = self.puts.iter().map(|(_, key, value)| key.len().saturating_add(value.len()));
        let blocks = self.blocks.iter().map(|(key, block)| key.len().saturating_add(block.encoded().len()));
        let records = self.puts.len().saturating_add(self.blocks.len());
        puts.chain(blocks).fold(records.saturating_mul(RECORD_BYTES), usize::saturating_add)
    }

    pub(super) fn is_empty(&self) -> bool {
        self.puts.is_empty() && self.blocks.is_empty()
    }
}

/// The ids that transactions of a block claim, with their places. What cannot be parsed or claims none has no id.
pub(super) fn transaction_ids(block: &AuthenticBlock) -> impl Iterator<Item = (String, u32)> {
    block.block().transactions().iter().enumerate().filter_map(|(place, envelope)| {
        let id = transaction_payload(envelope).ok()?.tx_id;
        (!id.is_empty()).then_some((id, u32::try_from(place).ok()?))
    })
}
