//! Opening a ledger: is it one, can this version read it, and does it agree with itself?
//!
//! A crash cannot leave heads, index and blocks apart, since one atomic write carries all three. The check is for what RocksDB
//! cannot see: a directory put together from two backups, or a write-ahead log cut in the middle.

use std::collections::BTreeMap;
use std::io;
use std::path::Path;
use std::sync::atomic::AtomicBool;
use std::sync::{Arc, Mutex, RwLock};

use grapevine_channels::ChannelId;
use rocksdb::{DB, Direction, IteratorMode, WriteBatch};

use super::error::LedgerError;
use super::keys::{self, Head};
use super::{CHECKED_BLOCKS, CHECKED_BYTES, Ledger, Store, damaged, options};

pub(super) fn for_writing(path: &Path) -> Result<Ledger, LedgerError> {
    match std::fs::metadata(path) {
        Ok(found) if !found.is_dir() => return Err(LedgerError::NotADirectory { path: path.to_owned() }),
        Ok(_) => {}
        Err(error) if error.kind() == io::ErrorKind::NotFound => {
            std::fs::create_dir_all(path).map_err(|error| refused(path, &error))?;
        }
        Err(error) => return Err(refused(path, &error)),
    }
    refuse_foreign(path)?;
    let store = store(options::open(path)?, path, false);
    if store.database.iterator_cf(store.family(keys::META)?, IteratorMode::Start).next().is_none() {
        let mut batch = WriteBatch::default();
        batch.put_cf(store.family(keys::META)?, keys::FORMAT, keys::FORMAT_VERSION.to_be_bytes());
        batch.put_cf(store.family(keys::META)?, keys::POSITION, 0u64.to_be_bytes());
        store.write(batch)?;
    }
    checked(store)
}

pub(super) fn for_reading(path: &Path) -> Result<Ledger, LedgerError> {
    match std::fs::metadata(path) {
        Ok(found) if !found.is_dir() => return Err(LedgerError::NotADirectory { path: path.to_owned() }),
        Ok(_) => {}
        Err(error) if error.kind() == io::ErrorKind::NotFound => {
            return Err(LedgerError::Missing { path: path.to_owned() });
        }
        Err(error) => return Err(refused(path, &error)),
    }
    // RocksDB names its current manifest in this file; without it there is no database at all.
    match std::fs::File::open(path.join("CURRENT")) {
        Ok(_) => {}
        Err(error) if error.kind() == io::ErrorKind::NotFound => {
            return Err(LedgerError::Missing { path: path.to_owned() });
        }
        Err(error) => return Err(refused(path, &error)),
    }
    checked(store(options::open_read_only(path)?, path, true))
}

/// Refuses a store that this version must not touch, before anything is added to it.
fn refuse_foreign(path: &Path) -> Result<(), LedgerError> {
    let families = options::families(path)?;
    let known = |name: &str| ["default", keys::BLOCKS, keys::INDEX, keys::META].contains(&name);
    let all_known = families.iter().all(|name| known(name));
    if families.is_empty() || (all_known && families.iter().any(|name| name == keys::META)) {
        return Ok(());
    }
    if families.iter().any(|name| name == keys::META) {
        // More than this version knows: a newer ledger, or something else that also has a family called meta.
        check_format(&store(options::open_one(path, keys::META)?, path, true))?;
        return Err(LedgerError::Foreign { path: path.to_owned() });
    }
    // A crash while the store was first created can leave some families out, but it leaves nothing in the default one.
    let database = options::open_one(path, "default")?;
    if all_known && database.iterator(IteratorMode::Start).next().is_none() {
        return Ok(());
    }
    Err(LedgerError::Foreign { path: path.to_owned() })
}

fn store(database: DB, path: &Path, read_only: bool) -> Store {
    Store {
        database,
        path: path.to_owned(),
        read_only,
        stopped: AtomicBool::new(false),
        heads: RwLock::new(BTreeMap::new()),
        next_position: Mutex::new(0),
    }
}

fn refused(path: &Path, error: &io::Error) -> LedgerError {
    match error.kind() {
        io::ErrorKind::NotADirectory | io::ErrorKind::AlreadyExists => {
            LedgerError::NotADirectory { path: path.to_owned() }
        }
        _ => LedgerError::Permission { path: path.to_owned(), detail: error.to_string() },
    }
}

fn checked(mut store: Store) -> Result<Ledger, LedgerError> {
    check_format(&store)?;
    let heads = read_heads(&store)?;
    let position = store.read(store.family(keys::META)?, keys::POSITION)?;
    let position = position
        .and_then(|record| keys::number(&record))
        .ok_or_else(|| store.damaged("the position record is missing or unreadable"))?;
    let stored = heads.values().try_fold(0u64, |sum, head| sum.checked_add(head.height));
    if stored != Some(position) {
        return Err(store.damaged("the heads of the channels do not add up to the blocks stored"));
    }
    store.heads = RwLock::new(heads.clone());
    store.next_position = Mutex::new(position);
    let ledger = Ledger { store: Arc::new(store) };
    for (channel, head) in &heads {
        check_channel(&ledger, channel, head)?;
    }
    Ok(ledger)
}

fn check_format(store: &Store) -> Result<(), LedgerError> {
    let Some(record) = store.read(store.family(keys::META)?, keys::FORMAT)? else {
        return Err(LedgerError::Foreign { path: store.path.clone() });
    };
    let found = record
        .try_into()
        .map(u32::from_be_bytes)
        .map_err(|_| LedgerError::Foreign { path: store.path.clone() })?;
    if found > keys::FORMAT_VERSION {
        let path = store.path.clone();
        return Err(LedgerError::NewerFormat { path, found, supported: keys::FORMAT_VERSION });
    }
    Ok(())
}

fn read_heads(store: &Store) -> Result<BTreeMap<ChannelId, Head>, LedgerError> {
    let mut heads = BTreeMap::new();
    let from = IteratorMode::From(keys::CHANNEL, Direction::Forward);
    for record in store.database.iterator_cf(store.family(keys::META)?, from) {
        let (key, value) = record.map_err(|source| options::classify(&store.path, source))?;
        let Some(name) = key.strip_prefix(keys::CHANNEL) else { break };
        let channel = std::str::from_utf8(name).ok().and_then(|name| name.parse::<ChannelId>().ok());
        match (channel, Head::decode(&value)) {
            (Some(channel), Some(head)) => heads.insert(channel, head),
            _ => return Err(store.damaged("the head of a channel is unreadable")),
        };
    }
    Ok(heads)
}

/// The head names the last block; the last blocks hold the data their headers name and follow each other; block 0 is the one
/// the channel was joined with.
fn check_channel(ledger: &Ledger, channel: &ChannelId, head: &Head) -> Result<(), LedgerError> {
    let genesis = ledger.header_hash(channel, 0)?;
    if genesis != Some(head.genesis) {
        return Err(damaged(channel, 0, "it is not the genesis block this peer joined with"));
    }
    let mut expected = head.tip;
    let mut bytes = 0usize;
    for number in (0..head.height).rev().take(usize::try_from(CHECKED_BLOCKS).unwrap_or(usize::MAX)) {
        let Some((encoded, block)) = ledger.decoded(channel, number)? else {
            return Err(damaged(channel, number, "the block is missing"));
        };
        if block.header_hash() != expected {
            return Err(damaged(channel, number, "the next block or the tip names another header hash"));
        }
        if block.compute_data_hash().as_ref() != block.header().data_hash.as_slice() {
            return Err(damaged(channel, number, "its transactions do not have the hash its header names"));
        }
        bytes = bytes.saturating_add(encoded.len());
        if number == 0 || bytes > CHECKED_BYTES {
            break;
        }
        expected = block
            .header()
            .previous_hash
            .as_slice()
            .try_into()
            .map_err(|_| damaged(channel, number, "its previous hash is not a SHA-256 hash"))?;
    }
    Ok(())
}
