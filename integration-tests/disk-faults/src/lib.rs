//! A disk that fails on command, for one directory of a child process.
//!
//! A shim takes the place of the C library's file functions in the child (`LD_PRELOAD`) and watches one directory, without
//! those below it. Two things can be had from it:
//!
//! - **Power failures.** `kill -9` leaves the page cache, so it shows nothing of what a power failure takes. Here everything
//!   that was not synced is lost: [`DiskFaults::lose_power`], after the child has been killed, puts the directory into the state
//!   that was synced last. A file's content is what it was at its last `fsync` or `fdatasync`; a file's name, its renaming and
//!   its removal last from the directory's next `fsync` on. That is the worst a POSIX file system may do with what was not
//!   synced, but for half-written pages. `sync_file_range` counts for nothing.
//! - **Faults**, from one moment to the next: [`Fault`]. And a kill at a chosen system call ([`DiskFaults::kill_at`]), for
//!   the points between two of them that no code of ours reaches.
//!
//! # Limits
//! Linux with glibc; the child must reach its files through the C library and by the absolute path given here. Memory maps that
//! are written to are not seen. 65,535 files in a child's life.

use std::ffi::OsString;
use std::fs::{self, File};
use std::io::{self, BufRead, BufReader};
use std::os::unix::fs::FileExt;
use std::path::{Path, PathBuf};
use std::process::Command;

/// The compiled shim.
const SHIM: &str = concat!(env!("OUT_DIR"), "/libdiskfaults.so");
const WORD: u64 = 8;

/// What the disk does wrong.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Fault {
    /// Nothing.
    None,
    /// Writes fail with `EIO`.
    WriteError,
    /// Writes fail with `ENOSPC`.
    DiskFull,
    /// Syncs fail with `EIO`; what they were to sync is not durable.
    SyncError,
    /// Whatever changes something fails with `EROFS`, as after a remount.
    ReadOnly,
    /// Reads fail with `EIO`.
    ReadError,
    /// Syncs say that they are done, and what they were to sync is not durable.
    SyncLies,
}

impl Fault {
    /// All that a process can notice.
    pub const ALL: [Self; 5] =
        [Self::WriteError, Self::DiskFull, Self::SyncError, Self::ReadOnly, Self::ReadError];

    fn number(self) -> u64 {
        match self {
            Self::None => 0,
            Self::WriteError => 1,
            Self::DiskFull => 2,
            Self::SyncError => 3,
            Self::ReadOnly => 4,
            Self::ReadError => 5,
            Self::SyncLies => 6,
        }
    }
}

/// On which side of a system call the child is killed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum When {
    /// Before it.
    Before,
    /// After it.
    After,
    /// A write in the middle, half of its bytes being written; other calls after.
    Halfway,
}

impl When {
    /// All sides.
    pub const ALL: [Self; 3] = [Self::Before, Self::After, Self::Halfway];
}

/// See the crate's documentation. Dropping it changes nothing.
#[derive(Debug)]
pub struct DiskFaults {
    root: PathBuf,
    shadow: PathBuf,
    control: File,
    control_path: PathBuf,
}

impl DiskFaults {
    /// For the files in `root`, an absolute path; the shim keeps its own in `scratch`, on the same file system, which is made.
    ///
    /// # Errors
    /// Those of the file system.
    pub fn new(root: &Path, scratch: &Path) -> io::Result<Self> {
        if !root.is_absolute() || !scratch.is_absolute() {
            return Err(io::Error::new(io::ErrorKind::InvalidInput, "the paths must be absolute"));
        }
        fs::create_dir_all(root)?;
        let shadow = scratch.join("shadow");
        fs::create_dir_all(&shadow)?;
        let control_path = scratch.join("control");
        let control =
            File::options().read(true).write(true).create(true).truncate(true).open(&control_path)?;
        control.set_len(5 * WORD)?;
        Ok(Self { root: root.to_owned(), shadow, control, control_path })
    }

    /// Has `command` run on this disk. With `power`, what is not synced is kept apart, to be lost.
    ///
    /// # Errors
    /// Those of the file system.
    pub fn attach(&self, command: &mut Command, power: bool) -> io::Result<()> {
        command.envs(self.environment(power)?);
        Ok(())
    }

    /// As [`Self::attach`], for whoever starts the child otherwise: the environment it needs. Call it anew for each start.
    ///
    /// # Errors
    /// Those of the file system.
    pub fn environment(&self, power: bool) -> io::Result<Vec<(&'static str, PathBuf)>> {
        fs::remove_dir_all(&self.shadow)?;
        fs::create_dir(&self.shadow)?;
        for word in [1, 3, 4] {
            self.write(word, 0)?;
        }
        let mut environment = vec![
            ("LD_PRELOAD", PathBuf::from(SHIM)),
            ("GRAPEVINE_DISK_ROOT", self.root.clone()),
            ("GRAPEVINE_DISK_CONTROL", self.control_path.clone()),
        ];
        if power {
            environment.push(("GRAPEVINE_DISK_SHADOW", self.shadow.clone()));
        }
        Ok(environment)
    }

    /// From now on the disk does this wrong, and nothing else.
    ///
    /// # Errors
    /// Those of the file system.
    pub fn set(&self, fault: Fault) -> io::Result<()> {
        self.write(0, fault.number())
    }

    /// Kills the child at its operation of this number, counted from 1 since its start; 0: never. Call after
    /// [`Self::attach`].
    ///
    /// # Errors
    /// Those of the file system.
    pub fn kill_at(&self, operation: u64, when: When) -> io::Result<()> {
        self.write(
            2,
            match when {
                When::Before => 0,
                When::After => 1,
                When::Halfway => 2,
            },
        )?;
        self.write(1, operation)
    }

    /// Writes, syncs, renames and removals of the child since its start.
    ///
    /// # Errors
    /// Those of the file system.
    pub fn operations(&self) -> io::Result<u64> {
        self.read(3)
    }

    /// Calls of the child that were made to fail since its start.
    ///
    /// # Errors
    /// Those of the file system.
    pub fn failed(&self) -> io::Result<u64> {
        self.read(4)
    }

    /// After the end of a child that was attached with `power`: the directory has what was synced, and nothing else.
    ///
    /// # Errors
    /// Those of the file system.
    pub fn lose_power(&self) -> io::Result<()> {
        let mut durable: Vec<(OsString, PathBuf)> = Vec::new();
        for line in BufReader::new(File::open(self.shadow.join("names"))?).lines() {
            let line = line?;
            let (number, name) = line.split_once(' ').ok_or_else(|| {
                io::Error::new(io::ErrorKind::InvalidData, "a line of names makes no sense")
            })?;
            let kept = self.shadow.join(number);
            // Without a shadow it was never touched.
            let content = if kept.exists() { kept } else { self.root.join(name) };
            durable.push((name.into(), content));
        }
        let after = self.shadow.join("after");
        fs::create_dir(&after)?;
        for (name, content) in durable {
            fs::rename(content, after.join(name))?;
        }
        fs::remove_dir_all(&self.root)?;
        fs::rename(after, &self.root)
    }

    fn write(&self, word: u64, value: u64) -> io::Result<()> {
        self.control.write_all_at(&value.to_ne_bytes(), word * WORD)
    }

    fn read(&self, word: u64) -> io::Result<u64> {
        let mut bytes = [0; 8];
        self.control.read_exact_at(&mut bytes, word * WORD)?;
        Ok(u64::from_ne_bytes(bytes))
    }
}
