//! Files that changed behind the ledger's back: flipped bits and torn ends. It opens without help, hands out no wrong block,
//! and is whole again when it has been given what it lost.

use std::fs;
use std::path::{Path, PathBuf};

use grapevine_channels::ChannelId;
use grapevine_channels::block::AuthenticBlock;
use grapevine_durability::load::{self, Random};
use grapevine_peer::ledger::{Ledger, LedgerError};

use crate::rounds;

const NAME: &str = "trade";

/// In memory where there is such a file system: these tests open thousands of ledgers, and what they look for is in the bytes, not on a disk.
fn scratch() -> tempfile::TempDir {
    tempfile::tempdir_in("/dev/shm").or_else(|_| tempfile::tempdir()).unwrap()
}

fn channel() -> ChannelId {
    load::channel(NAME).unwrap()
}

fn blocks(count: u64) -> Vec<AuthenticBlock> {
    let mut blocks: Vec<AuthenticBlock> = Vec::new();
    for number in 0..count {
        let previous = blocks.last().map(AuthenticBlock::hash);
        blocks.push(load::block(NAME, number, previous).unwrap());
    }
    blocks
}

/// A ledger of some files and a log, closed.
fn template(path: &Path, blocks: &[AuthenticBlock]) {
    let (first, rest) = blocks.split_first().unwrap();
    // Each opening moves what is in the log to files.
    for part in rest.chunks(rest.len().div_ceil(5)) {
        let ledger = Ledger::open(path).unwrap();
        ledger.create_channel(&channel(), first).unwrap();
        for block in part {
            ledger.append(&channel(), std::slice::from_ref(block)).unwrap();
        }
    }
}

fn copy(from: &Path, to: &Path) {
    if to.exists() {
        fs::remove_dir_all(to).unwrap();
    }
    fs::create_dir(to).unwrap();
    for entry in fs::read_dir(from).unwrap() {
        let entry = entry.unwrap();
        fs::copy(entry.path(), to.join(entry.file_name())).unwrap();
    }
}

fn files(path: &Path) -> Vec<PathBuf> {
    let mut files: Vec<PathBuf> = fs::read_dir(path).unwrap().map(|entry| entry.unwrap().path()).collect();
    files.retain(|file| fs::metadata(file).unwrap().len() > 0);
    files.sort();
    files
}

/// Every block that is handed out is the right one; the number of those that are not.
fn unreadable(ledger: &Ledger, blocks: &[AuthenticBlock]) -> u64 {
    let height = ledger.height(&channel());
    assert!(height <= blocks.len() as u64, "more blocks than there ever were");
    let mut bad = 0;
    for block in &blocks[..height as usize] {
        match ledger.block(&channel(), block.number()) {
            Ok(stored) => assert_eq!(stored.as_ref(), Some(block.encoded()), "block {}", block.number()),
            Err(LedgerError::Damaged { .. }) => bad += 1,
            Err(error) => panic!("block {}: {error}", block.number()),
        }
        if let Ok(Some(number)) = ledger.number_of(&channel(), &block.hash()) {
            assert_eq!(number, block.number());
        }
    }
    bad
}

/// Gives the ledger what it lost, as other peers would.
fn make_whole(ledger: &Ledger, blocks: &[AuthenticBlock]) {
    ledger.create_channel(&channel(), &blocks[0]).unwrap();
    while unreadable(ledger, blocks) > 0 {
        let lost = ledger.damaged();
        let restored =
            lost.iter().filter(|(of, number)| ledger.restore(of, &blocks[*number as usize]).is_ok()).count();
        assert!(restored > 0, "{lost:?}");
    }
    let height = ledger.height(&channel()) as usize;
    ledger.append(&channel(), &blocks[height..]).unwrap();
    for number in 0..blocks.len() as u64 {
        ledger.reindex(&channel(), number).unwrap();
    }
    for block in blocks {
        assert_eq!(ledger.number_of(&channel(), &block.hash()).unwrap(), Some(block.number()));
    }
}

/// Opens what `change` has made of a copy, and mends it.
fn survives(path: &Path, blocks: &[AuthenticBlock], what: &str) {
    let ledger = Ledger::open(path).unwrap_or_else(|error| panic!("{what}: {error}"));
    make_whole(&ledger, blocks);
    drop(ledger);
    let ledger = Ledger::open(path).unwrap_or_else(|error| panic!("{what}, afterwards: {error}"));
    assert_eq!((ledger.height(&channel()), unreadable(&ledger, blocks)), (blocks.len() as u64, 0), "{what}");
}

#[test]
fn a_flipped_bit_anywhere_costs_nothing_for_good() {
    let directory = scratch();
    let blocks = blocks(45);
    let (original, victim) = (directory.path().join("original"), directory.path().join("victim"));
    template(&original, &blocks);
    let places = files(&original);
    for seed in 0..rounds(60, 1_000) {
        let mut random = Random(seed);
        let file = &places[random.below(places.len() as u64) as usize];
        let mut bytes = fs::read(file).unwrap();
        let (at, bit) = (random.below(bytes.len() as u64), random.below(8));
        bytes[at as usize] ^= 1 << bit;
        copy(&original, &victim);
        let name = file.file_name().unwrap();
        fs::write(victim.join(name), bytes).unwrap();
        survives(&victim, &blocks, &format!("seed {seed}: bit {bit} of byte {at} of {}", name.display()));
    }
}

#[test]
fn a_lost_file_costs_nothing_for_good() {
    let directory = tempfile::tempdir().unwrap();
    let blocks = blocks(45);
    let (original, victim) = (directory.path().join("original"), directory.path().join("victim"));
    template(&original, &blocks);
    for file in files(&original) {
        // Without its mark nobody knows that the rest is a ledger, and the rest is whole.
        let name = file.file_name().unwrap();
        for empty in [false, true] {
            copy(&original, &victim);
            if empty {
                fs::write(victim.join(name), b"").unwrap();
            } else {
                fs::remove_file(victim.join(name)).unwrap();
            }
            survives(&victim, &blocks, &format!("{} lost, or emptied: {empty}", name.display()));
        }
    }
}

#[test]
fn a_torn_last_write_is_cut_and_nothing_else() {
    let directory = scratch();
    let blocks = blocks(13);
    let (original, victim) = (directory.path().join("original"), directory.path().join("victim"));
    let log =
        |path: &Path| files(path).into_iter().rfind(|file| file.extension().is_some_and(|end| end == "log"));
    let ledger = Ledger::open(&original).unwrap();
    ledger.create_channel(&channel(), &blocks[0]).unwrap();
    ledger.append(&channel(), &blocks[1..12]).unwrap();
    let log = log(&original).unwrap();
    let before = fs::metadata(&log).unwrap().len();
    ledger.append(&channel(), &blocks[12..]).unwrap();
    let whole = fs::read(&log).unwrap();
    drop(ledger);
    let name = log.file_name().unwrap();
    let (first, last) = (before as usize, whole.len());
    assert!(last > first + blocks[12].encoded().len());
    let step = rounds(211, 1) as usize;
    let cuts = (first..last).step_by(step).chain([first + 1, last - 1]);
    for cut in cuts {
        // Cut off, and full of what a file system may leave there.
        for filler in [None, Some(0u8), Some(0x5a)] {
            if step == 1 && filler.is_some() && cut % 16 != 0 {
                continue;
            }
            copy(&original, &victim);
            let mut torn = whole[..cut].to_vec();
            if let Some(filler) = filler {
                torn.resize(last, filler);
            }
            if torn == whole {
                continue;
            }
            fs::write(victim.join(name), torn).unwrap();
            let ledger = Ledger::open(&victim).unwrap();
            assert_eq!(ledger.height(&channel()), 12, "cut at {cut} of {first} to {last}, {filler:?}");
            assert_eq!(unreadable(&ledger, &blocks), 0);
            ledger.append(&channel(), &blocks[12..]).unwrap();
            assert_eq!(unreadable(&ledger, &blocks), 0);
        }
    }
}
