//! A bounded memory of validated identities.
//!
//! Validating costs several signature checks, and every block and gossip message names an identity. Oldest out first: a
//! channel has far fewer active members than the bound, so anything cleverer would not pay.

use std::collections::{HashMap, VecDeque};

use crate::digest::Digest;
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

/// Identities by the digest of their serialised bytes.
#[derive(Debug)]
pub(super) struct IdentityCache {
    capacity: usize,
    identities: HashMap<Digest, Identity>,
    oldest_first: VecDeque<Digest>,
    statistics: CacheStatistics,
}

impl IdentityCache {
    pub(super) fn new(capacity: usize) -> Self {
        Self {
            capacity,
            identities: HashMap::new(),
            oldest_first: VecDeque::new(),
            statistics: CacheStatistics::default(),
        }
    }

    pub(super) fn find(&mut self, key: &Digest) -> Option<Identity> {
        let found = self.identities.get(key).cloned();
        let counter = if found.is_some() { &mut self.statistics.hits } else { &mut self.statistics.misses };
        *counter = counter.saturating_add(1);
        found
    }

    pub(super) fn insert(&mut self, key: Digest, identity: Identity) {
        // Two threads may validate the same identity at once; it is queued for eviction only once.
        if self.identities.insert(key, identity).is_none() {
            self.oldest_first.push_back(key);
        }
        while self.identities.len() > self.capacity {
            let Some(oldest) = self.oldest_first.pop_front() else { return };
            self.identities.remove(&oldest);
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
    use crate::{Algorithm, Role, sha256};

    #[test]
    fn evicts_the_oldest_and_counts() {
        let validity = Validity::ten_years_from(1_800_000_000);
        let organization = Organization::new("Org1MSP".into(), "org1", Algorithm::Ed25519, validity).unwrap();
        let member = organization.enrol("peer0", Role::Peer, validity).unwrap().identity().clone();
        let key = |number: u8| sha256(&[number]);
        let mut cache = IdentityCache::new(3);
        for number in 0..5 {
            assert!(cache.find(&key(number)).is_none());
            cache.insert(key(number), member.clone());
            cache.insert(key(number), member.clone());
        }
        assert!(cache.find(&key(1)).is_none());
        assert!(cache.find(&key(2)).is_some());
        let expected = CacheStatistics { hits: 1, misses: 6, evictions: 2, length: 3 };
        assert_eq!(cache.statistics(), expected);
        assert_eq!(cache.oldest_first.len(), 3);
    }
}
