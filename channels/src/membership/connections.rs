//! The connected peers, of which random ones are drawn at a cost that does not grow with how many there are.

use std::collections::BTreeMap;

use grapevine_crypto::{MspId, PkiId};
use rand::{Rng, RngExt};

/// Connected peers and their organisations.
#[derive(Debug, Default)]
pub(super) struct Connections {
    organizations: BTreeMap<PkiId, MspId>,
    /// The same peers; their order means nothing.
    order: Vec<PkiId>,
}

impl Connections {
    /// A peer is connected. An organisation that was known of it is replaced.
    pub(super) fn insert(&mut self, peer: PkiId, organization: MspId) {
        if self.organizations.insert(peer, organization).is_none() {
            self.order.push(peer);
        }
    }

    /// A peer no longer is. Costs O(connections).
    pub(super) fn remove(&mut self, peer: &PkiId) {
        if self.organizations.remove(peer).is_some()
            && let Some(place) = self.order.iter().position(|known| known == peer)
        {
            self.order.swap_remove(place);
        }
    }

    /// The organisation of a connected peer.
    pub(super) fn organization(&self, peer: &PkiId) -> Option<&MspId> {
        self.organizations.get(peer)
    }

    /// Whether the peer is connected.
    pub(super) fn contains(&self, peer: &PkiId) -> bool {
        self.organizations.contains_key(peer)
    }

    /// How many are connected.
    pub(super) fn len(&self) -> usize {
        self.order.len()
    }

    /// Whether nobody is.
    pub(super) fn is_empty(&self) -> bool {
        self.order.is_empty()
    }

    /// Everybody, in the order of PKI-IDs.
    pub(super) fn iter(&self) -> impl Iterator<Item = (&PkiId, &MspId)> {
        self.organizations.iter()
    }

    /// Up to `wanted` different peers that are `eligible`, each such set as likely as any other. Looks at as many peers as it takes
    /// to find them.
    pub(super) fn sample(
        &mut self,
        rng: &mut impl Rng,
        wanted: usize,
        mut eligible: impl FnMut(&PkiId, &MspId) -> bool,
    ) -> Vec<PkiId> {
        let mut sample = Vec::with_capacity(wanted.min(self.order.len()));
        // A shuffle that stops when enough are found.
        for place in 0..self.order.len() {
            if sample.len() == wanted {
                break;
            }
            let drawn = rng.random_range(place..self.order.len());
            self.order.swap(place, drawn);
            let Some(peer) = self.order.get(place) else { break };
            if self.organizations.get(peer).is_some_and(|organization| eligible(peer, organization)) {
                sample.push(*peer);
            }
        }
        sample
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use rand::SeedableRng;
    use rand::rngs::ChaCha8Rng;
    use std::collections::BTreeSet;

    fn peer(index: usize) -> PkiId {
        PkiId::new(&"Org1MSP".into(), &format!("peer{index}"))
    }

    fn connected(count: usize) -> Connections {
        let mut connections = Connections::default();
        for index in 0..count {
            connections.insert(peer(index), "Org1MSP".into());
            connections.insert(peer(index), "Org2MSP".into());
        }
        connections
    }

    #[test]
    fn peers_come_and_go_once() {
        let mut connections = connected(10);
        assert_eq!(connections.len(), 10);
        assert_eq!(connections.organization(&peer(3)), Some(&"Org2MSP".into()));
        connections.remove(&peer(3));
        connections.remove(&peer(3));
        assert!(!connections.contains(&peer(3)));
        let all = connections.sample(&mut ChaCha8Rng::seed_from_u64(1), 100, |_, _| true);
        let all: BTreeSet<PkiId> = all.into_iter().collect();
        assert_eq!(all, connections.iter().map(|(peer, _)| *peer).collect());
        (0..10).for_each(|index| connections.remove(&peer(index)));
        assert!(connections.is_empty());
    }

    #[test]
    fn samples_are_even_and_only_of_the_eligible() {
        let mut connections = connected(10);
        let mut rng = ChaCha8Rng::seed_from_u64(1);
        let mut drawn = std::collections::BTreeMap::new();
        for _ in 0..3_000 {
            let sample = connections.sample(&mut rng, 3, |candidate, _| *candidate != peer(0));
            assert_eq!(sample.iter().collect::<BTreeSet<_>>().len(), 3);
            sample.into_iter().for_each(|chosen| *drawn.entry(chosen).or_insert(0) += 1);
        }
        assert_eq!(drawn.len(), 9);
        assert!(drawn.values().all(|times| (900..1_100).contains(times)), "{drawn:?}");
    }

    #[test]
    fn few_are_looked_at_however_many_are_connected() {
        let mut connections = connected(1_000);
        let mut looks = 0;
        connections.sample(&mut ChaCha8Rng::seed_from_u64(1), 4, |_, _| {
            looks += 1;
            looks != 2
        });
        assert_eq!(looks, 5);
    }
}
