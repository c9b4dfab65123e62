//! Push to a random fanout, and digests.
//!
//! # Promise
//! A block that is new and authentic is pushed once to at most `propagate_peer_num` random members, never back to whom it came from,
//! never to one known to hold it. Blocks that came by request are not pushed on: they are old. Every `pull_interval` a few
//! random members hear which recent blocks are held; what they lack they ask for ([`crate::reconciliation`]).
//!
//! # Attacks
//! Claims to hold a block keep a push away from the claimant alone.

use std::collections::{BTreeMap, VecDeque};

use grapevine_crypto::PkiId;
use rand::RngExt;
use rand::rngs::ChaCha8Rng;
use rand::seq::IteratorRandom;

use super::known::Known;
use super::{BlockSource, DisseminationConfig, DisseminationOutput, NewBlock};
use crate::chain::Chain;
use crate::time::Time;
use crate::wire::{ChannelBody, Delegation, Digest};

/// Most ranges in a digest.
const DIGEST_RANGES_MAX: usize = 64;

/// The machine. See the module's header.
#[derive(Debug)]
pub(super) struct PushAndDigest {
    config: DisseminationConfig,
    peers: BTreeMap<PkiId, Known>,
    next_digest: Time,
    rng: ChaCha8Rng,
}

impl PushAndDigest {
    /// A channel joined at `now`.
    pub(super) fn new(config: DisseminationConfig, now: Time, mut rng: ChaCha8Rng) -> Self {
        // Started at once, peers would otherwise send their digests at the same moments for ever.
        let next_digest = now + config.pull_interval.mul_f64(rng.random_range(0.0..1.0));
        Self { config, peers: BTreeMap::new(), next_digest, rng }
    }

    /// An own-organisation member of the channel is connected.
    pub(super) fn handle_peer(&mut self, peer: PkiId) {
        self.peers.entry(peer).or_default();
    }

    /// It no longer is.
    pub(super) fn handle_peer_gone(&mut self, peer: PkiId) {
        self.peers.remove(&peer);
    }

    /// A peer says its ledger has `height` blocks.
    pub(super) fn handle_height(&mut self, peer: PkiId, height: u64) {
        if let Some(known) = self.peers.get_mut(&peer) {
            known.raise(height);
        }
    }

    /// A peer sent the block, was sent it, or says it holds it.
    pub(super) fn note_held(&mut self, peer: PkiId, number: u64) {
        if let Some(known) = self.peers.get_mut(&peer) {
            known.note(number);
        }
    }

    /// A new authentic block: pushes it on.
    pub(super) fn handle_block(&mut self, block: &NewBlock, outputs: &mut VecDeque<DisseminationOutput>) {
        if matches!(block.source, BlockSource::Reply(_)) {
            return;
        }
        let from = block.source.peer();
        let targets = self
            .peers
            .iter()
            .filter(|(peer, known)| Some(**peer) != from && !known.holds(block.number))
            .map(|(peer, _)| *peer)
            .sample(&mut self.rng, self.config.propagate_peer_num);
        for peer in targets {
            self.note_held(peer, block.number);
            let delegation = Delegation::default();
            outputs.push_back(DisseminationOutput::Push { peer, number: block.number, delegation });
        }
    }

    /// Sends digests if they are due.
    pub(super) fn handle_timeout(
        &mut self,
        now: Time,
        chain: &Chain,
        outputs: &mut VecDeque<DisseminationOutput>,
    ) {
        if now < self.next_digest {
            return;
        }
        self.next_digest = now + self.config.pull_interval;
        let digest = Digest { ranges: chain.recent_ranges(DIGEST_RANGES_MAX) };
        if digest.ranges.is_empty() {
            return;
        }
        for peer in self.peers.keys().copied().sample(&mut self.rng, self.config.pull_peer_num) {
            outputs.push_back(DisseminationOutput::Send { peer, body: ChannelBody::Digest(digest.clone()) });
        }
    }

    /// When [`PushAndDigest::handle_timeout`] is due next.
    pub(super) fn next_deadline(&self) -> Time {
        self.next_digest
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::block::AuthenticBlock;
    use crate::dissemination::DisseminationMode;
    use grapevine_crypto::Digest as Hash;
    use rand::SeedableRng;
    use std::collections::BTreeSet;
    use std::time::Duration;

    fn peer(index: usize) -> PkiId {
        PkiId::new(&"Org1MSP".into(), &format!("peer{index}"))
    }

    fn new(fanout: usize, peers: usize) -> PushAndDigest {
        let config = DisseminationConfig {
            mode: DisseminationMode::Grapevine,
            propagate_peer_num: fanout,
            pull_interval: Duration::from_secs(1),
            pull_peer_num: 2,
            link_bits_per_second: 1_000_000_000,
        };
        let mut machine = PushAndDigest::new(config, Time::ZERO, ChaCha8Rng::seed_from_u64(1));
        (0..peers).for_each(|index| machine.handle_peer(peer(index)));
        machine
    }

    fn targets(machine: &mut PushAndDigest, number: u64, from: Option<PkiId>) -> Vec<PkiId> {
        let mut outputs = VecDeque::new();
        let source = from.map_or(BlockSource::Orderer, BlockSource::Push);
        machine.handle_block(&NewBlock { number, hash: Hash([0; 32]), size: 1, source }, &mut outputs);
        let target = |output| match output {
            DisseminationOutput::Push { peer, .. } => peer,
            DisseminationOutput::Send { .. } => panic!("only pushes"),
        };
        outputs.into_iter().map(target).collect()
    }

    fn digests(machine: &mut PushAndDigest, now: Time) -> usize {
        let mut chain = Chain::new(1, Hash([0; 32]), 8, 4);
        chain.offer(AuthenticBlock::simulated(1, Hash([0; 32]), 10));
        let mut outputs = VecDeque::new();
        machine.handle_timeout(now, &chain, &mut outputs);
        outputs.len()
    }

    #[test]
    fn the_fanout_is_as_configured_and_random() {
        let mut machine = new(3, 10);
        let mut all = BTreeSet::new();
        for number in 1..50 {
            let targets = targets(&mut machine, number, None);
            assert_eq!(targets.len(), 3);
            all.extend(targets);
        }
        assert_eq!(all.len(), 10, "every peer is chosen at some time");
    }

    #[test]
    fn never_back_to_the_sender_nor_to_holders() {
        for number in 1..200 {
            let mut machine = new(3, 4);
            machine.note_held(peer(1), number);
            machine.handle_height(peer(2), number + 1);
            assert_eq!(targets(&mut machine, number, Some(peer(0))), vec![peer(3)]);
        }
    }

    #[test]
    fn a_block_is_pushed_to_a_peer_once() {
        let mut machine = new(2, 2);
        assert_eq!(targets(&mut machine, 7, None).len(), 2);
        assert_eq!(targets(&mut machine, 7, None), vec![]);
    }

    #[test]
    fn digests_go_to_a_few_peers_each_interval() {
        let mut machine = new(1, 5);
        let first = machine.next_deadline();
        assert_eq!(digests(&mut machine, first - Duration::from_nanos(1)), 0);
        assert_eq!(digests(&mut machine, first), 2);
        assert_eq!(machine.next_deadline(), first + Duration::from_secs(1));
    }
}
