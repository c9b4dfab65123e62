//! Named points of the commit path at which a test may stop the process.
//!
//! A program that tests the ledger installs a hook ([`install`]); `grapevine` never does, and then a point costs one load
//! for each group of blocks. Points inside RocksDB, between its system calls, are reached from outside: a test puts itself
//! between the process and the operating system.

use std::sync::OnceLock;

/// A point of the commit path.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Failpoint {
    /// The ledger thread has taken commits out of its queue.
    Taken,
    /// The batch is built, nothing is written.
    Staged,
    /// The batch is written and synced, nobody has been told.
    Synced,
    /// Readers see the new heads, no report has left.
    Visible,
    /// The reports have left.
    Reported,
}

impl Failpoint {
    /// All points, in the order of a commit.
    pub const ALL: [Self; 5] = [Self::Taken, Self::Staged, Self::Synced, Self::Visible, Self::Reported];
}

static HOOK: OnceLock<fn(Failpoint)> = OnceLock::new();

/// Calls `hook` at every point from now on. The first hook stays; says whether this is it.
pub fn install(hook: fn(Failpoint)) -> bool {
    HOOK.set(hook).is_ok()
}

pub(super) fn reach(point: Failpoint) {
    if let Some(hook) = HOOK.get() {
        hook(point);
    }
}
