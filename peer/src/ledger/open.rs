//! Opening a ledger: is it one, can this version read it, and does it agree with itself?
//!
//! A crash leaves heads, index and blocks together, since one atomic write carries all three; what the log has of a write that
//! was not finished, RocksDB cuts. The checks here are for what it cannot see: a directory put together from two backups, a
//! log damaged in the middle. A tail that does not fit the chain is cut, and comes again from other peers; a store that
//! cannot be opened, or whose records contradict each other, is mended ([`super::recover`]).

use std::collections::BTreeMap;
use std::io;
use std::path::Path;
use std::sync::atomic::Ordering;
use std::sync::{Arc, PoisonError};

use grapevine_channels::ChannelId;
use grapevine_crypto::Digest;
use rocksdb::{DB, Direction, IteratorMode};

use super::error::LedgerError;
use super::keys::{self, Head};
use super::store::{Staged, Store, find_family};
use super::{CHECKED_BLOCKS, CHECKED_BYTES, Ledger, damaged, options, recover};

/// A file that says that the directory is a ledger, also when RocksDB cannot read its own files.
pub(super) const MARKER: &str = "grapevine-ledger";

pub(super) fn for_writing(path: &Path) -> Result<Ledger, LedgerError> {
    match std::fs::metadata(path) {
        Ok(found) if !found.is_dir() => return Err(LedgerError::NotADirectory { path: path.to_owned() }),
        Ok(_) => {}
        Err(error) if error.kind() == io::ErrorKind::NotFound => {
            std::fs::create_dir_all(path).map_err(|error| refused(path, &error))?;
        }
        Err(error) => return Err(refused(path, &error)),
    }
    mended_if_need_be(path)
}

fn mended_if_need_be(path: &Path) -> Result<Ledger, LedgerError> {
    match attempt(path) {
        Err(error) if error.is_damage() && path.join(MARKER).exists() => {
            tracing::error!(%error, "the ledger is damaged and is being mended; what was lost comes from other peers");
            recover::mend(path)?;
            attempt(path)
        }
        outcome => outcome,
    }
}

fn attempt(path: &Path) -> Result<Ledger, LedgerError> {
    refuse_foreign(path)?;
    let store = Store::new(options::open(path)?, path.to_owned(), false);
    prepare(&store)?;
    let ledger = checked(store)?;
    let heads = ledger.heads().clone();
    for (channel, head) in heads {
        cut_tail(&ledger, &channel, head)?;
    }
    Ok(ledger)
}

/// A new store gets a record in each family, in a file: only files say which family they belong to when the manifest is lost.
fn prepare(store: &Store) -> Result<(), LedgerError> {
    let database = store.database()?;
    let meta =
        find_family(&database, keys::META).ok_or_else(|| store.damaged("a column family is missing"))?;
    if database.iterator_cf(meta, IteratorMode::Start).next().is_none() {
        let mut staged = Staged::default();
        for family in options::FAMILIES.into_iter().filter(|family| *family != "default") {
            staged.put(family, Vec::new(), keys::FORMAT_VERSION.to_be_bytes().to_vec());
        }
        staged.put(keys::META, keys::FORMAT.to_vec(), keys::FORMAT_VERSION.to_be_bytes().to_vec());
        staged.put(keys::META, keys::POSITION.to_vec(), 0u64.to_be_bytes().to_vec());
        store.write(staged)?;
        for family in options::FAMILIES {
            let family =
                find_family(&database, family).ok_or_else(|| store.damaged("a column family is missing"))?;
            database.flush_cf(family).map_err(|source| options::classify(&store.path, source))?;
        }
    }
    let marker = store.path.join(MARKER);
    if marker.exists() {
        return Ok(());
    }
    std::fs::write(&marker, b"This directory is the ledger of a grapevine peer.\n")
        .map_err(|error| refused(&store.path, &error))
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
    checked(Store::new(options::open_read_only(path)?, path.to_owned(), true))
}

/// See [`Ledger::reopen`].
pub(super) fn again(store: &Store, damaged: bool) -> Result<(), LedgerError> {
    store.close()?;
    // An unmounted disk leaves an empty directory behind; a new ledger in it would look as if the disk had lost every block.
    if !store.path.join(MARKER).try_exists().map_err(|error| refused(&store.path, &error))? {
        return Err(LedgerError::Missing { path: store.path.clone() });
    }
    let opened = if damaged { recover::mend(&store.path) } else { Ok(()) };
    let ledger = match opened.and_then(|()| mended_if_need_be(&store.path)) {
        Ok(ledger) => ledger,
        Err(error) => {
            // What cannot be written can often still be read, and others want blocks.
            if let Ok(database) = options::open_read_only(&store.path) {
                store.replace(Arc::new(database));
            }
            return Err(error);
        }
    };
    for (channel, number) in ledger.damaged() {
        store.damage.note(&channel, number);
    }
    let position = *ledger.store.next_position.lock().unwrap_or_else(PoisonError::into_inner);
    *store.next_position.lock().unwrap_or_else(PoisonError::into_inner) = position;
    *store.heads.write().unwrap_or_else(PoisonError::into_inner) = ledger.heads().clone();
    store.replace(ledger.store.database()?);
    store.stopped.store(false, Ordering::Release);
    Ok(())
}

/// Refuses a store that this version must not touch, before anything is added to it.
fn refuse_foreign(path: &Path) -> Result<(), LedgerError> {
    let families = options::families(path)?;
    let known = |name: &str| options::FAMILIES.contains(&name);
    let all_known = families.iter().all(|name| known(name));
    if families.is_empty() && path.join(MARKER).exists() && options::has_files(path) {
        return Err(LedgerError::DamagedStore {
            path: path.to_owned(),
            detail: "the file that names the manifest is missing".to_owned(),
        });
    }
    if families.is_empty() || (all_known && families.iter().any(|name| name == keys::META)) {
        return Ok(());
    }
    if families.iter().any(|name| name == keys::META) {
        // Other families than this version knows: another format, or something else that also has a family called meta.
        let store = Store::new(options::open_one(path, keys::META)?, path.to_owned(), true);
        check_format(&store)?;
        return Err(LedgerError::Foreign { path: path.to_owned() });
    }
    // A crash while the store was first created can leave some families out, but it leaves nothing in the default one.
    let database = options::open_one(path, "default")?;
    if all_known && database.iterator(IteratorMode::Start).next().is_none() {
        return Ok(());
    }
    Err(LedgerError::Foreign { path: path.to_owned() })
}

fn refused(path: &Path, error: &io::Error) -> LedgerError {
    match error.kind() {
        io::ErrorKind::NotADirectory | io::ErrorKind::AlreadyExists => {
            LedgerError::NotADirectory { path: path.to_owned() }
        }
        io::ErrorKind::StorageFull | io::ErrorKind::QuotaExceeded => {
            LedgerError::DiskFull { path: path.to_owned() }
        }
        io::ErrorKind::ReadOnlyFilesystem => LedgerError::ReadOnlyFileSystem { path: path.to_owned() },
        _ => LedgerError::Permission { path: path.to_owned(), detail: error.to_string() },
    }
}

/// The store's own records fit together; the blocks are not looked at.
fn checked(store: Store) -> Result<Ledger, LedgerError> {
    check_format(&store)?;
    let database = store.database()?;
    let heads = read_heads(&store, &database)?;
    let position = store.read(keys::META, keys::POSITION)?;
    let position = position
        .and_then(|record| keys::number(&record))
        .ok_or_else(|| store.damaged("the position record is missing or unreadable"))?;
    let stored = heads.values().try_fold(0u64, |sum, head| sum.checked_add(head.height));
    if stored.is_none_or(|stored| stored > position) {
        return Err(store.damaged("the heads of the channels count more blocks than were stored"));
    }
    *store.heads.write().unwrap_or_else(PoisonError::into_inner) = heads;
    *store.next_position.lock().unwrap_or_else(PoisonError::into_inner) = position;
    Ok(Ledger { store: Arc::new(store) })
}

fn check_format(store: &Store) -> Result<(), LedgerError> {
    let Some(record) = store.read(keys::META, keys::FORMAT)? else {
        return if store.path.join(MARKER).exists() {
            Err(store.damaged("the format record is missing"))
        } else {
            Err(LedgerError::Foreign { path: store.path.clone() })
        };
    };
    let found = record
        .try_into()
        .map(u32::from_be_bytes)
        .map_err(|_| LedgerError::Foreign { path: store.path.clone() })?;
    let (path, supported) = (store.path.clone(), keys::FORMAT_VERSION);
    match found {
        keys::FORMAT_VERSION => Ok(()),
        newer if newer > supported => Err(LedgerError::NewerFormat { path, found, supported }),
        _ => Err(LedgerError::OlderFormat { path, found, supported }),
    }
}

fn read_heads(store: &Store, database: &DB) -> Result<BTreeMap<ChannelId, Head>, LedgerError> {
    let meta =
        find_family(database, keys::META).ok_or_else(|| store.damaged("a column family is missing"))?;
    let mut heads = BTreeMap::new();
    for record in database.iterator_cf(meta, IteratorMode::From(keys::CHANNEL, Direction::Forward)) {
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

/// Cuts the blocks at the end of a channel that do not fit together. Block 0 is never cut: its hash is known, and it can be
/// fetched like any other damaged block.
fn cut_tail(ledger: &Ledger, channel: &ChannelId, mut head: Head) -> Result<(), LedgerError> {
    let before = head.height;
    let mut why = String::new();
    while let Some((number, detail)) = damage_of_tail(ledger, channel, head)? {
        why = detail;
        if number == 0 {
            head = Head { height: 1, tip: head.genesis, ..head };
            ledger.store.damage.note(channel, 0);
            break;
        }
        let last = number.saturating_sub(1);
        // The block before, if it can be read, says what the tip's hash is; else the next round finds it damaged.
        let tip = match ledger.read_checked(channel, last) {
            Ok(Some((_, block))) => block.header_hash(),
            _ if last == 0 => head.genesis,
            _ => ledger.header_hash(channel, last).ok().flatten().unwrap_or(head.genesis),
        };
        head = Head { height: number, tip, ..head };
        ledger.set_head(channel, head);
    }
    if why.is_empty() {
        return Ok(());
    }
    ledger.set_head(channel, head);
    let mut staged = Staged::default();
    staged.put(keys::META, keys::head(channel), head.encode());
    if before > head.height {
        let cut = before.saturating_sub(head.height);
        tracing::error!(%channel, height = head.height, cut, why, "the end of the ledger is torn; it is cut and will be fetched again");
    }
    ledger.store.write(staged)
}

/// The lowest of the last blocks that is damaged or does not fit, and what is wrong: the head names the last block, each holds
/// the data its header names and follows the one before; block 0 is the one the channel was joined with.
fn damage_of_tail(
    ledger: &Ledger,
    channel: &ChannelId,
    head: Head,
) -> Result<Option<(u64, String)>, LedgerError> {
    let mut expected = Some(head.tip);
    let mut bytes = 0usize;
    let mut found = None;
    for number in (0..head.height).rev().take(usize::try_from(CHECKED_BLOCKS).unwrap_or(usize::MAX)) {
        let (encoded, block) = match ledger.read_checked(channel, number) {
            Ok(Some(read)) => read,
            Ok(None) => return Err(damaged(channel, number, "the ledger shrank while it was read")),
            Err(LedgerError::Damaged { detail, .. }) => {
                found = Some((number, detail));
                expected = None;
                continue;
            }
            Err(error) => return Err(error),
        };
        if expected.is_some_and(|expected| expected != block.header_hash()) {
            // Which of the two is wrong is not known; this one may be right.
            let above = number.saturating_add(1);
            found = Some(if above < head.height {
                (above, "it does not follow the block before".to_owned())
            } else {
                (number, "the channel's head names another header hash".to_owned())
            });
        }
        if block.compute_data_hash().as_ref() != block.header().data_hash.as_slice() {
            found = Some((number, "its transactions do not have the hash its header names".to_owned()));
        }
        if number == 0 && block.header_hash() != head.genesis {
            found = Some((0, "it is not the genesis block this peer joined with".to_owned()));
        }
        bytes = bytes.saturating_add(encoded.len());
        if bytes > CHECKED_BYTES {
            break;
        }
        expected = Digest::try_from(block.header().previous_hash.as_slice()).ok();
    }
    Ok(found)
}
