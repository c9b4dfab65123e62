//! Mending a ledger whose files contradict each other: a flipped bit, a lost file, a log damaged in the middle.
//!
//! The blocks are the truth, and their keys say whose they are. Everything else but the peer's own state is made again:
//!
//! 1. If RocksDB cannot open its files, it makes a new manifest from the files that are there.
//! 2. A family of the index, or `meta`, that cannot be read to its end is dropped without reading it; what could be read of
//!    `meta` is kept.
//! 3. Every block is read. Each that can be read and is not in the index gets in; the head of a channel becomes its highest
//!    such block. Blocks below that cannot be read are damaged and come again from other peers ([`super::damage`]).
//!
//! It takes the time to read the ledger once, holds one block at a time, and writes in bounded batches. The counter of starts
//! and evidence may be lost with `meta`; what others remember of this peer outbids a lost counter.

use std::collections::BTreeMap;
use std::path::Path;

use bytes::Bytes;
use grapevine_channels::ChannelId;
use grapevine_channels::block::AuthenticBlock;
use grapevine_crypto::Digest;
use rocksdb::{DB, IteratorMode};

use super::error::LedgerError;
use super::keys::{self, Head, IndexEntry};
use super::options;
use super::store::{Staged, Store, find_family};

/// Blocks indexed with one write.
const BATCH_BLOCKS: usize = 256;
/// Positions tried one by one behind an unreadable place, before the steps double.
const SINGLE_STEPS: u64 = 64;

/// What the blocks say of a channel.
#[derive(Default)]
struct Scanned {
    genesis: Option<Digest>,
    highest: Option<(u64, Digest)>,
    config: Option<AuthenticBlock>,
}

/// Mends the ledger in `path`, which nobody has open.
pub(super) fn mend(path: &Path) -> Result<(), LedgerError> {
    let unmendable = |error: LedgerError| match error.is_damage() {
        true => LedgerError::Unmendable { path: path.to_owned(), detail: error.to_string() },
        false => error,
    };
    let database = match options::open(path) {
        Err(error) if error.is_damage() => {
            tracing::warn!(%error, "the store's manifest is made anew");
            options::repair(path).map_err(unmendable)?;
            options::open(path).map_err(unmendable)?
        }
        opened => opened?,
    };
    rebuild(database, path).map_err(unmendable)
}

fn rebuild(mut database: DB, path: &Path) -> Result<(), LedgerError> {
    let (meta, meta_is_whole) = readable_records(&database, keys::META);
    let mut broken: Vec<&'static str> = Vec::new();
    for family in [keys::NUMBERS, keys::HASHES, keys::TRANSACTIONS] {
        if !is_readable(&database, family) {
            broken.push(family);
        }
    }
    if !meta_is_whole {
        broken.push(keys::META);
    }
    for family in &broken {
        tracing::warn!(family, "this part of the ledger cannot be read and is made again from the blocks");
        let failed = |source| options::classify(path, source);
        database.drop_cf(family).map_err(failed)?;
        database.create_cf(family, &options::of_family(family)).map_err(failed)?;
    }
    let store = Store::new(database, path.to_owned(), false);
    let mut kept = Staged::default();
    kept.put(keys::META, Vec::new(), keys::FORMAT_VERSION.to_be_bytes().to_vec());
    kept.put(keys::META, keys::FORMAT.to_vec(), keys::FORMAT_VERSION.to_be_bytes().to_vec());
    if !meta_is_whole {
        meta.iter().for_each(|(key, value)| kept.put(keys::META, key.clone(), value.clone()));
    }
    store.write(kept)?;
    let (channels, next_position) = scan(&store)?;
    write_heads(&store, &meta, &channels, next_position)
}

/// All records of a family as far as they can be read, and whether that was to the end.
fn readable_records(database: &DB, family: &str) -> (BTreeMap<Vec<u8>, Vec<u8>>, bool) {
    let Some(family) = find_family(database, family) else { return (BTreeMap::new(), false) };
    let mut records = BTreeMap::new();
    for record in database.iterator_cf(family, IteratorMode::Start) {
        match record {
            Ok((key, value)) => records.insert(key.into_vec(), value.into_vec()),
            Err(_) => return (records, false),
        };
    }
    (records, true)
}

fn is_readable(database: &DB, family: &str) -> bool {
    let Some(family) = find_family(database, family) else { return false };
    database.iterator_cf(family, IteratorMode::Start).all(|record| record.is_ok())
}

/// Reads every block and puts into the index what is not there.
fn scan(store: &Store) -> Result<(BTreeMap<ChannelId, Scanned>, u64), LedgerError> {
    let mut channels: BTreeMap<ChannelId, Scanned> = BTreeMap::new();
    let mut staged = Staged::default();
    let mut waiting = 0usize;
    let mut next_position = 0u64;
    let database = store.database()?;
    for_each_block(store, &database, |position, number, channel, encoded| {
        next_position = next_position.max(position.saturating_add(1));
        let Ok(block) = AuthenticBlock::stored(encoded) else { return Ok(()) };
        if block.number() != number {
            return Ok(());
        }
        let scanned = channels.entry(channel.clone()).or_default();
        if number == 0 {
            scanned.genesis = Some(block.hash());
        }
        if scanned.highest.is_none_or(|(highest, _)| number >= highest) {
            scanned.highest = Some((number, block.hash()));
        }
        if block.is_config() && scanned.config.as_ref().is_none_or(|newest| number >= newest.number()) {
            scanned.config = Some(block.clone());
        }
        let entry = store.read(keys::NUMBERS, &keys::by_number(&channel, number))?;
        let entry = entry.and_then(|record| IndexEntry::decode(&record));
        // Written again at a later position: that one is in force.
        if entry.is_none_or(|entry| entry.position <= position) {
            staged.index(&channel, &block, position);
            waiting = waiting.saturating_add(1);
        }
        if waiting >= BATCH_BLOCKS {
            waiting = 0;
            store.write(std::mem::take(&mut staged))?;
        }
        Ok(())
    })?;
    if !staged.is_empty() {
        store.write(staged)?;
    }
    Ok((channels, next_position))
}

/// Hands every readable block with its position, number and channel to `take`, in the order of positions.
fn for_each_block(
    store: &Store,
    database: &DB,
    mut take: impl FnMut(u64, u64, ChannelId, Bytes) -> Result<(), LedgerError>,
) -> Result<(), LedgerError> {
    let family =
        find_family(database, keys::BLOCKS).ok_or_else(|| store.damaged("a column family is missing"))?;
    let end = last_position(database);
    let mut from = 0u64;
    let mut step = 0u64;
    loop {
        let mut iterator = database.raw_iterator_cf_opt(family, options::uncached());
        iterator.seek(from.to_be_bytes());
        while let Some((key, value)) = iterator.item() {
            if let Some((position, number, channel)) = keys::parse_block(key) {
                take(position, number, channel, Bytes::copy_from_slice(value))?;
                from = position.saturating_add(1);
                step = 0;
            }
            iterator.next();
        }
        if iterator.status().is_ok() || from > end {
            return Ok(());
        }
        // Something at or behind `from` cannot be read: over it.
        step = step.saturating_add(1);
        let jump = if step <= SINGLE_STEPS { 1 } else { step };
        from = from.saturating_add(jump);
    }
}

/// The highest position that the names of the files' keys tell of.
fn last_position(database: &DB) -> u64 {
    let files = database.live_files().unwrap_or_default();
    let of_blocks = files.iter().filter(|file| file.column_family_name == keys::BLOCKS);
    let ends = of_blocks.filter_map(|file| keys::parse_block(file.end_key.as_deref()?));
    ends.map(|(position, _, _)| position).max().unwrap_or(0)
}

fn write_heads(
    store: &Store,
    meta: &BTreeMap<Vec<u8>, Vec<u8>>,
    channels: &BTreeMap<ChannelId, Scanned>,
    next_position: u64,
) -> Result<(), LedgerError> {
    let mut staged = Staged::default();
    let known = meta.iter().filter_map(|(key, value)| {
        let name = std::str::from_utf8(key.strip_prefix(keys::CHANNEL)?).ok()?;
        Some((name.parse::<ChannelId>().ok()?, Head::decode(value)?))
    });
    let known: BTreeMap<ChannelId, Head> = known.collect();
    let unscanned = Scanned::default();
    let mut counted = 0u64;
    for channel in known.keys().chain(channels.keys().filter(|channel| !known.contains_key(*channel))) {
        let scanned = channels.get(channel).unwrap_or(&unscanned);
        let entry = store.read(keys::NUMBERS, &keys::by_number(channel, 0))?;
        let indexed = entry.and_then(|record| IndexEntry::decode(&record)).map(|entry| entry.hash);
        let genesis = known.get(channel).map(|head| head.genesis).or(scanned.genesis).or(indexed);
        let Some(genesis) = genesis else {
            tracing::error!(%channel, "the channel's genesis block is lost: join it again with: grapevine channel join");
            continue;
        };
        let (number, tip) = scanned.highest.unwrap_or((0, genesis));
        let head = Head { genesis, height: number.saturating_add(1), tip };
        counted = counted.saturating_add(head.height);
        staged.put(keys::META, keys::head(channel), head.encode());
        if let Some(config) = &scanned.config
            && config_number(meta, channel).is_none_or(|kept| kept < config.number())
        {
            staged.config(channel, config);
        }
    }
    let recorded = meta.get(keys::POSITION).and_then(|record| keys::number(record)).unwrap_or(0);
    let next_position = next_position.max(recorded).max(counted);
    staged.put(keys::META, keys::POSITION.to_vec(), next_position.to_be_bytes().to_vec());
    store.write(staged)
}

fn config_number(meta: &BTreeMap<Vec<u8>, Vec<u8>>, channel: &ChannelId) -> Option<u64> {
    keys::number(meta.get(&keys::config(channel))?.get(..8)?)
}
