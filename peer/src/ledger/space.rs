//! How much room the disk has, and when that is too little to take blocks in.
//!
//! A full disk in the middle of a write is the worst moment to find out: the ledger stops, readers too while it is opened
//! again. So intake pauses while less than a watermark is free, and goes on by itself when there is an eighth more than that.

use std::path::Path;

/// The bytes that this process may still write to the file system of `path`; `None` if that is not known.
#[must_use]
pub fn free_bytes(path: &Path) -> Option<u64> {
    let found = rustix::fs::statvfs(path).ok()?;
    Some(found.f_bavail.saturating_mul(found.f_frsize))
}

/// What the watermark says about the bytes free now.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Room {
    Enough,
    Low {
        free: u64,
        /// Bytes that must be free before intake goes on.
        needed: u64,
    },
}

/// Judges `free` bytes. `paused` says whether intake is paused already; `wanted` is what the next write takes.
pub(super) fn judge(free: Option<u64>, watermark: u64, paused: bool, wanted: u64) -> Room {
    // Where the file system does not say, a write that fails has to.
    let (Some(free), true) = (free, watermark > 0) else { return Room::Enough };
    let margin = if paused { watermark / 8 } else { 0 };
    let needed = watermark.saturating_add(margin).saturating_add(wanted);
    if free >= needed { Room::Enough } else { Room::Low { free, needed } }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn intake_pauses_below_the_watermark_and_goes_on_an_eighth_above() {
        assert_eq!(judge(Some(1_000), 800, false, 200), Room::Enough);
        assert_eq!(judge(Some(999), 800, false, 200), Room::Low { free: 999, needed: 1_000 });
        assert_eq!(judge(Some(1_099), 800, true, 200), Room::Low { free: 1_099, needed: 1_100 });
        assert_eq!(judge(Some(1_100), 800, true, 200), Room::Enough);
        assert_eq!(judge(Some(0), 0, true, 200), Room::Enough, "0 turns the watermark off");
        assert_eq!(judge(None, 800, true, 200), Room::Enough);
        assert_eq!(judge(Some(5), u64::MAX, true, u64::MAX), Room::Low { free: 5, needed: u64::MAX });
    }

    #[test]
    fn the_file_system_says_how_much_is_free() {
        let directory = tempfile::tempdir().unwrap();
        assert!(free_bytes(directory.path()).unwrap() > 0);
        assert_eq!(free_bytes(&directory.path().join("nowhere")), None);
    }
}
