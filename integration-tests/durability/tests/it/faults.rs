//! Disks that fail for a while: nothing that was reported is lost, no wrong block is read, and the ledger goes on by itself.

use std::time::Duration;

use grapevine_disk_faults::{DiskFaults, Fault};
use grapevine_durability::writer::Orders;
use grapevine_durability::{Expected, Line, WriterProcess};
use grapevine_peer::ledger::Ledger;

use crate::{rounds, writer_command};

const SILENCE: Duration = Duration::from_secs(60);

/// Listens until so many more commits have been reported.
fn await_commits(writer: &mut WriterProcess, expected: &mut Expected, commits: usize) {
    let mut seen = 0;
    while seen < commits {
        let line = writer.next(SILENCE).unwrap().expect("the writer ended");
        assert!(!matches!(line, Line::Ended(_)), "{line:?}");
        expected.hear(&line).unwrap();
        seen += usize::from(matches!(line, Line::Committed { .. }));
    }
}

/// Listens until blocks are not taken in because writing fails; returns why.
fn await_failure(writer: &mut WriterProcess, expected: &mut Expected) -> String {
    loop {
        let line = writer.next(SILENCE).unwrap().expect("the writer ended");
        expected.hear(&line).unwrap();
        match line {
            Line::State(state) if state.starts_with("Failing") => return state,
            Line::Ended(why) => panic!("{why}"),
            _ => {}
        }
    }
}

#[test]
fn the_ledger_goes_on_when_the_disk_does() {
    let directory = tempfile::tempdir().unwrap();
    let directory = std::fs::canonicalize(directory.path()).unwrap();
    let root = directory.join("ledger");
    let disk = DiskFaults::new(&root, &directory.join("disk")).unwrap();
    let mut expected = Expected::default();
    for _ in 0..rounds(1, 10) {
        let mut command = writer_command();
        Orders { ledger: root.clone(), failpoint: None, free_bytes_min: 0 }.give(&mut command);
        disk.attach(&mut command, true).unwrap();
        let mut writer = WriterProcess::start(command).unwrap();
        await_commits(&mut writer, &mut expected, 10);
        for (fault, words) in [
            (Fault::SyncError, "Input/output error"),
            (Fault::DiskFull, "is full"),
            (Fault::WriteError, "Input/output error"),
            (Fault::ReadOnly, "read-only"),
        ] {
            disk.set(fault).unwrap();
            let why = await_failure(&mut writer, &mut expected);
            assert!(why.contains(words), "{fault:?}: {why}");
            disk.set(Fault::None).unwrap();
            await_commits(&mut writer, &mut expected, 10);
        }
        // Reads fail, and what is read is right or nothing.
        disk.set(Fault::ReadError).unwrap();
        await_commits(&mut writer, &mut expected, 100);
        disk.set(Fault::None).unwrap();
        for line in writer.kill().unwrap() {
            expected.hear(&line).unwrap();
        }
        disk.lose_power().unwrap();
        assert_eq!(expected.lost(&Ledger::open(&root).unwrap()).unwrap(), 0);
    }
}

#[test]
fn a_power_failure_while_the_disk_fails_loses_nothing_that_was_reported() {
    for fault in Fault::ALL {
        let directory = tempfile::tempdir().unwrap();
        let directory = std::fs::canonicalize(directory.path()).unwrap();
        let root = directory.join("ledger");
        let disk = DiskFaults::new(&root, &directory.join("disk")).unwrap();
        let mut expected = Expected::default();
        let mut command = writer_command();
        Orders { ledger: root.clone(), failpoint: None, free_bytes_min: 0 }.give(&mut command);
        disk.attach(&mut command, true).unwrap();
        let mut writer = WriterProcess::start(command).unwrap();
        await_commits(&mut writer, &mut expected, 30);
        disk.set(fault).unwrap();
        if fault == Fault::ReadError {
            await_commits(&mut writer, &mut expected, 20);
        } else {
            await_failure(&mut writer, &mut expected);
        }
        for line in writer.kill().unwrap() {
            expected.hear(&line).unwrap();
        }
        disk.lose_power().unwrap();
        assert_eq!(expected.lost(&Ledger::open(&root).unwrap()).unwrap(), 0, "{fault:?}");
    }
}

/// What the others rely on: a block that is lost is missed.
#[test]
fn what_a_lying_disk_loses_is_noticed() {
    let directory = tempfile::tempdir().unwrap();
    let directory = std::fs::canonicalize(directory.path()).unwrap();
    let root = directory.join("ledger");
    let disk = DiskFaults::new(&root, &directory.join("disk")).unwrap();
    let mut expected = Expected::default();
    let mut command = writer_command();
    Orders { ledger: root.clone(), failpoint: None, free_bytes_min: 0 }.give(&mut command);
    disk.attach(&mut command, true).unwrap();
    let mut writer = WriterProcess::start(command).unwrap();
    await_commits(&mut writer, &mut expected, 10);
    disk.set(Fault::SyncLies).unwrap();
    await_commits(&mut writer, &mut expected, 50);
    for line in writer.kill().unwrap() {
        expected.hear(&line).unwrap();
    }
    disk.lose_power().unwrap();
    // The counter is lost as well, which is an error of its own.
    let ledger = Ledger::open(&root).unwrap();
    assert!(!matches!(expected.lost(&ledger), Ok(0)));
}
