//! What a peer has said to be committed, over all its lives, by its admin socket and its Deliver server.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use crate::follower::Follower;

/// Pause before a client tries again to reach a peer that does not answer.
const RECONNECT: Duration = Duration::from_millis(10);

/// Header hashes of reported blocks, hex, by number. Whoever reports a block reports those below it.
#[derive(Debug, Clone, Default)]
pub(super) struct Reports(Arc<Mutex<BTreeMap<u64, String>>>);

impl Reports {
    pub(super) fn note(&self, number: u64, hash: String) {
        self.lock().insert(number, hash);
    }

    /// One past the highest reported block.
    pub(super) fn height(&self) -> u64 {
        self.lock().last_key_value().map_or(0, |(last, _)| last.saturating_add(1))
    }

    /// Takes what was noted since the last time, leaving the highest.
    pub(super) fn take(&self) -> BTreeMap<u64, String> {
        let mut reports = self.lock();
        let taken = reports.clone();
        let last = reports.last_key_value().map(|(number, hash)| (*number, hash.clone()));
        *reports = last.into_iter().collect();
        taken
    }

    /// Follows a peer's Deliver server from the highest reported block on until it dies; to be aborted then.
    pub(super) async fn follow(self, follower: Follower) {
        loop {
            let from = self.height().saturating_sub(1);
            let noted = follower.follow(from, |block| {
                self.note(block.number(), block.header_hash().to_string());
                true
            });
            // It has not started to listen, or has been killed.
            let _unreachable = noted.await;
            tokio::time::sleep(RECONNECT).await;
        }
    }

    fn lock(&self) -> MutexGuard<'_, BTreeMap<u64, String>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}
