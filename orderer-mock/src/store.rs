//! Blocks on disk: a directory per channel, a file per block.
//!
//! Promises: [`BlockStore::append`] returns only after the block's file and its directory entry are synced, so a block that
//! was ever delivered survives `kill -9` and power loss; block numbers are contiguous from 0 and each block names the
//! header hash of the one before.
//!
//! A block is written as `NNN.block` (a marshalled `common.Block`, at least three digits) by way of `NNN.partial`, sync,
//! rename, sync of the directory. A write cut short leaves a `.partial` file, which opening removes. A file system that
//! loses the order of a rename and its data may leave a damaged last block; opening detects it (it does not parse, its
//! data hash, number or previous hash is wrong, or its signatures are missing) and cuts it off. Nobody can have received
//! it, since delivery waits for the sync. Damage anywhere before the last block is an error for the operator.
//!
//! Readers ([`BlockReader`]) are cheap clones and read by number, with a small cache of the newest blocks: at most
//! [`CACHE_BYTES_MAX`] bytes and [`CACHE_BLOCKS_MAX`] blocks, oldest dropped first. So slow readers cost no memory.

use std::collections::VecDeque;
use std::fs::{self, File};
use std::io::{self, Write};
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, PoisonError};

use bytes::Bytes;
use grapevine_channels::block::Block;
use grapevine_crypto::Digest;

use crate::rpc::MESSAGE_BYTES_MAX;

/// Most bytes of recent blocks kept in memory for a channel.
pub const CACHE_BYTES_MAX: usize = 32 * 1024 * 1024;

/// Most recent blocks kept in memory for a channel.
pub const CACHE_BLOCKS_MAX: usize = 64;

/// Why a store cannot be used. A failed append leaves the store at its old height on the next open.
#[derive(Debug, thiserror::Error)]
pub enum StoreError {
    /// The file system refused.
    #[error("cannot {action} {}: {source}; check that the directory exists, is writable and has space", path.display())]
    Io {
        /// What was tried.
        action: &'static str,
        /// On which file or directory.
        path: PathBuf,
        /// The system's answer.
        source: io::Error,
    },
    /// A block before the last one is missing or damaged.
    #[error("{} is damaged: {reason}; restore the directory from a copy, or remove it to start the channel anew", path.display())]
    Damaged {
        /// The file.
        path: PathBuf,
        /// What is wrong with it.
        reason: String,
    },
    /// The directory belongs to another chain.
    #[error(
        "{} holds a chain with genesis hash {stored}, the configured genesis block has {configured}; \
         use the genesis block this chain began with or another fileLedger.location",
        path.display()
    )]
    OtherGenesis {
        /// The channel's directory.
        path: PathBuf,
        /// Header hash of its block 0.
        stored: Digest,
        /// Header hash of the configured block 0.
        configured: Digest,
    },
    /// The block to append does not follow the tip: a bug of the caller.
    #[error("block {number} does not follow a chain of {height} blocks")]
    NotNext {
        /// Number of the block.
        number: u64,
        /// Number of blocks in the store.
        height: u64,
    },
}

/// The only writer of a channel's directory.
#[derive(Debug)]
pub struct BlockStore {
    reader: BlockReader,
    height: u64,
    tip_hash: Digest,
    last_config: u64,
}

impl BlockStore {
    /// Opens or creates the channel directory `directory`. A new one begins with `genesis`, the file's bytes as given.
    /// Removes what an interrupted write left behind, with a warning in the log.
    pub fn open(directory: &Path, genesis_bytes: &Bytes, genesis: &Block) -> Result<Self, StoreError> {
        fs::create_dir_all(directory).map_err(io_error("create", directory))?;
        let reader = BlockReader { directory: directory.into(), cache: Arc::default() };
        let mut height = clean_and_count(directory)?;
        while height > 0 {
            match load_tip(&reader, height)? {
                Ok(tip) => return Self::opened(reader, height, &tip, genesis),
                Err(reason) if height > 1 => {
                    let path = reader.path(height - 1);
                    tracing::warn!(file = %path.display(), reason, "cutting off a torn last block");
                    fs::remove_file(&path).map_err(io_error("remove", &path))?;
                    sync_directory(directory)?;
                    height -= 1;
                    if let Err(reason) = load_tip(&reader, height)? {
                        return Err(StoreError::Damaged { path: reader.path(height - 1), reason });
                    }
                }
                // A torn genesis block is no loss: the configured one takes its place.
                Err(_) => break,
            }
        }
        let mut store = Self { reader, height: 0, tip_hash: genesis.header_hash(), last_config: 0 };
        store.write(0, genesis_bytes)?;
        store.advance(genesis.header_hash(), true, genesis_bytes.clone());
        Ok(store)
    }

    fn opened(reader: BlockReader, height: u64, tip: &Block, genesis: &Block) -> Result<Self, StoreError> {
        let stored = decode(&reader, 0)?.header_hash();
        let configured = genesis.header_hash();
        if stored != configured {
            return Err(StoreError::OtherGenesis {
                path: reader.directory.to_path_buf(),
                stored,
                configured,
            });
        }
        let last_config = tip.last_config_index().unwrap_or(0);
        Ok(Self { reader, height, tip_hash: tip.header_hash(), last_config })
    }

    /// Number of blocks; the number of the next one.
    pub fn height(&self) -> u64 {
        self.height
    }

    /// Header hash of the last block.
    pub fn tip_hash(&self) -> Digest {
        self.tip_hash
    }

    /// Number of the newest config block.
    pub fn last_config(&self) -> u64 {
        self.last_config
    }

    /// A reader of this channel's blocks.
    pub fn reader(&self) -> BlockReader {
        self.reader.clone()
    }

    /// Writes block `number`, `encoded` as a marshalled `common.Block` whose header hashes to `hash`, and syncs it.
    pub fn append(
        &mut self,
        number: u64,
        hash: Digest,
        is_config: bool,
        encoded: Bytes,
    ) -> Result<(), StoreError> {
        if number != self.height {
            return Err(StoreError::NotNext { number, height: self.height });
        }
        self.write(number, &encoded)?;
        self.advance(hash, is_config, encoded);
        Ok(())
    }

    fn advance(&mut self, hash: Digest, is_config: bool, encoded: Bytes) {
        if is_config {
            self.last_config = self.height;
        }
        self.tip_hash = hash;
        self.reader.remember(self.height, encoded);
        self.height = self.height.saturating_add(1);
    }

    fn write(&self, number: u64, encoded: &[u8]) -> Result<(), StoreError> {
        let path = self.reader.path(number);
        let partial = path.with_extension("partial");
        let mut file = File::create(&partial).map_err(io_error("create", &partial))?;
        file.write_all(encoded).map_err(io_error("write", &partial))?;
        file.sync_all().map_err(io_error("sync", &partial))?;
        fs::rename(&partial, &path).map_err(io_error("rename to", &path))?;
        sync_directory(&self.reader.directory)
    }
}

#[derive(Debug, Default)]
struct Cache {
    blocks: VecDeque<(u64, Bytes)>,
    bytes: usize,
}

/// Reads blocks of one channel by number. Blocking: call it where blocking is allowed.
#[derive(Debug, Clone)]
pub struct BlockReader {
    directory: Arc<Path>,
    cache: Arc<Mutex<Cache>>,
}

impl BlockReader {
    /// A block's bytes if it is among the newest ones kept in memory; never blocks for long.
    pub fn cached(&self, number: u64) -> Option<Bytes> {
        let cache = self.cache.lock().unwrap_or_else(PoisonError::into_inner);
        cache.blocks.iter().rev().find(|(cached, _)| *cached == number).map(|(_, encoded)| encoded.clone())
    }

    /// A block's bytes: a marshalled `common.Block` with all metadata. An error if there is no such block.
    pub fn read(&self, number: u64) -> Result<Bytes, StoreError> {
        if let Some(encoded) = self.cached(number) {
            return Ok(encoded);
        }
        let path = self.path(number);
        fs::read(&path).map(Bytes::from).map_err(io_error("read", &path))
    }

    fn remember(&self, number: u64, encoded: Bytes) {
        let mut cache = self.cache.lock().unwrap_or_else(PoisonError::into_inner);
        cache.bytes = cache.bytes.saturating_add(encoded.len());
        cache.blocks.push_back((number, encoded));
        while cache.bytes > CACHE_BYTES_MAX || cache.blocks.len() > CACHE_BLOCKS_MAX {
            let Some((_, dropped)) = cache.blocks.pop_front() else { break };
            cache.bytes = cache.bytes.saturating_sub(dropped.len());
        }
    }

    pub(crate) fn path(&self, number: u64) -> PathBuf {
        self.directory.join(format!("{number:03}.block"))
    }
}

/// Removes leftovers of interrupted writes and counts the blocks; an error if numbers are missing.
fn clean_and_count(directory: &Path) -> Result<u64, StoreError> {
    let (mut count, mut last) = (0_u64, None::<(u64, PathBuf)>);
    for entry in fs::read_dir(directory).map_err(io_error("list", directory))? {
        let path = entry.map_err(io_error("list", directory))?.path();
        match path.extension().and_then(|extension| extension.to_str()) {
            Some("partial") => fs::remove_file(&path).map_err(io_error("remove", &path))?,
            Some("block") => {
                let stem = path.file_stem().and_then(|stem| stem.to_str());
                let Some(number) = stem.and_then(|stem| stem.parse::<u64>().ok()) else {
                    return Err(StoreError::Damaged { path, reason: "its name is no block number".into() });
                };
                count = count.saturating_add(1);
                if last.as_ref().is_none_or(|(highest, _)| number > *highest) {
                    last = Some((number, path));
                }
            }
            _ => {}
        }
    }
    match last {
        Some((highest, path)) if highest.saturating_add(1) != count => Err(StoreError::Damaged {
            path,
            reason: format!("it is block {highest}, but there are only {count} blocks"),
        }),
        _ => Ok(count),
    }
}

/// Reads and checks the last of `height` blocks. Outer error: the file system; inner: the block is not whole.
fn load_tip(reader: &BlockReader, height: u64) -> Result<Result<Block, String>, StoreError> {
    let number = height.saturating_sub(1);
    let block = match Block::decode(reader.read(number)?, MESSAGE_BYTES_MAX) {
        Ok(block) => block,
        Err(error) => return Ok(Err(error.to_string())),
    };
    if block.header().number != number {
        return Ok(Err(format!("it says it is block {}", block.header().number)));
    }
    if block.header().data_hash != block.compute_data_hash().as_ref() {
        return Ok(Err("its data hash is wrong".into()));
    }
    if number > 0 {
        if block.signatures_metadata().is_empty() {
            return Ok(Err("its signatures are missing".into()));
        }
        if block.header().previous_hash != decode(reader, number.saturating_sub(1))?.header_hash().as_ref() {
            return Ok(Err("its previous hash is wrong".into()));
        }
    }
    Ok(Ok(block))
}

fn decode(reader: &BlockReader, number: u64) -> Result<Block, StoreError> {
    Block::decode(reader.read(number)?, MESSAGE_BYTES_MAX)
        .map_err(|error| StoreError::Damaged { path: reader.path(number), reason: error.to_string() })
}

fn sync_directory(directory: &Path) -> Result<(), StoreError> {
    File::open(directory).and_then(|file| file.sync_all()).map_err(io_error("sync", directory))
}

fn io_error(action: &'static str, path: &Path) -> impl FnOnce(io::Error) -> StoreError {
    let path = path.to_path_buf();
    move |source| StoreError::Io { action, path, source }
}
