//! The ledger on disks that fail and in processes that are killed. Short here; `make test-durability` takes its time.
#![allow(clippy::unwrap_used, clippy::expect_used)]

mod damage;
mod faults;
mod full_disk;
mod kills;
mod read_only;
mod written;

use std::process::Command;

use grapevine_durability::writer::{self, Orders};

/// Not a test of its own: the child process of the others.
#[test]
fn child() {
    if let Some(orders) = Orders::taken().unwrap() {
        writer::run(&orders).unwrap();
    }
}

/// A command that runs [`child`].
fn writer_command() -> Command {
    let mut command = Command::new(std::env::current_exe().unwrap());
    command.args(["child", "--exact", "--nocapture", "--test-threads=1"]);
    command
}

/// `short`, or `long` where time is taken.
fn rounds(short: u64, long: u64) -> u64 {
    if std::env::var_os("GRAPEVINE_EXHAUSTIVE").is_some() { long } else { short }
}
