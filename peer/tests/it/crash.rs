//! A block reported as committed survives `kill -9` at any moment.
//!
//! The test starts itself again as a child that appends to two channels without end and prints each report of the ledger
//! thread. The parent kills it after some number of lines, reads what is left in the pipe, and opens the ledger.

use std::collections::BTreeMap;
use std::io::{BufRead, BufReader, Write};
use std::path::Path;
use std::process::{Command, Stdio};

use bytes::Bytes;
use grapevine_channels::ChannelId;
use grapevine_channels::block::{AuthenticBlock, Block, BlockHeader};
use grapevine_crypto::{Digest, sha256_of};
use grapevine_peer::ledger::{CommitRefused, Ledger, LedgerLimits, LedgerReport, LedgerThread};

const LEDGER_VARIABLE: &str = "GRAPEVINE_TEST_CRASH_LEDGER";
const CHANNELS: [&str; 2] = ["audit", "trade"];
/// Lines after which the child is killed, one round each on the same ledger: during creation, early, and after flushes.
const KILLED_AFTER_LINES: [usize; 10] = [0, 1, 3, 150, 7, 400, 40, 2, 300, 90];

/// Block `number` of `channel`, as every process computes it.
fn block(channel: &str, number: u64, previous: Option<Digest>) -> AuthenticBlock {
    let size = if number % 17 == 3 { 400_000 } else { 200 + (number as usize * 7919) % 20_000 };
    let body: Vec<u8> = channel.bytes().cycle().take(size).chain(number.to_be_bytes()).collect();
    let data_hash = sha256_of([body.as_slice()]).0.to_vec();
    let previous_hash = previous.map(|hash| hash.0.to_vec()).unwrap_or_default();
    let header = BlockHeader { number, previous_hash, data_hash };
    let block = Block::from_parts(header, vec![Bytes::from(body)], Bytes::new());
    AuthenticBlock::stored(block.encode()).unwrap()
}

/// Not a test of its own: what the child process runs.
#[test]
fn child() {
    let Some(path) = std::env::var_os(LEDGER_VARIABLE) else { return };
    let ledger = Ledger::open(path).unwrap();
    let mut next: BTreeMap<&str, (u64, Digest)> = BTreeMap::new();
    for name in CHANNELS {
        let channel: ChannelId = name.parse().unwrap();
        ledger.create_channel(&channel, &block(name, 0, None)).unwrap();
        let (number, tip) = ledger.tip(&channel).unwrap();
        next.insert(name, (number + 1, tip));
    }
    let (thread, mut reports) = LedgerThread::spawn(ledger, LedgerLimits::default()).unwrap();
    let printer = std::thread::spawn(move || {
        while let Some(report) = reports.blocking_recv() {
            let LedgerReport::Committed { channel, height, tip } = report else { panic!("{report:?}") };
            // One write, so that a line is there or is not.
            let line = format!("\ncommitted {channel} {height} {tip}\n");
            if std::io::stdout().write_all(line.as_bytes()).is_err() {
                return;
            }
        }
    });
    while !printer.is_finished() {
        for (name, (number, tip)) in &mut next {
            let block = block(name, *number, Some(*tip));
            (*number, *tip) = (*number + 1, block.hash());
            while thread.try_commit(&name.parse().unwrap(), vec![block.clone()])
                == Err(CommitRefused::QueueFull)
            {
                std::thread::sleep(std::time::Duration::from_millis(1));
            }
        }
    }
}

/// Runs the child until it has printed `lines` reports, kills it, and returns the last report of each channel.
fn killed_after(lines: usize, path: &Path) -> BTreeMap<String, (u64, String)> {
    let mut child = Command::new(std::env::current_exe().unwrap())
        .args(["crash::child", "--exact", "--nocapture", "--test-threads=1"])
        .env(LEDGER_VARIABLE, path)
        .stdout(Stdio::piped())
        .spawn()
        .unwrap();
    let mut output = BufReader::new(child.stdout.take().unwrap());
    let mut reported = BTreeMap::new();
    let mut seen = 0;
    let mut killed = false;
    let mut line = String::new();
    loop {
        if seen >= lines && !killed {
            // SIGKILL. What is in the pipe by now was reported and is read below.
            child.kill().unwrap();
            killed = true;
        }
        line.clear();
        if output.read_line(&mut line).unwrap() == 0 {
            break;
        }
        let words: Vec<&str> = line.split_whitespace().collect();
        if let (["committed", channel, height, tip], true) = (words.as_slice(), line.ends_with('\n')) {
            reported.insert((*channel).to_owned(), (height.parse().unwrap(), (*tip).to_owned()));
            seen += 1;
        }
    }
    child.wait().unwrap();
    assert!(killed, "the child ended by itself after {seen} reports");
    reported
}

#[test]
fn nothing_reported_as_committed_is_lost_by_kill_9() {
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("ledger");
    for lines in KILLED_AFTER_LINES {
        let reported = killed_after(lines, &path);
        let ledger = Ledger::open(&path).unwrap();
        for (name, (height, tip)) in reported {
            let channel = name.parse().unwrap();
            assert!(
                ledger.height(&channel) >= height,
                "{name}: {} of {height} blocks",
                ledger.height(&channel)
            );
            assert_eq!(ledger.header_hash(&channel, height - 1).unwrap().unwrap().to_string(), tip);
        }
    }
    let ledger = Ledger::open_read_only(&path).unwrap();
    let lines: usize = KILLED_AFTER_LINES.iter().sum();
    assert!(CHANNELS.iter().map(|name| ledger.height(&name.parse().unwrap())).sum::<u64>() > lines as u64);
    for name in CHANNELS {
        let channel = name.parse().unwrap();
        let mut previous = None;
        for entry in ledger.iterate(&channel, 0..u64::MAX) {
            let (number, encoded) = entry.unwrap();
            let expected = block(name, number, previous);
            assert_eq!(&encoded, expected.encoded(), "{name} {number}");
            previous = Some(expected.hash());
        }
        assert_eq!(ledger.tip(&channel).unwrap().1, previous.unwrap());
    }
}
