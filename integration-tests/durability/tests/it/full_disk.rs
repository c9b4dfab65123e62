//! A small disk that somebody else fills and frees again: a tmpfs in a mount namespace of its own.

use std::fs::File;
use std::io::Write as _;
use std::path::Path;
use std::process::Command;
use std::time::Duration;

use grapevine_durability::writer::Orders;
use grapevine_durability::{Expected, Line, WriterProcess};
use grapevine_peer::ledger::Ledger;

use crate::writer_command;

const SILENCE: Duration = Duration::from_secs(60);
const INSIDE: &str = "GRAPEVINE_TEST_INSIDE";

/// Fills the disk of `directory` until so much is left.
fn fill(directory: &Path, left: u64) -> std::io::Result<()> {
    let mut file = File::create(directory.join("hog"))?;
    while grapevine_peer::ledger::free_bytes(directory).unwrap_or(0) > left {
        if let Err(error) = file.write_all(&[1; 64 << 10]) {
            return if error.kind() == std::io::ErrorKind::StorageFull { Ok(()) } else { Err(error) };
        }
    }
    Ok(())
}

fn await_state(writer: &mut WriterProcess, expected: &mut Expected, wanted: &str) {
    loop {
        let line = writer.next(SILENCE).unwrap().expect("the writer ended");
        expected.hear(&line).unwrap();
        match line {
            Line::State(state) if state.starts_with(wanted) => return,
            Line::Ended(why) => panic!("{why}"),
            _ => {}
        }
    }
}

fn await_commits(writer: &mut WriterProcess, expected: &mut Expected, commits: usize) {
    let mut seen = 0;
    while seen < commits {
        let line = writer.next(SILENCE).unwrap().expect("the writer ended");
        expected.hear(&line).unwrap();
        seen += usize::from(matches!(line, Line::Committed { .. }));
    }
}

/// Not a test of its own: runs where the disk is small.
#[test]
fn inside() {
    let Some(disk) = std::env::var_os(INSIDE) else { return };
    let disk = Path::new(&disk);
    for (watermark, left, state) in [(16 << 20, 4 << 20, "LowDisk"), (0, 0, "Failing")] {
        let ledger = disk.join(state);
        let mut expected = Expected::default();
        let mut command = writer_command();
        Orders { ledger: ledger.clone(), failpoint: None, free_bytes_min: watermark }.give(&mut command);
        command.env_remove(INSIDE);
        let mut writer = WriterProcess::start(command).unwrap();
        await_commits(&mut writer, &mut expected, 5);
        fill(disk, left).unwrap();
        await_state(&mut writer, &mut expected, state);
        std::fs::remove_file(disk.join("hog")).unwrap();
        await_state(&mut writer, &mut expected, "Writing");
        await_commits(&mut writer, &mut expected, 5);
        for line in writer.kill().unwrap() {
            expected.hear(&line).unwrap();
        }
        assert_eq!(expected.lost(&Ledger::open(&ledger).unwrap()).unwrap(), 0);
        std::fs::remove_dir_all(&ledger).unwrap();
    }
}

#[test]
fn a_full_disk_and_its_relief() {
    let directory = tempfile::tempdir().unwrap();
    let script = "mount -t tmpfs -o size=192m tmpfs \"$1\" && shift && exec \"$@\"";
    let status = Command::new("unshare")
        .args(["--user", "--map-root-user", "--mount", "sh", "-c", script, "sh"])
        .arg(directory.path())
        .arg(std::env::current_exe().unwrap())
        .args(["full_disk::inside", "--exact", "--nocapture", "--test-threads=1"])
        .env(INSIDE, directory.path())
        .status()
        .unwrap();
    assert!(status.success(), "{status}");
}
