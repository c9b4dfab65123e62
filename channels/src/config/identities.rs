//! A bounded cache of validated identities: validating a certificate chain costs more than verifying a signature, and
//! the same few orderers sign every block.

use std::collections::BTreeMap;
use std::sync::{Mutex, MutexGuard, PoisonError};

use grapevine_crypto::{Digest, Identity, sha256};

/// Most identities cached per config. A full cache is emptied: with honest members it never fills.
pub const IDENTITIES_CACHED_MAX: usize = 1024;

/// Valid identities by the SHA-256 of their serialized form. Failures are not cached: anybody can make them up.
#[derive(Debug, Default)]
pub(super) struct IdentityCache {
    identities: Mutex<BTreeMap<Digest, Identity>>,
}

impl IdentityCache {
    pub(super) fn find(&self, serialized: &[u8]) -> Option<Identity> {
        self.lock().get(&sha256(serialized)).cloned()
    }

    pub(super) fn insert(&self, serialized: &[u8], identity: &Identity) {
        let mut identities = self.lock();
        if identities.len() >= IDENTITIES_CACHED_MAX {
            identities.clear();
        }
        identities.insert(sha256(serialized), identity.clone());
    }

    fn lock(&self) -> MutexGuard<'_, BTreeMap<Digest, Identity>> {
        self.identities.lock().unwrap_or_else(PoisonError::into_inner)
    }
}
