//! A bounded memory of validated identities.
//!
//! Validating costs several signature checks, and every block and gossip message names an identity. Oldest out first: a
//! channel has far fewer active members than the bound, so anything cleverer would not pay.

use std::borrow::Borrow;
use std::collections::{HashSet, VecDeque};
use std::hash::{Hash, Hasher};

use crate::identity::Identity;

/// Counters of the cache of validated identities.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct CacheStatistics {
    /// Identities found.
    pub hits: u64,
    /// Identities not found.
    pub misses: u64,
    /// Identities dropped to make room.
    pub evictions: u64,
    /// Identities held now.
    pub length: usize,
}

/// An identity found by the bytes it travels as. They are compared as they are: a cryptographic digest of a certificate
/// would cost a tenth of a signature check, with each block.
#[derive(Debug)]
struct BySerialized(Identity);

impl Borrow<[u8]> for BySerialized {
    fn borrow(&self) -> &[u8] {
        self.0.serialized()
    }
}

impl Hash for BySerialized {
    fn hash<H: Hasher>(&self, state: &mut H) {
        self.0.serialized().hash(state);
    }
}

impl PartialEq for BySerialized {
    fn eq(&self, other: &Self) -> bool {
        self.0.serialized() == other.0.serialized()
    }
}

impl Eq for BySerialized {}

/// Identities by their serialised bytes.
#[derive(Debug)]
pub(super) struct IdentityCache {
    capacity: usize,
    identities: HashSet<BySerialized>,
    oldest_first: VecDeque<Identity>,
    statistics: CacheStatistics,
}

impl IdentityCache {
    pub(super) fn new(capacity: usize) -> Self {
        Self {
            capacity,
            identities: HashSet::new(),
            oldest_first: VecDeque::new(),
            statistics: CacheStatistics::default(),
        }
    }

    pub(super) fn find(&mut self, serialized: &[u8]) -> Option<Identity> {
        let found = self.identities.get(serialized).map(|found| found.0.clone());
        let counter = if found.is_some() { &mut self.statistics.hits } else { &mut self.statistics.misses };
        *counter = counter.saturating_add(1);
        found
    }

    pub(super) fn insert(&mut self, identity: Identity) {
        // Two threads may validate the same identity at once; it is queued for eviction only once.
        if self.identities.insert(BySerialized(identity.clone())) {
            self.oldest_first.push_back(identity);
        }
        while self.identities.len() > self.capacity {
            let Some(oldest) = self.oldest_first.pop_front() else { return };
            self.identities.remove(oldest.serialized());
            self.statistics.evictions = self.statistics.evictions.saturating_add(1);
        }
    }

    pub(super) fn statistics(&self) -> CacheStatistics {
        CacheStatistics { length: self.identities.len(), ..self.statistics }
    }
}

#[cfg(all(test, feature = "issue"))]
mod tests {
    use super::*;
    use crate::issue::{Organization, Validity};
    use crate::{Algorithm, Role};

    #[test]
    fn evicts_the_oldest_and_counts() {
        let validity = Validity::ten_years_from(1_800_000_000);
        let organization = Organization::new("Org1MSP".into(), "org1", Algorithm::Ed25519, validity).unwrap();
        let members = [0, 1, 2, 3, 4].map(|number| {
            organization.enrol(&format!("peer{number}"), Role::Peer, validity).unwrap().identity().clone()
        });
        let mut cache = IdentityCache::new(3);
        for member in &members {
            assert!(cache.find(member.serialized()).is_none());
            cache.insert(member.clone());
            cache.insert(member.clone());
        }
        assert!(cache.find(members[1].serialized()).is_none());
        let found = cache.find(members[2].serialized()).unwrap();
        assert_eq!(found.pki_id(), members[2].pki_id());
        let expected = CacheStatistics { hits: 1, misses: 6, evictions: 2, length: 3 };
        assert_eq!(cache.statistics(), expected);
        assert_eq!(cache.oldest_first.len(), 3);
    }
}
