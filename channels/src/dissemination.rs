//! Dissemination of new blocks inside the organisation: push and digests.
//!
//! # Promise
//! A block that is new and authentic is pushed once to at most `fanout` random own-organisation members of the
//! channel, never back to whom it came from, never to one known to hold it, never outside the organisation (only own-organisation
//! peers are ever told to this machine). Blocks that came by request are not pushed on: they are old. Every `pull_interval` a few random members hear which recent blocks are
//! held; what they lack they ask for ([`crate::reconciliation`]). Delivery by push is best effort.
//!
//! # Bounds
//! What peers are known to hold is remembered for [`KNOWN_PER_PEER_MAX`] numbers a peer above its claimed height; the
//! lowest go first.
//!
//! # Attacks
//! Claims to hold a block keep a push away from the claimant alone.

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use grapevine_crypto::PkiId;
use rand::RngExt;
use rand::rngs::ChaCha8Rng;
use rand::seq::IteratorRandom;

use crate::time::Time;

/// Most block numbers remembered as held by one peer.
pub const KNOWN_PER_PEER_MAX: usize = 256;

/// How dissemination behaves; the names are peer.yaml's under `peer.gossip`.
#[derive(Debug, Clone)]
pub struct DisseminationConfig {
    /// Peers a new block is pushed to (`propagatePeerNum`).
    pub propagate_peer_num: usize,
    /// Time between digests (`pullInterval`).
    pub pull_interval: Duration,
    /// Peers a digest is sent to (`pullPeerNum`).
    pub pull_peer_num: usize,
}

#[derive(Debug, Default)]
struct Known {
    height: u64,
    above: BTreeSet<u64>,
}

impl Known {
    fn holds(&self, number: u64) -> bool {
        number < self.height || self.above.contains(&number)
    }

    fn note(&mut self, number: u64) {
        if number >= self.height {
            self.above.insert(number);
            if self.above.len() > KNOWN_PER_PEER_MAX {
                self.above.pop_first();
            }
        }
    }
}

/// The push and digest machine of one channel. See the module's header.
#[derive(Debug)]
pub struct Dissemination {
    config: DisseminationConfig,
    peers: BTreeMap<PkiId, Known>,
    next_digest: Time,
    rng: ChaCha8Rng,
}

impl Dissemination {
    /// A channel joined at `now`.
    pub fn new(config: DisseminationConfig, now: Time, mut rng: ChaCha8Rng) -> Self {
        // Started at once, peers would otherwise send their digests at the same moments for ever.
        let next_digest = now + config.pull_interval.mul_f64(rng.random_range(0.0..1.0));
        Self { config, peers: BTreeMap::new(), next_digest, rng }
    }

    /// An own-organisation member of the channel is connected.
    pub fn handle_peer(&mut self, peer: PkiId) {
        self.peers.entry(peer).or_default();
    }

    /// It no longer is.
    pub fn handle_peer_gone(&mut self, peer: PkiId) {
        self.peers.remove(&peer);
    }

    /// A peer says its ledger has `height` blocks.
    pub fn handle_height(&mut self, peer: PkiId, height: u64) {
        if let Some(known) = self.peers.get_mut(&peer) {
            known.height = known.height.max(height);
            known.above = known.above.split_off(&known.height);
        }
    }

    /// A peer sent the block, was sent it, or says it holds it.
    pub fn note_held(&mut self, peer: PkiId, number: u64) {
        if let Some(known) = self.peers.get_mut(&peer) {
            known.note(number);
        }
    }

    /// A new authentic block: whom to push it to.
    pub fn handle_new_block(&mut self, number: u64, from: Option<PkiId>) -> Vec<PkiId> {
        let targets = self
            .peers
            .iter()
            .filter(|(peer, known)| Some(**peer) != from && !known.holds(number))
            .map(|(peer, _)| *peer)
            .sample(&mut self.rng, self.config.propagate_peer_num);
        for peer in &targets {
            self.note_held(*peer, number);
        }
        targets
    }

    /// Whom to send a digest now: empty while none is due.
    pub fn handle_timeout(&mut self, now: Time) -> Vec<PkiId> {
        if now < self.next_digest {
            return Vec::new();
        }
        self.next_digest = now + self.config.pull_interval;
        self.peers.keys().copied().sample(&mut self.rng, self.config.pull_peer_num)
    }

    /// When [`Dissemination::handle_timeout`] is due next.
    pub fn next_deadline(&self) -> Time {
        self.next_digest
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use rand::SeedableRng;

    fn peer(index: usize) -> PkiId {
        PkiId::new(&"Org1MSP".into(), &format!("peer{index}"))
    }

    fn new(fanout: usize, peers: usize) -> Dissemination {
        let config = DisseminationConfig {
            propagate_peer_num: fanout,
            pull_interval: Duration::from_secs(1),
            pull_peer_num: 2,
        };
        let mut machine = Dissemination::new(config, Time::ZERO, ChaCha8Rng::seed_from_u64(1));
        (0..peers).for_each(|index| machine.handle_peer(peer(index)));
        machine
    }

    #[test]
    fn the_fanout_is_as_configured_and_random() {
        let mut machine = new(3, 10);
        let mut all = BTreeSet::new();
        for number in 1..50 {
            let targets = machine.handle_new_block(number, None);
            assert_eq!(targets.len(), 3);
            all.extend(targets);
        }
        assert_eq!(all.len(), 10, "every peer is chosen at some time");
    }

    #[test]
    fn never_back_to_the_sender_nor_to_holders() {
        for seed_number in 1..200 {
            let mut machine = new(3, 4);
            machine.note_held(peer(1), seed_number);
            machine.handle_height(peer(2), seed_number + 1);
            let targets = machine.handle_new_block(seed_number, Some(peer(0)));
            assert_eq!(targets, vec![peer(3)]);
        }
    }

    #[test]
    fn a_block_is_pushed_to_a_peer_once() {
        let mut machine = new(2, 2);
        assert_eq!(machine.handle_new_block(7, None).len(), 2);
        assert_eq!(machine.handle_new_block(7, None), vec![]);
    }

    #[test]
    fn what_is_remembered_of_a_peer_is_bounded() {
        let mut machine = new(1, 1);
        for number in 0..2 * KNOWN_PER_PEER_MAX as u64 {
            machine.note_held(peer(0), number);
        }
        let known = machine.peers.get(&peer(0)).unwrap();
        assert_eq!(known.above.len(), KNOWN_PER_PEER_MAX);
        assert!(!known.holds(0));
        machine.handle_height(peer(0), 10_000);
        assert!(machine.peers.get(&peer(0)).unwrap().above.is_empty());
    }

    #[test]
    fn digests_go_to_a_few_peers_each_interval() {
        let mut machine = new(1, 5);
        let first = machine.next_deadline();
        assert_eq!(machine.handle_timeout(first - Duration::from_nanos(1)), vec![]);
        assert_eq!(machine.handle_timeout(first).len(), 2);
        assert_eq!(machine.next_deadline(), first + Duration::from_secs(1));
    }
}
