//! Ledgers that were damaged, copied or set back.

#![allow(clippy::expect_used)]

use std::fs;
use std::path::{Path, PathBuf};
use std::time::Duration;

use grapevine_network::{Network, NetworkError, Payload};

const SOON: Duration = Duration::from_secs(60);

fn lines(from: u32, count: u32) -> Payload {
    Payload::lines((from..from + count).map(|number| format!("transaction number {number} {number:0>2000}")))
}

fn ledger(network: &Network, peer: &str) -> Result<PathBuf, NetworkError> {
    Ok(network.member(peer)?.data.join("ledger"))
}

/// Flips bits in the largest file of blocks from `start` on, but not in its second half, where RocksDB finds its way.
fn spoil_blocks(directory: &Path, start: usize) {
    let entries = fs::read_dir(directory).expect("the ledger is there");
    let mut files: Vec<PathBuf> = entries.map(|entry| entry.expect("readable").path()).collect();
    files.retain(|file| file.extension().is_some_and(|end| end == "sst"));
    files.sort_by_key(|file| fs::metadata(file).map_or(0, |metadata| metadata.len()));
    let largest = files.last().expect("blocks have been written to files");
    let mut bytes = fs::read(largest).expect("readable");
    assert!(bytes.len() > 100_000, "{} bytes", bytes.len());
    let end = bytes.len() / 2;
    for at in (start..end).step_by(20_000) {
        bytes[at] ^= 0x10;
    }
    fs::write(largest, bytes).expect("writable");
}

fn text(bytes: &[u8]) -> String {
    String::from_utf8_lossy(bytes).into_owned()
}

#[test]
fn damaged_blocks_are_found_and_fetched_again() -> Result<(), NetworkError> {
    let network = Network::builder().start()?;
    network.submit("trade", lines(0, 400))?;
    network.wait_for_sync("trade", SOON)?;
    let peer = "peer0.org1";
    // A start moves what is in the log to files.
    network.stop(peer)?;
    network.start(peer)?;
    network.wait_for_sync("trade", SOON)?;
    let sound = network.tool_success(peer, &["channel", "verify", "-c", "trade"])?;
    assert!(text(&sound.stdout).contains("is sound"), "{}", text(&sound.stdout));
    network.stop(peer)?;
    spoil_blocks(&ledger(&network, peer)?, 1_000);
    let damaged = network.tool(peer, &["channel", "verify", "-c", "trade", "--json"])?;
    assert!(!damaged.status.success());
    assert!(text(&damaged.stderr).contains("repair -c trade"), "{}", text(&damaged.stderr));
    let report: serde_json::Value = serde_json::from_slice(&damaged.stdout).expect("JSON");
    assert_eq!(report["sound"], false);
    assert!(!report["bad_ranges"].as_array().expect("ranges").is_empty());

    // Without a running peer there is nobody to fetch them.
    let alone = network.tool(peer, &["channel", "repair", "-c", "trade"])?;
    assert!(
        !alone.status.success() && text(&alone.stderr).contains("grapevine run"),
        "{}",
        text(&alone.stderr)
    );

    network.start(peer)?;
    network.wait_for_sync("trade", SOON)?;
    let repaired = network.tool_success(peer, &["channel", "repair", "-c", "trade"])?;
    assert!(text(&repaired.stdout).contains("is sound"), "{}", text(&repaired.stdout));
    network.assert_ledgers_identical("trade")?;
    let status = network.tool_success(peer, &["status"])?;
    assert!(!text(&status.stdout).contains("WARNING"), "{}", text(&status.stdout));
    network.stop_all()
}

#[test]
fn a_damaged_block_that_is_asked_for_is_not_served_and_comes_back_by_itself() -> Result<(), NetworkError> {
    let network = Network::builder().hold_back("peer1.org2").start()?;
    network.submit("trade", lines(0, 400))?;
    network.wait_for_sync("trade", SOON)?;
    // Not the same blocks in both: the first has lost some of a channel that the second alone has as well.
    let spoiled = [("peer0.org1", 1_000), ("peer1.org1", 61_000)];
    for (peer, start) in spoiled {
        network.stop(peer)?;
        network.start(peer)?;
        network.wait_for_sync("trade", SOON)?;
        network.stop(peer)?;
        spoil_blocks(&ledger(&network, peer)?, start);
        network.start(peer)?;
    }
    network.wait_for_sync("trade", SOON)?;
    // Only the spoiled ones are left to ask.
    network.stop("orderer")?;
    let height = network.status("peer0.org2")?.height("trade");
    network.start("peer1.org2")?;
    network.wait_for_height("trade", &["peer1.org2"], height, SOON)?;
    assert_eq!(network.chain("peer1.org2", "trade")?, network.chain("peer0.org2", "trade")?);
    for (peer, _) in spoiled {
        // Whatever was not asked for is still damaged; this looks at all.
        for channel in ["trade", "audit"] {
            network.tool_success(peer, &["channel", "repair", "-c", channel])?;
        }
    }
    network.assert_ledgers_identical("trade")?;
    network.assert_ledgers_identical("audit")?;
    network.stop_all()
}

#[test]
fn a_copied_directory_and_one_set_back_are_noticed() -> Result<(), NetworkError> {
    let network = Network::builder().start()?;
    network.submit("trade", lines(0, 20))?;
    network.wait_for_sync("trade", SOON)?;
    let (one, other) = ("peer0.org1", "peer1.org1");
    let backup = network.directory().join("backup");
    network.stop(one)?;
    copy(&ledger(&network, one)?, &backup);

    // Another peer's ledger.
    network.stop(other)?;
    replace(&ledger(&network, other)?, &backup);
    let (status, log) = network.start_expecting_end(other, SOON)?;
    assert!(!status.success() && log.contains("belongs to peer0.org1"), "{log}");
    assert!(log.contains("--take-over-ledger"), "{log}");

    // An old backup of the own one: three starts and some blocks are missing.
    for round in 0..3 {
        network.start(one)?;
        network.submit("trade", lines(20 + round * 10, 10))?;
        network.wait_for_height("trade", &[one], network.status("peer0.org2")?.height("trade"), SOON)?;
        network.stop(one)?;
    }
    replace(&ledger(&network, one)?, &backup);
    network.start(one)?;
    network.wait_until("the set back ledger to be noticed", SOON, || {
        let status = text(&network.tool_success(one, &["status"])?.stdout);
        Ok(if status.contains("backup was restored") { Ok(()) } else { Err(status) })
    })?;
    network.wait_for_height("trade", &[one], network.status("peer0.org2")?.height("trade"), SOON)?;
    Ok(())
}

fn copy(from: &Path, to: &Path) {
    fs::create_dir_all(to).expect("made");
    for entry in fs::read_dir(from).expect("readable") {
        let entry = entry.expect("readable");
        fs::copy(entry.path(), to.join(entry.file_name())).expect("copied");
    }
}

fn replace(directory: &Path, by: &Path) {
    fs::remove_dir_all(directory).expect("removed");
    copy(by, directory);
}
