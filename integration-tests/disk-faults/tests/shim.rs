//! The shim against what it promises, with a child that is this test again.
#![allow(clippy::unwrap_used, clippy::expect_used)]

use std::fs::{self, File};
use std::io::Write;
use std::os::unix::process::ExitStatusExt;
use std::path::Path;
use std::process::{Command, ExitStatus};

use grapevine_disk_faults::{DiskFaults, Fault, When};

const VARIABLE: &str = "GRAPEVINE_TEST_SHIM";

/// Not a test of its own: what the child process runs.
#[test]
fn child() {
    let Some(scenario) = std::env::var_os(VARIABLE) else { return };
    let root = std::env::current_dir().unwrap().join("disk");
    let sync_directory = || File::open(&root).unwrap().sync_all().unwrap();
    match scenario.to_str().unwrap() {
        "power" => {
            let mut kept = File::create(root.join("kept")).unwrap();
            kept.write_all(b"one").unwrap();
            kept.sync_data().unwrap();
            sync_directory();
            kept.write_all(b"two").unwrap();
            File::create(root.join("unnamed")).unwrap().sync_all().unwrap();
            let mut old = File::options().append(true).open(root.join("old")).unwrap();
            old.write_all(b", appended").unwrap();
            fs::rename(root.join("renamed"), root.join("other")).unwrap();
            fs::remove_file(root.join("removed")).unwrap();
            let new = root.join("new");
            fs::write(&new, b"content that is not synced").unwrap();
            fs::remove_file(root.join("removed durably")).unwrap();
            fs::rename(root.join("first"), root.join("second")).unwrap();
        }
        "durable" => {
            fs::remove_file(root.join("removed durably")).unwrap();
            fs::rename(root.join("first"), root.join("second")).unwrap();
            sync_directory();
        }
        "write" => {
            let mut file = File::create(root.join("file")).unwrap();
            for _ in 0..3 {
                file.write_all(b"12345678").unwrap();
            }
        }
        "fault" => {
            let tried = File::create(root.join("file")).and_then(|mut file| {
                file.write_all(b"x")?;
                file.sync_all()
            });
            let read = fs::read(root.join("old")).map(drop);
            let code = tried.err().and_then(|error| error.raw_os_error()).unwrap_or(0);
            std::process::exit(if read.is_err() { code + 100 } else { code });
        }
        other => panic!("{other}"),
    }
}

fn run(
    directory: &Path,
    faults: &DiskFaults,
    scenario: &str,
    prepare: impl FnOnce(&DiskFaults),
) -> ExitStatus {
    let mut command = Command::new(std::env::current_exe().unwrap());
    command.args(["child", "--exact", "--nocapture", "--test-threads=1"]);
    command.current_dir(directory).env(VARIABLE, scenario);
    faults.attach(&mut command, true).unwrap();
    prepare(faults);
    command.output().unwrap().status
}

fn disk(directory: &Path) -> DiskFaults {
    let directory = fs::canonicalize(directory).unwrap();
    let faults = DiskFaults::new(&directory.join("disk"), &directory.join("scratch")).unwrap();
    for name in ["old", "renamed", "removed", "removed durably", "first", "second"] {
        fs::write(directory.join("disk").join(name), name).unwrap();
    }
    faults
}

#[test]
fn what_was_not_synced_is_lost_with_the_power() {
    let directory = tempfile::tempdir().unwrap();
    let faults = disk(directory.path());
    let root = directory.path().join("disk");
    let read = |name: &str| fs::read_to_string(root.join(name)).ok();
    assert!(run(directory.path(), &faults, "durable", |_| ()).success());
    faults.lose_power().unwrap();
    assert_eq!(
        (read("removed durably"), read("first"), read("second").as_deref()),
        (None, None, Some("first"))
    );

    for name in ["removed durably", "first", "second"] {
        fs::write(root.join(name), name).unwrap();
    }
    assert!(run(directory.path(), &faults, "power", |_| ()).success());
    assert_eq!(read("kept").as_deref(), Some("onetwo"));
    assert_eq!(read("other").as_deref(), Some("renamed"));
    faults.lose_power().unwrap();
    assert_eq!(read("kept").as_deref(), Some("one"));
    for name in ["old", "renamed", "removed", "removed durably", "first", "second"] {
        assert_eq!(read(name).as_deref(), Some(name));
    }
    for name in ["unnamed", "other", "new"] {
        assert_eq!(read(name), None, "{name}");
    }
}

#[test]
fn a_child_is_killed_at_the_operation_named() {
    let directory = tempfile::tempdir().unwrap();
    let faults = disk(directory.path());
    for (operation, when, length) in
        [(1, When::Before, 0), (1, When::After, 8), (2, When::Halfway, 12), (3, When::Before, 16)]
    {
        let status =
            run(directory.path(), &faults, "write", |faults| faults.kill_at(operation, when).unwrap());
        assert_eq!(status.signal(), Some(9), "{operation} {when:?}");
        assert_eq!(fs::metadata(directory.path().join("disk/file")).unwrap().len(), length);
    }
    assert!(run(directory.path(), &faults, "write", |_| ()).success());
    assert_eq!(faults.operations().unwrap(), 3);
}

#[test]
fn faults_are_what_the_system_would_say() {
    let directory = tempfile::tempdir().unwrap();
    let faults = disk(directory.path());
    // EIO, ENOSPC and EROFS of Linux.
    for (fault, code) in [
        (Fault::None, 0),
        (Fault::WriteError, 5),
        (Fault::DiskFull, 28),
        (Fault::SyncError, 5),
        (Fault::ReadOnly, 30),
    ] {
        let status = run(directory.path(), &faults, "fault", |faults| faults.set(fault).unwrap());
        assert_eq!(status.code(), Some(code), "{fault:?}");
        assert_eq!(faults.failed().unwrap() > 0, fault != Fault::None);
    }
}
