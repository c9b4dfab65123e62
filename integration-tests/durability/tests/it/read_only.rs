//! File systems that the kernel turns read-only: one on which a ledger is about to be opened, and an ext4 that gives up under a running one.

use std::path::Path;
use std::process::{Command, Output};
use std::time::Duration;

use grapevine_durability::writer::Orders;
use grapevine_durability::{Expected, Line, WriterProcess};
use grapevine_peer::ledger::{Ledger, LedgerError};

use crate::writer_command;

const SILENCE: Duration = Duration::from_secs(60);
const INSIDE: &str = "GRAPEVINE_TEST_READ_ONLY";

fn writer(ledger: &Path) -> WriterProcess {
    let mut command = writer_command();
    Orders { ledger: ledger.to_owned(), failpoint: None, free_bytes_min: 0 }.give(&mut command);
    command.env_remove(INSIDE);
    WriterProcess::start(command).unwrap()
}

/// Listens until `is_it` says so.
fn await_line(writer: &mut WriterProcess, expected: &mut Expected, mut is_it: impl FnMut(&Line) -> bool) {
    loop {
        let line = writer.next(SILENCE).unwrap().expect("the writer ended");
        expected.hear(&line).unwrap();
        if is_it(&line) {
            return;
        }
        assert!(!matches!(line, Line::Ended(_)), "{line:?}");
    }
}

fn await_commits(writer: &mut WriterProcess, expected: &mut Expected, commits: usize) {
    let mut left = commits;
    await_line(writer, expected, |line| {
        left -= usize::from(matches!(line, Line::Committed { .. }));
        left == 0
    });
}

fn await_state(writer: &mut WriterProcess, expected: &mut Expected, wanted: &str) {
    await_line(writer, expected, |line| matches!(line, Line::State(state) if state.starts_with(wanted)));
}

fn kill(writer: WriterProcess, expected: &mut Expected) {
    for line in writer.kill().unwrap() {
        expected.hear(&line).unwrap();
    }
}

fn run(program: &str, arguments: &[&str]) -> Output {
    Command::new(program).args(arguments).output().unwrap()
}

#[track_caller]
fn succeed(program: &str, arguments: &[&str]) {
    let output = run(program, arguments);
    assert!(output.status.success(), "{program} {arguments:?}: {}", String::from_utf8_lossy(&output.stderr));
}

/// Runs a test of this file in a mount namespace of its own, with what it needs of them.
fn in_namespace(test: &str, flags: &[&str]) {
    let directory = tempfile::tempdir().unwrap();
    let status = Command::new("unshare")
        .args(flags)
        .arg(std::env::current_exe().unwrap())
        .args([test, "--exact", "--nocapture", "--test-threads=1"])
        .env(INSIDE, directory.path())
        .status()
        .unwrap();
    assert!(status.success(), "{status}");
}

/// Not a test of its own.
#[test]
fn inside_remounted() {
    let Some(disk) =
        std::env::var_os(INSIDE).filter(|_| std::env::args().any(|arg| arg.ends_with("remounted")))
    else {
        return;
    };
    let (disk, mut expected) = (Path::new(&disk), Expected::default());
    let (path, ledger) = (disk.to_str().unwrap(), disk.join("ledger"));
    succeed("mount", &["-t", "tmpfs", "-o", "size=192m", "tmpfs", path]);
    let mut first = writer(&ledger);
    await_commits(&mut first, &mut expected, 20);
    kill(first, &mut expected);
    succeed("mount", &["-o", "remount,ro", path]);
    let refused = Ledger::open(&ledger).unwrap_err();
    assert!(matches!(refused, LedgerError::ReadOnlyFileSystem { .. }), "{refused}");
    assert!(refused.to_string().contains("read-only"), "{refused}");
    // It can be read as it is.
    assert_eq!(expected.lost(&Ledger::open_read_only(&ledger).unwrap()).unwrap(), 0);
    succeed("mount", &["-o", "remount,rw", path]);
    let mut second = writer(&ledger);
    await_commits(&mut second, &mut expected, 20);
    kill(second, &mut expected);
    assert_eq!(expected.lost(&Ledger::open(&ledger).unwrap()).unwrap(), 0);
    succeed("umount", &[path]);
}

#[test]
fn a_ledger_on_a_read_only_mount_is_refused_by_name_and_unharmed() {
    in_namespace("read_only::inside_remounted", &["--user", "--map-root-user", "--mount"]);
}

/// Not a test of its own.
#[test]
fn inside_given_up() {
    let Some(disk) =
        std::env::var_os(INSIDE).filter(|_| std::env::args().any(|arg| arg.ends_with("given_up")))
    else {
        return;
    };
    let (disk, mut expected) = (Path::new(&disk), Expected::default());
    let (image, mount) = (disk.join("image"), disk.join("mount"));
    let (image, path) = (image.to_str().unwrap(), mount.to_str().unwrap());
    let ledger = mount.join("ledger");
    std::fs::create_dir(&mount).unwrap();
    std::fs::File::create(image).unwrap().set_len(256 << 20).unwrap();
    succeed("mkfs.ext4", &["-q", image]);
    succeed("mount", &["-o", "loop,errors=remount-ro", image, path]);
    let mut writer = writer(&ledger);
    await_commits(&mut writer, &mut expected, 50);
    // An error in the file system, as the kernel would have found it: from now on nothing can be written.
    let device = run("findmnt", &["-n", "-o", "SOURCE", path]);
    let device = String::from_utf8(device.stdout).unwrap();
    let device = device.trim().strip_prefix("/dev/").unwrap().to_owned();
    std::fs::write(format!("/sys/fs/ext4/{device}/trigger_fs_error"), "a test").unwrap();
    await_state(&mut writer, &mut expected, "Failing");
    // What an administrator does: what can still be read is kept open for other peers, so the process stops first.
    kill(writer, &mut expected);
    succeed("umount", &[path]);
    // Exit code 1: errors were corrected.
    let checked = run("fsck.ext4", &["-p", "-f", image]);
    assert!(checked.status.code().is_some_and(|code| code <= 1), "{checked:?}");
    succeed("mount", &["-o", "loop", image, path]);
    assert_eq!(expected.lost(&Ledger::open(&ledger).unwrap()).unwrap(), 0);
    let mut mended = self::writer(&ledger);
    await_commits(&mut mended, &mut expected, 50);
    kill(mended, &mut expected);
    assert_eq!(expected.lost(&Ledger::open(&ledger).unwrap()).unwrap(), 0);
    succeed("umount", &[path]);
}

#[test]
fn a_file_system_that_gives_up_costs_nothing_once_it_is_mended() {
    let may_mount = rustix::process::geteuid().is_root() && Path::new("/dev/loop-control").exists();
    if !may_mount || run("unshare", &["--mount", "true"]).status.code() != Some(0) {
        eprintln!(
            "not tried: it takes root and loop devices; `read-only` in faults.rs is the same by other means"
        );
        return;
    }
    in_namespace("read_only::inside_given_up", &["--mount"]);
}
