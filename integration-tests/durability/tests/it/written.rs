//! How often a byte of a block is written. Measured in a process of its own, since the counters are the process's.

use std::process::Command;

const HERE: &str = "GRAPEVINE_TEST_WRITTEN";
/// Twice for log and file, and a tenth for the index, the log's framing and half-filled pages.
const RATIO_MAX: f64 = 2.2;

/// Not a test of its own.
#[test]
fn inside() {
    let Some(directory) = std::env::var_os(HERE) else { return };
    let measured = grapevine_durability::measure(directory.as_ref(), 160_000, 100_000_000, 1).unwrap();
    let ratio = |bytes: u64| bytes as f64 / measured.committed_bytes as f64;
    let (handed, device) = (ratio(measured.written_bytes), ratio(measured.device_bytes));
    println!("{handed:.3} bytes handed to the system and {device:.3} to devices for each committed");
    assert!(handed <= RATIO_MAX && device <= RATIO_MAX, "{measured:?}");
    assert!(handed > 1.0, "the log alone is one: {measured:?}");
}

#[test]
fn a_byte_of_a_block_is_written_little_more_than_twice() {
    let directory = tempfile::tempdir().unwrap();
    let output = Command::new(std::env::current_exe().unwrap())
        .args(["written::inside", "--exact", "--nocapture", "--test-threads=1"])
        .env(HERE, directory.path().join("ledger"))
        .output()
        .unwrap();
    let text = String::from_utf8_lossy(&output.stdout);
    assert!(output.status.success(), "{text}{}", String::from_utf8_lossy(&output.stderr));
    assert!(text.contains("for each committed"), "{text}");
}
