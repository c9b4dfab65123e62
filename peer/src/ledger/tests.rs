//! The ledger against its promises; what only a killed process can show is in the integration tests.

use std::collections::BTreeSet;
use std::sync::atomic::Ordering;
use std::time::{Duration, Instant};

use bytes::Bytes;
use grapevine_channels::ChannelId;
use grapevine_channels::block::{AuthenticBlock, Block, BlockHeader};
use grapevine_crypto::{Digest, sha256_of};
use rocksdb::{DB, WriteBatch};
use tempfile::TempDir;

use super::keys::{self, Head, IndexEntry};
use super::store::find_family;
use super::*;

mod thread;

fn channel(name: &str) -> ChannelId {
    name.parse().unwrap()
}

/// A block with one transaction of `size` bytes that depend on its number.
fn block(number: u64, previous: Option<Digest>, size: usize) -> AuthenticBlock {
    let body: Vec<u8> =
        (0..size).map(|place| (place as u64).wrapping_mul(31).wrapping_add(number) as u8).collect();
    let data_hash = sha256_of([body.as_slice()]).0.to_vec();
    let previous_hash = previous.map(|hash| hash.0.to_vec()).unwrap_or_default();
    let header = BlockHeader { number, previous_hash, data_hash };
    let block = Block::from_parts(header, vec![Bytes::from(body)], Bytes::new());
    AuthenticBlock::stored(block.encode()).unwrap()
}

/// Blocks 0 to `count - 1`, whose sizes make the chains of different `seed`s differ.
fn chain(seed: usize, count: u64) -> Vec<AuthenticBlock> {
    let mut blocks: Vec<AuthenticBlock> = Vec::new();
    for number in 0..count {
        let previous = blocks.last().map(AuthenticBlock::hash);
        blocks.push(block(number, previous, 100 + seed));
    }
    blocks
}

fn open(directory: &TempDir) -> Ledger {
    Ledger::open(directory.path().join(DIRECTORY)).unwrap()
}

/// A ledger with `blocks` in channel `trade`.
fn filled(directory: &TempDir, blocks: &[AuthenticBlock]) -> Ledger {
    let ledger = open(directory);
    ledger.create_channel(&channel("trade"), &blocks[0]).unwrap();
    ledger.append(&channel("trade"), &blocks[1..]).unwrap();
    ledger
}

#[test]
fn what_was_appended_is_there_after_reopening() {
    let directory = TempDir::new().unwrap();
    let (trade, audit) = (channel("trade"), channel("audit"));
    let (of_trade, of_audit) = (chain(0, 20), chain(1, 5));
    let ledger = filled(&directory, &of_trade);
    ledger.create_channel(&audit, &of_audit[0]).unwrap();
    for block in &of_audit[1..] {
        ledger.append(&audit, std::slice::from_ref(block)).unwrap();
    }
    drop(ledger);

    let ledger = open(&directory);
    assert_eq!(ledger.channels(), [audit.clone(), trade.clone()]);
    for (channel, blocks) in [(&trade, &of_trade), (&audit, &of_audit)] {
        let last = blocks.last().unwrap();
        assert_eq!(ledger.height(channel), blocks.len() as u64);
        assert_eq!(ledger.tip(channel), Some((last.number(), last.hash())));
        assert_eq!(ledger.genesis_hash(channel), Some(blocks[0].hash()));
        for block in blocks {
            assert_eq!(ledger.block(channel, block.number()).unwrap().as_ref(), Some(block.encoded()));
            assert_eq!(ledger.header_hash(channel, block.number()).unwrap(), Some(block.hash()));
            assert_eq!(ledger.number_of(channel, &block.hash()).unwrap(), Some(block.number()));
        }
        assert_eq!(ledger.block(channel, last.number() + 1).unwrap(), None);
        let other = if channel == &trade { &of_audit } else { &of_trade };
        assert_eq!(ledger.number_of(channel, &other[1].hash()).unwrap(), None);
    }
    let numbers: Vec<u64> = ledger.iterate(&trade, 5..8).map(|entry| entry.unwrap().0).collect();
    assert_eq!(numbers, [5, 6, 7]);
    assert_eq!(ledger.iterate(&trade, 18..u64::MAX).count(), 2);
    assert_eq!(ledger.iterate(&trade, 30..40).count(), 0);
}

#[test]
fn unknown_channels_are_empty() {
    let directory = TempDir::new().unwrap();
    let ledger = open(&directory);
    let trade = channel("trade");
    assert_eq!((ledger.height(&trade), ledger.tip(&trade)), (0, None));
    assert_eq!(ledger.block(&trade, 0).unwrap(), None);
    let refused = ledger.append(&trade, &chain(0, 2)[1..]).unwrap_err();
    assert!(matches!(refused, LedgerError::UnknownChannel { .. }), "{refused}");
}

#[test]
fn joining_twice_is_the_same_only_for_the_same_genesis_block() {
    let directory = TempDir::new().unwrap();
    let blocks = chain(0, 3);
    let ledger = filled(&directory, &blocks);
    let trade = channel("trade");
    ledger.create_channel(&trade, &blocks[0]).unwrap();
    assert_eq!(ledger.height(&trade), 3);
    let other = ledger.create_channel(&trade, &chain(1, 1)[0]).unwrap_err();
    assert!(matches!(other, LedgerError::OtherGenesis { .. }), "{other}");
    let late = ledger.create_channel(&channel("audit"), &blocks[1]).unwrap_err();
    assert!(matches!(late, LedgerError::NotGenesis { number: 1, .. }), "{late}");
    assert_eq!(ledger.channels(), [trade]);
}

#[test]
fn only_the_next_linked_block_is_taken_and_a_call_is_all_or_nothing() {
    let directory = TempDir::new().unwrap();
    let blocks = chain(0, 6);
    let ledger = filled(&directory, &blocks[..3]);
    let trade = channel("trade");

    let again = ledger.append(&trade, &blocks[2..3]).unwrap_err();
    assert!(matches!(again, LedgerError::NotNext { expected: 3, found: 2, .. }), "{again}");
    let gap = ledger.append(&trade, &blocks[4..5]).unwrap_err();
    assert!(matches!(gap, LedgerError::NotNext { expected: 3, found: 4, .. }), "{gap}");
    let foreign = block(3, Some(Digest([7; 32])), 10);
    let foreign = ledger.append(&trade, &[foreign]).unwrap_err();
    assert!(matches!(foreign, LedgerError::NotLinked { number: 3, .. }), "{foreign}");

    let broken = [blocks[3].clone(), blocks[5].clone()];
    assert!(ledger.append(&trade, &broken).is_err());
    assert_eq!(ledger.height(&trade), 3);
    assert_eq!(ledger.block(&trade, 3).unwrap(), None);
    ledger.append(&trade, &blocks[3..]).unwrap();
    assert_eq!(ledger.height(&trade), 6);
    ledger.append(&trade, &[]).unwrap();
}

#[test]
fn a_group_leaves_out_what_does_not_follow_and_keeps_the_rest() {
    let directory = TempDir::new().unwrap();
    let (trade, audit) = (channel("trade"), channel("audit"));
    let (of_trade, of_audit) = (chain(0, 5), chain(1, 3));
    let ledger = filled(&directory, &of_trade[..1]);
    ledger.create_channel(&audit, &of_audit[0]).unwrap();
    let commit = |channel: &ChannelId, blocks: &[AuthenticBlock]| Commit {
        channel: channel.clone(),
        blocks: blocks.to_vec(),
    };
    let group = [
        commit(&trade, &of_trade[1..3]),
        commit(&audit, &of_audit[2..3]),
        commit(&trade, &of_trade[3..4]),
        commit(&audit, &of_audit[1..2]),
    ];
    let outcomes = ledger.append_group(&group).unwrap();
    assert_eq!(*outcomes[0].as_ref().unwrap(), ChannelHead { height: 3, tip: of_trade[2].hash() });
    assert!(matches!(outcomes[1], Err(LedgerError::NotNext { expected: 1, found: 2, .. })));
    assert_eq!(outcomes[2].as_ref().unwrap().height, 4);
    assert_eq!(outcomes[3].as_ref().unwrap().height, 2);
    drop(ledger);
    let ledger = open(&directory);
    assert_eq!((ledger.height(&trade), ledger.height(&audit)), (4, 2));
    assert_eq!(ledger.block(&audit, 1).unwrap().as_ref(), Some(of_audit[1].encoded()));
}

#[test]
fn a_reader_works_beside_the_writer_and_writes_nothing() {
    let directory = TempDir::new().unwrap();
    let blocks = chain(0, 8);
    let trade = channel("trade");
    let ledger = filled(&directory, &blocks[..4]);
    let reader = Ledger::open_read_only(ledger.path()).unwrap();
    ledger.append(&trade, &blocks[4..]).unwrap();
    assert_eq!(reader.height(&trade), 4);
    assert_eq!(reader.block(&trade, 3).unwrap().as_ref(), Some(blocks[3].encoded()));
    assert!(matches!(reader.append(&trade, &blocks[4..5]), Err(LedgerError::ReadOnly)));
    assert!(matches!(reader.meta_put(b"key", b"value"), Err(LedgerError::ReadOnly)));
    assert_eq!(Ledger::open_read_only(ledger.path()).unwrap().height(&trade), 8);
}

#[test]
fn a_reader_keeps_its_view_while_the_writer_flushes_and_compacts() {
    let directory = TempDir::new().unwrap();
    let trade = channel("trade");
    let mut blocks = vec![block(0, None, 10)];
    let ledger = filled(&directory, &blocks);
    let mut readers = Vec::new();
    for round in 0..6 {
        for _ in 0..10 {
            let last = blocks.last().unwrap();
            let next = block(last.number() + 1, Some(last.hash()), 700_000);
            ledger.append(&trade, std::slice::from_ref(&next)).unwrap();
            blocks.push(next);
        }
        flush(&ledger);
        if round % 2 == 0 {
            readers.push(Ledger::open_read_only(ledger.path()).unwrap());
        }
    }
    let database = ledger.store.database().unwrap();
    for family in [keys::NUMBERS, keys::HASHES] {
        let family = find_family(&database, family).unwrap();
        database.compact_range_cf(family, None::<&[u8]>, None::<&[u8]>);
    }
    for reader in readers {
        let height = reader.height(&trade);
        assert_eq!(reader.iterate(&trade, 0..height).filter(Result::is_ok).count() as u64, height);
    }
}

#[test]
fn two_writers_are_refused() {
    let directory = TempDir::new().unwrap();
    let ledger = open(&directory);
    let second = Ledger::open(ledger.path()).unwrap_err();
    assert!(matches!(second, LedgerError::Locked { .. }), "{second}");
    assert!(second.to_string().contains(&ledger.path().display().to_string()), "{second}");
}

#[test]
fn wrong_places_are_named() {
    let directory = TempDir::new().unwrap();
    let file = directory.path().join("file");
    std::fs::write(&file, b"x").unwrap();
    assert!(matches!(Ledger::open(&file), Err(LedgerError::NotADirectory { .. })));
    assert!(matches!(Ledger::open(file.join("below")), Err(LedgerError::NotADirectory { .. })));
    assert!(matches!(Ledger::open_read_only(&file), Err(LedgerError::NotADirectory { .. })));
    let nowhere = directory.path().join("nowhere");
    assert!(matches!(Ledger::open_read_only(&nowhere), Err(LedgerError::Missing { .. })));
    assert!(!nowhere.exists());
    std::fs::create_dir(&nowhere).unwrap();
    assert!(matches!(Ledger::open_read_only(&nowhere), Err(LedgerError::Missing { .. })));
}

#[test]
fn other_databases_and_newer_formats_are_refused() {
    let directory = TempDir::new().unwrap();
    let other = directory.path().join("other");
    let database = DB::open_default(&other).unwrap();
    database.put(b"key", b"value").unwrap();
    drop(database);
    // Opening adds missing column families, so a database that is not ours must be recognised before.
    let foreign = Ledger::open(&other).unwrap_err();
    assert!(matches!(foreign, LedgerError::Foreign { .. }), "{foreign}");
    let foreign = Ledger::open_read_only(&other).unwrap_err();
    assert!(matches!(foreign, LedgerError::Foreign { .. }), "{foreign}");

    let ledger = filled(&directory, &chain(0, 2));
    let path = ledger.path().to_owned();
    put(&ledger, keys::META, keys::FORMAT, &(keys::FORMAT_VERSION + 1).to_be_bytes());
    drop(ledger);
    for refused in [Ledger::open(&path), Ledger::open_read_only(&path)] {
        let refused = refused.unwrap_err();
        assert!(matches!(refused, LedgerError::NewerFormat { found: 3, supported: 2, .. }), "{refused}");
    }
}

/// There is no way from format 1, and the message says what to do instead.
#[test]
fn an_older_format_is_refused_with_what_to_do() {
    let directory = TempDir::new().unwrap();
    let ledger = filled(&directory, &chain(0, 2));
    let path = ledger.path().to_owned();
    put(&ledger, keys::META, keys::FORMAT, &1u32.to_be_bytes());
    drop(ledger);
    for refused in [Ledger::open(&path), Ledger::open_read_only(&path)] {
        let said = refused.unwrap_err().to_string();
        let advice = "has format 1, this version reads format 2; move the directory away, and the peer fetches its channels again";
        assert!(said.ends_with(advice), "{said}");
    }
}

fn put(ledger: &Ledger, family: &str, key: &[u8], value: &[u8]) {
    let database = ledger.store.database().unwrap();
    let mut batch = WriteBatch::default();
    batch.put_cf(find_family(&database, family).unwrap(), key, value);
    database.write(batch).unwrap();
}

fn remove(ledger: &Ledger, family: &str, key: &[u8]) {
    let database = ledger.store.database().unwrap();
    let mut batch = WriteBatch::default();
    batch.delete_cf(find_family(&database, family).unwrap(), key);
    database.write(batch).unwrap();
}

fn flush(ledger: &Ledger) {
    let database = ledger.store.database().unwrap();
    for family in options::FAMILIES {
        database.flush_cf(find_family(&database, family).unwrap()).unwrap();
    }
}

/// Key of the block at `position` of a ledger with `trade` alone.
fn block_key(position: u64) -> Vec<u8> {
    keys::block(position, position, &channel("trade"))
}

/// Opens a ledger of four blocks in which `change` was made behind its back, checks that no block it hands out is a wrong
/// one, and gives it what it lost.
fn reopened_after(change: impl FnOnce(&Ledger, &[AuthenticBlock])) -> (Ledger, u64, TempDir) {
    let directory = TempDir::new().unwrap();
    let blocks = chain(0, 4);
    let ledger = filled(&directory, &blocks);
    change(&ledger, &blocks);
    drop(ledger);
    let ledger = open(&directory);
    let height = ledger.height(&channel("trade"));
    make_whole(&ledger, &blocks);
    (ledger, height, directory)
}

/// Gives a ledger back what it lost of `blocks`, as other peers would, and checks it all.
fn make_whole(ledger: &Ledger, blocks: &[AuthenticBlock]) {
    let trade = channel("trade");
    ledger.create_channel(&trade, &blocks[0]).unwrap();
    let height = ledger.height(&trade);
    assert!(height <= blocks.len() as u64);
    ledger.mark_damaged(&trade, 0..height);
    let mut lost: BTreeSet<u64> = ledger.damaged().into_iter().map(|(_, number)| number).collect();
    while !lost.is_empty() {
        let before = lost.len();
        lost.retain(|number| ledger.restore(&trade, &blocks[*number as usize]).is_err());
        assert!(lost.len() < before, "{lost:?} are not taken");
    }
    ledger.append(&trade, &blocks[height as usize..]).unwrap();
    assert_eq!(ledger.tip(&trade).unwrap().1, blocks.last().unwrap().hash());
    for block in blocks {
        assert_eq!(ledger.block(&trade, block.number()).unwrap().as_ref(), Some(block.encoded()));
    }
    assert!(ledger.damaged().is_empty());
}

#[test]
fn damage_is_mended_at_opening() {
    let trade = channel("trade");
    let head = |blocks: &[AuthenticBlock], height: u64| Head {
        genesis: blocks[0].hash(),
        height,
        tip: blocks[height as usize - 1].hash(),
    };
    assert_eq!(reopened_after(|_, _| ()).1, 4);
    // The head names another tip.
    let (_, height, _) = reopened_after(|ledger, blocks| {
        let wrong = Head { tip: blocks[1].hash(), ..head(blocks, 4) };
        put(ledger, keys::META, &keys::head(&trade), &wrong.encode());
    });
    assert_eq!(height, 3);
    // The head is ahead of the blocks.
    let (_, height, _) = reopened_after(|ledger, blocks| {
        let wrong = Head { height: 9, ..head(blocks, 4) };
        put(ledger, keys::META, &keys::head(&trade), &wrong.encode());
        put(ledger, keys::META, keys::POSITION, &9u64.to_be_bytes());
    });
    assert_eq!(height, 4);
    // Another block lies where block 2 should.
    let (_, height, _) =
        reopened_after(|ledger, blocks| put(ledger, keys::BLOCKS, &block_key(2), blocks[1].encoded()));
    assert_eq!(height, 2);
    // The header is right, the transactions are not, index and all.
    let (_, height, _) = reopened_after(|ledger, blocks| {
        let header = blocks[3].block().header().clone();
        let forged = Block::from_parts(header, vec![Bytes::from_static(b"forged")], Bytes::new()).encode();
        put(ledger, keys::BLOCKS, &block_key(3), &forged);
        let entry = IndexEntry { position: 3, hash: blocks[3].hash(), checksum: keys::checksum(&forged) };
        put(ledger, keys::NUMBERS, &keys::by_number(&trade, 3), &entry.encode());
    });
    assert_eq!(height, 3);
    // A consistent block of another chain, index and all.
    let (_, height, _) = reopened_after(|ledger, _| {
        let other = block(2, Some(Digest([9; 32])), 50);
        put(ledger, keys::BLOCKS, &block_key(2), other.encoded());
        let entry = IndexEntry { position: 2, hash: other.hash(), checksum: keys::checksum(other.encoded()) };
        put(ledger, keys::NUMBERS, &keys::by_number(&trade, 2), &entry.encode());
    });
    assert_eq!(height, 2);
    // Block 0 stays, for its hash is known.
    let (_, height, _) = reopened_after(|ledger, _| remove(ledger, keys::BLOCKS, &block_key(0)));
    assert_eq!(height, 1);
    // Records of the store itself.
    for key in [keys::head(&trade), keys::POSITION.to_vec()] {
        let (_, height, _) = reopened_after(|ledger, _| put(ledger, keys::META, &key, b"short"));
        assert_eq!(height, 4, "{key:?}");
        let (_, height, _) = reopened_after(|ledger, _| remove(ledger, keys::META, &key));
        assert!(height == 4 || key == keys::head(&trade), "{key:?}: {height}");
    }
}

#[test]
fn a_lost_head_is_made_again_from_the_blocks() {
    let directory = TempDir::new().unwrap();
    let blocks = chain(0, 20);
    let ledger = filled(&directory, &blocks);
    let trade = channel("trade");
    put(&ledger, keys::META, &keys::head(&trade), b"short");
    remove(&ledger, keys::NUMBERS, &keys::by_number(&trade, 7));
    remove(&ledger, keys::HASHES, &keys::by_hash(&trade, &blocks[7].hash()));
    drop(ledger);
    let ledger = open(&directory);
    assert_eq!(ledger.height(&trade), 20);
    assert_eq!(ledger.number_of(&trade, &blocks[7].hash()).unwrap(), Some(7));
    make_whole(&ledger, &blocks);
}

#[test]
fn damage_behind_the_checked_blocks_is_found_when_read_and_restored() {
    let directory = TempDir::new().unwrap();
    let blocks = chain(0, CHECKED_BLOCKS + 5);
    let trade = channel("trade");
    let ledger = filled(&directory, &blocks);
    put(&ledger, keys::BLOCKS, &block_key(2), b"\xff\xff");
    put(&ledger, keys::BLOCKS, &block_key(3), blocks[1].encoded());
    // What no header hash covers: the signatures.
    let altered = Block::from_parts(
        blocks[4].block().header().clone(),
        blocks[4].block().transactions().to_vec(),
        Bytes::from_static(b"other signatures"),
    );
    put(&ledger, keys::BLOCKS, &block_key(4), &altered.encode());
    drop(ledger);
    let ledger = open(&directory);
    assert!(ledger.damaged().is_empty());
    for number in [2, 3, 4] {
        let damage = ledger.block(&trade, number);
        assert!(matches!(damage, Err(LedgerError::Damaged { .. })), "{damage:?}");
    }
    assert_eq!(ledger.damaged(), [2, 3, 4].map(|number| (trade.clone(), number)));
    assert!(ledger.iterate(&trade, 0..4).any(|entry| entry.is_err()));
    assert!(ledger.block(&trade, 1).unwrap().is_some());
    let refused = ledger.restore(&trade, &block(3, Some(blocks[2].hash()), 7)).unwrap_err();
    assert!(matches!(refused, LedgerError::NotTheLostBlock { number: 3, .. }), "{refused}");
    let refused = ledger.restore(&trade, &block(99, Some(blocks[2].hash()), 7)).unwrap_err();
    assert!(matches!(refused, LedgerError::NotTheLostBlock { number: 99, .. }), "{refused}");
    make_whole(&ledger, &blocks);
    drop(ledger);
    make_whole(&open(&directory), &blocks);
}

#[test]
fn without_its_index_entry_a_block_is_known_by_the_one_after_it() {
    let directory = TempDir::new().unwrap();
    let blocks = chain(0, 30);
    let trade = channel("trade");
    let ledger = filled(&directory, &blocks);
    for number in [4, 5] {
        remove(&ledger, keys::NUMBERS, &keys::by_number(&trade, number));
    }
    assert_eq!(ledger.mark_damaged(&trade, 0..30), 2);
    assert_eq!(ledger.expected_hash(&trade, 4), None);
    assert!(ledger.restore(&trade, &blocks[4]).is_err());
    assert_eq!(ledger.expected_hash(&trade, 5), Some(blocks[5].hash()));
    make_whole(&ledger, &blocks);
    assert_eq!(ledger.expected_hash(&trade, 0), Some(blocks[0].hash()));
    assert_eq!(ledger.expected_hash(&trade, 29), Some(blocks[29].hash()));
    assert_eq!(ledger.expected_hash(&trade, 30), None);
}

#[test]
fn nothing_is_written_after_a_failed_write() {
    let directory = TempDir::new().unwrap();
    let blocks = chain(0, 3);
    let ledger = filled(&directory, &blocks[..2]);
    ledger.store.stopped.store(true, Ordering::Release);
    assert!(matches!(ledger.append(&channel("trade"), &blocks[2..]), Err(LedgerError::Stopped)));
    assert!(matches!(ledger.meta_put(b"a", b"b"), Err(LedgerError::Stopped)));
    assert_eq!(ledger.height(&channel("trade")), 2);
}

#[test]
fn state_is_kept_apart_from_the_ledgers_own_records() {
    let directory = TempDir::new().unwrap();
    let ledger = filled(&directory, &chain(0, 2));
    assert_eq!(ledger.meta_get(b"format").unwrap(), None);
    ledger.meta_put(b"format", b"mine").unwrap();
    ledger.meta_put(b"incarnation", &7u64.to_be_bytes()).unwrap();
    drop(ledger);
    let ledger = open(&directory);
    assert_eq!(ledger.meta_get(b"format").unwrap().as_deref(), Some(b"mine".as_slice()));
    assert_eq!(ledger.meta_get(b"incarnation").unwrap(), Some(7u64.to_be_bytes().to_vec()));
}

#[test]
fn compaction_moves_blocks_and_does_not_rewrite_them() {
    let directory = TempDir::new().unwrap();
    let (trade, audit) = (channel("trade"), channel("audit"));
    let ledger = open(&directory);
    let mut tips = Vec::new();
    for channel in [&trade, &audit] {
        let genesis = block(0, None, 10);
        ledger.create_channel(channel, &genesis).unwrap();
        tips.push(genesis);
    }
    let database = ledger.store.database().unwrap();
    let files = || {
        let live = database.live_files().unwrap();
        live.into_iter().filter(|file| file.column_family_name == keys::BLOCKS).collect::<Vec<_>>()
    };
    let mut written = BTreeSet::new();
    for _ in 0..12 {
        for (channel, tip) in [&trade, &audit].into_iter().zip(&mut tips) {
            let next = block(tip.number() + 1, Some(tip.hash()), 100_000);
            ledger.append(channel, std::slice::from_ref(&next)).unwrap();
            *tip = next;
        }
        database.flush_cf(find_family(&database, keys::BLOCKS).unwrap()).unwrap();
        written.extend(files().into_iter().map(|file| file.name));
    }
    // Compaction starts by itself when there are four files in level 0.
    let deadline = Instant::now() + Duration::from_secs(30);
    while files().iter().filter(|file| file.level == 0).count() >= 4 {
        assert!(Instant::now() < deadline, "no compaction: {:?}", files());
        std::thread::sleep(Duration::from_millis(5));
    }
    assert!(files().iter().any(|file| file.level > 0));
    // A file that was moved keeps its name; one that was rewritten gets another.
    assert_eq!(files().into_iter().map(|file| file.name).collect::<BTreeSet<_>>(), written);
    assert_eq!(written.len(), 13, "twelve and the one that every new ledger has");
}

#[test]
fn a_second_opening_keeps_readers_and_the_lock() {
    let directory = TempDir::new().unwrap();
    let blocks = chain(0, 12);
    let trade = channel("trade");
    let ledger = filled(&directory, &blocks);
    for damaged in [false, true] {
        ledger.reopen(damaged).unwrap();
        assert_eq!(ledger.block(&trade, 3).unwrap().as_ref(), Some(blocks[3].encoded()));
        assert!(matches!(Ledger::open(ledger.path()), Err(LedgerError::Locked { .. })));
    }
    ledger.store.close().unwrap();
    assert!(matches!(ledger.block(&trade, 3), Err(LedgerError::Reopening)));
    assert!(ledger.damaged().is_empty(), "what cannot be read for a moment is not damaged");
    ledger.reopen(false).unwrap();
    make_whole(&ledger, &blocks);
}

#[test]
fn a_ledger_whose_disk_is_not_mounted_is_not_made_anew() {
    let directory = TempDir::new().unwrap();
    let blocks = chain(0, 4);
    let ledger = filled(&directory, &blocks);
    let (path, away) = (directory.path().join(DIRECTORY), directory.path().join("away"));
    std::fs::rename(&path, &away).unwrap();
    for empty in [false, true] {
        if empty {
            std::fs::create_dir(&path).unwrap();
        }
        let refused = ledger.reopen(false).unwrap_err();
        assert!(matches!(refused, LedgerError::Missing { .. }), "{refused}");
    }
    // Fails if anything was put into it.
    std::fs::remove_dir(&path).unwrap();
    std::fs::rename(&away, &path).unwrap();
    ledger.reopen(false).unwrap();
    assert_eq!(ledger.height(&channel("trade")), 4);
}
