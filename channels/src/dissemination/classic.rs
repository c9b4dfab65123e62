//! Fabric's gossip, for networks that want it and as the measure of the other modes.
//!
//! # Promise
//! *Push*: new authentic blocks wait for at most [`BURST_LATENCY`], or until [`BURST_SIZE`] wait, and go in one batch to one set of
//! `propagate_peer_num` random members; who sent a block is taken out after the choice, so that one fewer may get it (infect and die).
//! Blocks that came by request are not pushed on. *Pull*: every `pull_interval` a hello to `pull_peer_num` random members; their digests are
//! collected for [`DIGEST_WAIT`], then each block that is lacking is asked of one random owner. Facts: Fabric's gossip/gossip/batcher.go,
//! gossip/gossip/algo/pull.go.
//!
//! # Messages
//! `Hello`, answered by `Digest` with the blocks in memory; then `Request`, answered by blocks.
//!
//! # Bounds
//! Pushes wait in a batch of at most [`BURST_SIZE`]. Digests count only from peers that were said hello to and only while they are
//! collected; of each, [`OFFERED_PER_PEER_MAX`] numbers that are lacking.
//!
//! # Attacks
//! A digest that lies costs a request without answer; the next round asks others.

use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::time::Duration;

use grapevine_crypto::PkiId;
use rand::RngExt;
use rand::rngs::ChaCha8Rng;
use rand::seq::IteratorRandom;

use super::{BlockSource, DisseminationConfig, DisseminationCounters, DisseminationOutput, NewBlock};
use crate::chain::Chain;
use crate::time::{Time, earliest};
use crate::wire::{ChannelBody, Delegation, Digest, Hello, Request};

/// Longest wait of a block for its batch (Fabric: `maxPropagationBurstLatency`).
pub const BURST_LATENCY: Duration = Duration::from_millis(10);
/// Blocks that go at once (Fabric: `maxPropagationBurstSize`).
pub const BURST_SIZE: usize = 10;
/// How long digests are collected (Fabric: `digestWaitTime`).
pub const DIGEST_WAIT: Duration = Duration::from_secs(1);
/// Most lacking numbers taken from one digest.
pub const OFFERED_PER_PEER_MAX: usize = 64;
/// Most ranges in a digest.
const DIGEST_RANGES_MAX: usize = 64;

/// A round of pull while digests are collected.
#[derive(Debug)]
struct Round {
    ends: Time,
    greeted: BTreeSet<PkiId>,
    /// Who offers each lacking block.
    owners: BTreeMap<u64, BTreeSet<PkiId>>,
}

/// The machine. See the module's header.
#[derive(Debug)]
pub(super) struct Classic {
    config: DisseminationConfig,
    peers: BTreeSet<PkiId>,
    /// Blocks of the next batch, and who sent them.
    batch: Vec<(u64, Option<PkiId>)>,
    batch_at: Option<Time>,
    next_round: Time,
    round: Option<Round>,
    rng: ChaCha8Rng,
}

impl Classic {
    /// A channel joined at `now`.
    pub(super) fn new(config: DisseminationConfig, now: Time, mut rng: ChaCha8Rng) -> Self {
        // Started at once, peers would otherwise pull at the same moments for ever.
        let next_round = now + config.pull_interval.mul_f64(rng.random_range(0.0..1.0));
        Self {
            config,
            peers: BTreeSet::new(),
            batch: Vec::new(),
            batch_at: None,
            next_round,
            round: None,
            rng,
        }
    }

    /// An own-organisation member of the channel is connected.
    pub(super) fn handle_peer(&mut self, peer: PkiId) {
        self.peers.insert(peer);
    }

    /// It no longer is.
    pub(super) fn handle_peer_gone(&mut self, peer: PkiId) {
        self.peers.remove(&peer);
    }

    /// A new authentic block: waits for its batch.
    pub(super) fn handle_block(
        &mut self,
        now: Time,
        block: &NewBlock,
        outputs: &mut VecDeque<DisseminationOutput>,
        counters: &mut DisseminationCounters,
    ) {
        if matches!(block.source, BlockSource::Reply(_)) {
            counters.repaired += 1;
            return;
        }
        self.batch.push((block.number, block.source.peer()));
        if self.batch.len() >= BURST_SIZE {
            return self.push_batch(outputs);
        }
        // Fabric's batcher wakes every burst latency, whenever blocks come.
        let wait = BURST_LATENCY.mul_f64(self.rng.random_range(0.0..1.0));
        self.batch_at.get_or_insert(now + wait);
    }

    fn push_batch(&mut self, outputs: &mut VecDeque<DisseminationOutput>) {
        self.batch_at = None;
        let chosen = self.peers.iter().copied().sample(&mut self.rng, self.config.propagate_peer_num);
        for (number, from) in std::mem::take(&mut self.batch) {
            for peer in chosen.iter().copied().filter(|peer| Some(*peer) != from) {
                outputs.push_back(DisseminationOutput::Push {
                    peer,
                    number,
                    delegation: Delegation::default(),
                });
            }
        }
    }

    /// A hello or a digest.
    pub(super) fn handle_frame(
        &mut self,
        peer: PkiId,
        frame: &ChannelBody,
        chain: &Chain,
        outputs: &mut VecDeque<DisseminationOutput>,
    ) {
        match frame {
            ChannelBody::Hello(_) => {
                let digest = Digest { ranges: chain.recent_ranges(DIGEST_RANGES_MAX) };
                if !digest.ranges.is_empty() {
                    outputs.push_back(DisseminationOutput::Send { peer, body: ChannelBody::Digest(digest) });
                }
            }
            ChannelBody::Digest(digest) => {
                let Some(round) = self.round.as_mut().filter(|round| round.greeted.contains(&peer)) else {
                    return;
                };
                // Only numbers that could be kept are worth a look: ranges from outside may be endless.
                let window = chain.next_needed()..chain.window_end();
                let ranges = digest.ranges.as_chunks::<2>().0;
                let offered = ranges.iter().flat_map(|[first, last]| {
                    let end = last.saturating_add(1).min(window.end);
                    (*first).max(window.start)..end
                });
                for number in offered.filter(|number| !chain.holds(*number)).take(OFFERED_PER_PEER_MAX) {
                    round.owners.entry(number).or_default().insert(peer);
                }
            }
            _ => {}
        }
    }

    /// Does what is due.
    pub(super) fn handle_timeout(
        &mut self,
        now: Time,
        chain: &Chain,
        outputs: &mut VecDeque<DisseminationOutput>,
        counters: &mut DisseminationCounters,
    ) {
        if self.batch_at.is_some_and(|at| at <= now) {
            self.push_batch(outputs);
        }
        if let Some(round) = self.round.take_if(|round| round.ends <= now) {
            self.ask(round, chain, outputs, counters);
        }
        if self.next_round <= now {
            self.next_round = now + self.config.pull_interval;
            let greeted: BTreeSet<PkiId> = self
                .peers
                .iter()
                .copied()
                .sample(&mut self.rng, self.config.pull_peer_num)
                .into_iter()
                .collect();
            for peer in &greeted {
                let body = ChannelBody::Hello(Hello {});
                outputs.push_back(DisseminationOutput::Send { peer: *peer, body });
            }
            self.round = Some(Round { ends: now + DIGEST_WAIT, greeted, owners: BTreeMap::new() });
        }
    }

    fn ask(
        &mut self,
        round: Round,
        chain: &Chain,
        outputs: &mut VecDeque<DisseminationOutput>,
        counters: &mut DisseminationCounters,
    ) {
        let mut requests: BTreeMap<PkiId, Vec<u64>> = BTreeMap::new();
        for (number, owners) in round.owners.into_iter().filter(|(number, _)| !chain.holds(*number)) {
            if let Some(owner) = owners.into_iter().choose(&mut self.rng) {
                requests.entry(owner).or_default().push(number);
                counters.requested += 1;
            }
        }
        for (peer, numbers) in requests {
            outputs.push_back(DisseminationOutput::Send {
                peer,
                body: ChannelBody::Request(Request { numbers }),
            });
        }
    }

    /// When [`Classic::handle_timeout`] is due next.
    pub(super) fn next_deadline(&self) -> Option<Time> {
        let round = self.round.as_ref().map(|round| round.ends);
        earliest(earliest(self.batch_at, round), Some(self.next_round))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::dissemination::DisseminationMode;
    use grapevine_crypto::Digest as Hash;
    use rand::SeedableRng;

    fn peer(index: usize) -> PkiId {
        PkiId::new(&"Org1MSP".into(), &format!("peer{index}"))
    }

    fn chain() -> Chain {
        Chain::new(1, Hash([0; 32]), 64, 10)
    }

    fn new(peers: usize) -> Classic {
        let config = DisseminationConfig {
            mode: DisseminationMode::Classic,
            propagate_peer_num: 3,
            pull_interval: Duration::from_secs(4),
            pull_peer_num: 3,
            link_bits_per_second: 1_000_000_000,
        };
        let mut machine = Classic::new(config, Time::ZERO, ChaCha8Rng::seed_from_u64(1));
        (0..peers).for_each(|index| machine.handle_peer(peer(index)));
        machine
    }

    fn block(machine: &mut Classic, number: u64, source: BlockSource) -> Vec<DisseminationOutput> {
        let mut outputs = VecDeque::new();
        let (hash, verified_in) = (Hash([1; 32]), Duration::ZERO);
        let block = NewBlock { number, hash, size: 10, source, verified_in };
        machine.handle_block(Time::ZERO, &block, &mut outputs, &mut DisseminationCounters::default());
        outputs.into()
    }

    fn timeout(machine: &mut Classic, now: Time) -> Vec<DisseminationOutput> {
        let mut outputs = VecDeque::new();
        machine.handle_timeout(now, &chain(), &mut outputs, &mut DisseminationCounters::default());
        outputs.into()
    }

    fn pushed(outputs: &[DisseminationOutput]) -> Vec<(PkiId, u64)> {
        let push = |output: &DisseminationOutput| match output {
            DisseminationOutput::Push { peer, number, .. } => Some((*peer, *number)),
            DisseminationOutput::Send { .. } => None,
        };
        outputs.iter().filter_map(push).collect()
    }

    #[test]
    fn a_block_waits_at_most_ten_milliseconds_and_goes_to_three() {
        let mut machine = new(10);
        machine.next_round = Time::from_millis(4_000);
        assert!(block(&mut machine, 1, BlockSource::Orderer).is_empty());
        let at = machine.next_deadline().unwrap();
        assert!(at <= Time::ZERO + BURST_LATENCY);
        assert_eq!(pushed(&timeout(&mut machine, at)).len(), 3);
        assert!(pushed(&timeout(&mut machine, Time::from_millis(100))).is_empty(), "once");
    }

    #[test]
    fn a_full_batch_goes_at_once_to_one_set_of_peers() {
        let mut machine = new(10);
        for number in 1..BURST_SIZE as u64 {
            assert!(block(&mut machine, number, BlockSource::Orderer).is_empty());
        }
        let pushes = pushed(&block(&mut machine, BURST_SIZE as u64, BlockSource::Orderer));
        assert_eq!(pushes.len(), 3 * BURST_SIZE);
        let peers: BTreeSet<PkiId> = pushes.iter().map(|(peer, _)| *peer).collect();
        assert_eq!(peers.len(), 3);
    }

    #[test]
    fn the_sender_is_taken_out_after_the_choice_and_answers_are_not_pushed() {
        let mut machine = new(3);
        block(&mut machine, 1, BlockSource::Push(peer(0)));
        assert_eq!(pushed(&timeout(&mut machine, Time::ZERO + BURST_LATENCY)).len(), 2);
        block(&mut machine, 2, BlockSource::Reply(peer(0)));
        assert!(pushed(&timeout(&mut machine, Time::ZERO + BURST_LATENCY * 2)).is_empty());
    }

    #[test]
    fn a_round_greets_three_collects_for_a_second_and_asks_one_owner() {
        let mut machine = new(10);
        let now = machine.next_round;
        let greeted: Vec<PkiId> = timeout(&mut machine, now)
            .into_iter()
            .filter_map(|output| match output {
                DisseminationOutput::Send { peer, body: ChannelBody::Hello(_) } => Some(peer),
                _ => None,
            })
            .collect();
        assert_eq!(greeted.len(), 3);
        let mut outputs = VecDeque::new();
        let digest = ChannelBody::Digest(Digest { ranges: vec![0, 0, 1, 2, 5, u64::MAX] });
        let stranger = (0..10).map(peer).find(|peer| !greeted.contains(peer)).unwrap();
        for from in [greeted[0], greeted[1], stranger] {
            machine.handle_frame(from, &digest, &chain(), &mut outputs);
        }
        let owners = &machine.round.as_ref().unwrap().owners;
        assert_eq!(owners.len(), 62, "1, 2 and 5 to the end of the window, but not what is held");
        assert!(owners.values().all(|owners| owners.len() == 2), "nobody else's word counts");
        assert!(timeout(&mut machine, now + DIGEST_WAIT / 2).is_empty());
        let asked: Vec<u64> = timeout(&mut machine, now + DIGEST_WAIT)
            .into_iter()
            .filter_map(|output| match output {
                DisseminationOutput::Send { peer, body: ChannelBody::Request(request) } => {
                    assert!(greeted.contains(&peer));
                    Some(request.numbers)
                }
                _ => None,
            })
            .flatten()
            .collect();
        assert_eq!(asked.len(), 62, "each block of one owner");
    }

    #[test]
    fn a_hello_is_answered_with_what_is_in_memory() {
        let mut machine = new(2);
        let mut chain = chain();
        let mut outputs = VecDeque::new();
        machine.handle_frame(peer(0), &ChannelBody::Hello(Hello {}), &chain, &mut outputs);
        assert!(outputs.is_empty(), "nothing to offer");
        chain.offer(crate::block::AuthenticBlock::simulated(1, Hash([0; 32]), 10));
        machine.handle_frame(peer(0), &ChannelBody::Hello(Hello {}), &chain, &mut outputs);
        let body = ChannelBody::Digest(Digest { ranges: vec![1, 1] });
        assert_eq!(outputs, [DisseminationOutput::Send { peer: peer(0), body }]);
    }
}
