//! Reconciliation: what this peer lacks, who has it, whom to ask.
//!
//! # Promise
//! A block that some connected member of the channel, of any of its organisations, claims to hold and this peer lacks is
//! asked for until it is here. Only numbers inside the in-order buffer's window are asked for, so what arrives
//! can be kept; every block is verified and linked before it is committed, whoever sent it.
//!
//! # How
//! Claims are ledger heights and digests. Eligibility is decided for each number alone: a peer that claims a huge height
//! is one more source and hides no other (Fabric asks only peers that hold the whole range). A peer has at most one
//! request open, of at most `batch_size` numbers, so several peers serve different ranges at once. Near the tip a missing block may be on its way by
//! push: it is asked for only after [`PUSH_GRACE`]; far behind, at once. Own-organisation sources are preferred.
//!
//! # Failures
//! A request without a block for `response_timeout` is given up, its numbers go to others, and the peer rests for a
//! time that doubles with each failure in a row up to [`REST_MAX`]. A refusal frees its numbers at once and rests the
//! peer for a moment. Retries don't end: `max_retries` bounds how many failures in a row count for the rest.
//!
//! # Bounds
//! Missing numbers: the window. Sources: the connected members. Digest numbers a source: [`CLAIMS_PER_PEER_MAX`].

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use grapevine_crypto::PkiId;
use rand::RngExt;
use rand::rngs::ChaCha8Rng;

use crate::chain::Chain;
use crate::time::{Time, earliest};

/// How long a block near the tip may be on its way by push before it is asked for.
pub const PUSH_GRACE: Duration = Duration::from_millis(150);
/// Further behind than this many blocks, nothing missing is expected by push.
pub const NEAR_TIP_BLOCKS: u64 = 4;
/// Longest rest of a peer that failed.
pub const REST_MAX: Duration = Duration::from_secs(30);
/// Most numbers remembered from one peer's digests.
pub const CLAIMS_PER_PEER_MAX: usize = 1_024;
/// How long a peer that refused is left alone.
const REST_AFTER_REFUSAL: Duration = Duration::from_millis(500);

/// How reconciliation behaves; the names are peer.yaml's under `peer.gossip.state`.
#[derive(Debug, Clone)]
pub struct ReconciliationConfig {
    /// Ask for history by claimed heights (`enabled`). Digests are followed in any case.
    pub enabled: bool,
    /// Longest time between looks at what is missing (`checkInterval`).
    pub check_interval: Duration,
    /// Silence after which a request is given up (`responseTimeout`).
    pub response_timeout: Duration,
    /// Most blocks asked for at a time from one peer (`batchSize`).
    pub batch_size: usize,
    /// Failures in a row after which the rest grows no further (`maxRetries`).
    pub max_retries: u32,
}

/// Ask a peer for blocks.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Ask {
    /// The peer.
    pub peer: PkiId,
    /// The blocks, ascending.
    pub numbers: Vec<u64>,
}

/// Counts of what happened.
#[derive(Debug, Default, Clone, PartialEq, Eq)]
pub struct ReconciliationCounters {
    /// Requests sent.
    pub requests: u64,
    /// Requests given up for silence.
    pub timeouts: u64,
    /// Numbers peers refused.
    pub refused: u64,
}

#[derive(Debug)]
struct Source {
    own_organization: bool,
    height: u64,
    claimed: BTreeSet<u64>,
    asked: Option<Asked>,
    failures: u32,
    rests_until: Time,
}

#[derive(Debug)]
struct Asked {
    numbers: BTreeSet<u64>,
    deadline: Time,
}

impl Source {
    fn holds(&self, number: u64, by_height: bool) -> bool {
        (by_height && number < self.height) || self.claimed.contains(&number)
    }
}

/// The reconciliation machine of one channel. See the module's header.
#[derive(Debug)]
pub struct Reconciliation {
    config: ReconciliationConfig,
    sources: BTreeMap<PkiId, Source>,
    /// When each missing number was first seen claimed.
    missing: BTreeMap<u64, Time>,
    next_check: Time,
    rng: ChaCha8Rng,
    counters: ReconciliationCounters,
}

impl Reconciliation {
    /// A channel joined at `now`.
    pub fn new(config: ReconciliationConfig, now: Time, rng: ChaCha8Rng) -> Self {
        Self {
            config,
            sources: BTreeMap::new(),
            missing: BTreeMap::new(),
            next_check: now,
            rng,
            counters: ReconciliationCounters::default(),
        }
    }

    /// A member of the channel is connected.
    pub fn handle_peer(&mut self, now: Time, peer: PkiId, own_organization: bool) {
        self.sources.entry(peer).or_insert(Source {
            own_organization,
            height: 0,
            claimed: BTreeSet::new(),
            asked: None,
            failures: 0,
            rests_until: now,
        });
    }

    /// It no longer is; what it was asked for is free for others.
    pub fn handle_peer_gone(&mut self, now: Time, peer: PkiId) {
        self.sources.remove(&peer);
        self.next_check = now;
    }

    /// A peer claims a ledger of `height` blocks.
    pub fn handle_height(&mut self, now: Time, peer: PkiId, height: u64) {
        if let Some(source) = self.sources.get_mut(&peer) {
            source.height = height;
            source.claimed = source.claimed.split_off(&height);
            self.next_check = now;
        }
    }

    /// A peer claims to hold the blocks of these inclusive ranges.
    pub fn handle_digest(&mut self, now: Time, peer: PkiId, ranges: &[u64], chain: &Chain) {
        let Some(source) = self.sources.get_mut(&peer) else { return };
        for range in ranges.chunks_exact(2) {
            let [first, last] = *range else { continue };
            let from = first.max(chain.next_needed());
            for number in from..=last.min(chain.window_end()) {
                if source.claimed.len() >= CLAIMS_PER_PEER_MAX {
                    break;
                }
                source.claimed.insert(number);
            }
        }
        self.next_check = now;
    }

    /// A block arrived from a peer, verified or not: its request made progress.
    pub fn handle_arrival(&mut self, now: Time, peer: PkiId, number: u64) {
        let Some(source) = self.sources.get_mut(&peer) else { return };
        let Some(asked) = &mut source.asked else { return };
        if asked.numbers.remove(&number) {
            source.failures = 0;
            asked.deadline = now + self.config.response_timeout;
            if asked.numbers.is_empty() {
                source.asked = None;
                self.next_check = now;
            }
        }
    }

    /// A peer will not send these blocks now.
    pub fn handle_refusal(&mut self, now: Time, peer: PkiId, numbers: &[u64]) {
        let Some(source) = self.sources.get_mut(&peer) else { return };
        let Some(asked) = &mut source.asked else { return };
        for number in numbers {
            if asked.numbers.remove(number) {
                self.counters.refused += 1;
                source.claimed.remove(number);
                source.rests_until = now + REST_AFTER_REFUSAL;
            }
        }
        if asked.numbers.is_empty() {
            source.asked = None;
            self.next_check = now;
        }
    }

    /// A peer sent something that did not verify: it is not asked again for a while.
    pub fn handle_bad_block(&mut self, now: Time, peer: PkiId) {
        self.fail(now, peer);
        self.next_check = now;
    }

    /// Something was lost on the way from arrival to the ledger: look again.
    pub fn look_again(&mut self, now: Time) {
        self.next_check = now;
    }

    /// Gives up silent requests and asks for what is missing and eligible. `arriving` tells numbers being verified.
    pub fn handle_timeout(&mut self, now: Time, chain: &Chain, arriving: impl Fn(u64) -> bool) -> Vec<Ask> {
        if self.next_deadline().is_none_or(|deadline| deadline > now) {
            return Vec::new();
        }
        self.next_check = now + self.config.check_interval;
        self.give_up_silent(now);
        for source in self.sources.values_mut() {
            source.claimed = source.claimed.split_off(&chain.next_needed());
        }
        self.missing = self.missing.split_off(&chain.next_needed());
        let wanted = self.wanted(now, chain, arriving);
        self.assign(now, wanted)
    }

    /// When [`Reconciliation::handle_timeout`] is due next.
    pub fn next_deadline(&self) -> Option<Time> {
        let silent = self.sources.values().filter_map(|source| Some(source.asked.as_ref()?.deadline)).min();
        earliest(Some(self.next_check), silent)
    }

    /// The greatest height any connected member claims, with who claims it.
    pub fn height_claimed(&self) -> Option<(u64, PkiId)> {
        self.sources.iter().map(|(peer, source)| (source.height, *peer)).max()
    }

    /// Counts of what happened.
    pub fn counters(&self) -> &ReconciliationCounters {
        &self.counters
    }

    /// Missing numbers that may be asked for now, lowest first. Sets the next look to when another becomes eligible.
    fn wanted(&mut self, now: Time, chain: &Chain, arriving: impl Fn(u64) -> bool) -> Vec<u64> {
        let by_height = self.config.enabled;
        let asked: BTreeSet<u64> = self
            .sources
            .values()
            .filter_map(|source| source.asked.as_ref())
            .flat_map(|a| &a.numbers)
            .copied()
            .collect();
        let highest = self
            .sources
            .values()
            .filter(|source| source.rests_until <= now)
            .map(|source| {
                let claimed = source.claimed.last().map_or(0, |last| last.saturating_add(1));
                if by_height { source.height.max(claimed) } else { claimed }
            })
            .max()
            .unwrap_or(0);
        let behind = highest.saturating_sub(chain.next_needed()) > NEAR_TIP_BLOCKS;
        let mut wanted = Vec::new();
        for number in chain.next_needed()..highest.min(chain.window_end()) {
            if chain.holds(number) || asked.contains(&number) || arriving(number) {
                continue;
            }
            let since = *self.missing.entry(number).or_insert(now);
            let eligible = if behind { now } else { since + PUSH_GRACE };
            if eligible <= now {
                wanted.push(number);
            } else {
                self.next_check = self.next_check.min(eligible);
            }
        }
        wanted
    }

    fn assign(&mut self, now: Time, wanted: Vec<u64>) -> Vec<Ask> {
        let by_height = self.config.enabled;
        let mut asks: BTreeMap<PkiId, Vec<u64>> = BTreeMap::new();
        let mut order: Vec<(bool, u32, u64, PkiId)> = self
            .sources
            .iter()
            .filter(|(_, source)| source.asked.is_none() && source.rests_until <= now)
            .map(|(peer, source)| {
                (!source.own_organization, source.failures, self.rng.random_range(0..u64::MAX), *peer)
            })
            .collect();
        order.sort_unstable();
        for number in wanted {
            let source = order.iter().find(|(.., peer)| {
                asks.get(peer).is_none_or(|numbers| numbers.len() < self.config.batch_size.max(1))
                    && self.sources.get(peer).is_some_and(|source| source.holds(number, by_height))
            });
            if let Some((.., peer)) = source {
                asks.entry(*peer).or_default().push(number);
            }
        }
        for (peer, numbers) in &asks {
            self.counters.requests += 1;
            if let Some(source) = self.sources.get_mut(peer) {
                let deadline = now + self.config.response_timeout;
                source.asked = Some(Asked { numbers: numbers.iter().copied().collect(), deadline });
            }
        }
        asks.into_iter().map(|(peer, numbers)| Ask { peer, numbers }).collect()
    }

    fn give_up_silent(&mut self, now: Time) {
        let silent: Vec<PkiId> = self
            .sources
            .iter()
            .filter(|(_, source)| source.asked.as_ref().is_some_and(|asked| asked.deadline <= now))
            .map(|(peer, _)| *peer)
            .collect();
        for peer in silent {
            self.counters.timeouts += 1;
            self.fail(now, peer);
        }
    }

    fn fail(&mut self, now: Time, peer: PkiId) {
        let Some(source) = self.sources.get_mut(&peer) else { return };
        source.asked = None;
        source.failures = source.failures.saturating_add(1).min(self.config.max_retries.saturating_add(1));
        let rest = self.config.check_interval * 2u32.saturating_pow(source.failures.saturating_sub(1));
        source.rests_until = now + rest.min(REST_MAX);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::block::AuthenticBlock;
    use grapevine_crypto::Digest;
    use rand::SeedableRng;

    fn peer(index: usize) -> PkiId {
        PkiId::new(&"Org1MSP".into(), &format!("peer{index}"))
    }

    fn at(milliseconds: u64) -> Time {
        Time::from_millis(milliseconds)
    }

    fn new(peers: &[bool]) -> Reconciliation {
        let config = ReconciliationConfig {
            enabled: true,
            check_interval: Duration::from_millis(500),
            response_timeout: Duration::from_secs(3),
            batch_size: 4,
            max_retries: 3,
        };
        let mut machine = Reconciliation::new(config, Time::ZERO, ChaCha8Rng::seed_from_u64(1));
        for (index, own) in peers.iter().enumerate() {
            machine.handle_peer(Time::ZERO, peer(index), *own);
        }
        machine
    }

    fn chain(window: u64) -> Chain {
        Chain::new(1, Digest([0; 32]), window, 4)
    }

    fn ask(machine: &mut Reconciliation, now: Time, chain: &Chain) -> Vec<Ask> {
        machine.handle_timeout(now, chain, |_| false)
    }

    #[test]
    fn far_behind_asks_at_once_and_spreads_over_peers() {
        let mut machine = new(&[true, true]);
        machine.handle_height(at(0), peer(0), 100);
        machine.handle_height(at(0), peer(1), 100);
        let asks = ask(&mut machine, at(0), &chain(64));
        assert_eq!(asks.len(), 2);
        let mut numbers: Vec<u64> = asks.iter().flat_map(|ask| ask.numbers.clone()).collect();
        numbers.sort_unstable();
        assert_eq!(numbers, (1..9).collect::<Vec<_>>());
    }

    #[test]
    fn near_the_tip_a_push_gets_its_time() {
        let mut machine = new(&[true]);
        machine.handle_height(at(0), peer(0), 3);
        assert_eq!(ask(&mut machine, at(0), &chain(64)), vec![]);
        assert_eq!(machine.next_deadline(), Some(at(150)));
        assert_eq!(ask(&mut machine, at(150), &chain(64)), vec![Ask { peer: peer(0), numbers: vec![1, 2] }]);
    }

    #[test]
    fn numbers_held_or_arriving_are_not_asked_for() {
        let mut machine = new(&[true]);
        let mut chain = chain(64);
        chain.offer(AuthenticBlock::simulated(2, Digest([1; 32]), 10));
        machine.handle_height(at(0), peer(0), 20);
        let asks = machine.handle_timeout(at(0), &chain, |number| number == 3);
        assert_eq!(asks[0].numbers, vec![1, 4, 5, 6]);
    }

    #[test]
    fn a_huge_claim_hides_no_honest_source() {
        let mut machine = new(&[true, true]);
        machine.handle_height(at(0), peer(0), u64::MAX);
        machine.handle_height(at(0), peer(1), 3);
        let chain = chain(64);
        let first = ask(&mut machine, at(0), &chain);
        assert!(first.iter().all(|ask| ask.numbers.iter().all(|number| *number < 65)), "only the window");
        // The liar is silent; what it was asked for goes to the honest peer.
        for ask in &first {
            if ask.peer == peer(1) {
                ask.numbers.iter().for_each(|number| machine.handle_arrival(at(1), peer(1), *number));
            }
        }
        let second = ask(&mut machine, at(3_000), &chain);
        assert_eq!(machine.counters().timeouts, 1);
        let honest: Vec<u64> =
            second.iter().filter(|ask| ask.peer == peer(1)).flat_map(|ask| ask.numbers.clone()).collect();
        let served: Vec<u64> =
            first.iter().filter(|ask| ask.peer == peer(1)).flat_map(|ask| ask.numbers.clone()).collect();
        let mut all = [honest, served].concat();
        all.sort_unstable();
        all.dedup();
        assert!(all.is_empty() || all.iter().all(|number| *number < 3));
    }

    #[test]
    fn the_silent_rest_longer_each_time_and_never_for_ever() {
        let mut machine = new(&[true]);
        machine.handle_height(at(0), peer(0), 100);
        let chain = chain(64);
        let mut now = at(0);
        let mut waits = Vec::new();
        for _ in 0..6 {
            let start = now;
            while ask(&mut machine, now, &chain).is_empty() {
                now = machine.next_deadline().unwrap();
            }
            waits.push(now.since(start).as_millis());
            now = machine.next_deadline().unwrap().max(now + Duration::from_millis(1));
            while machine.sources[&peer(0)].asked.is_some() {
                ask(&mut machine, now, &chain);
                now = machine.next_deadline().unwrap();
            }
        }
        assert!(waits[5] >= waits[1] && waits[5] <= REST_MAX.as_millis(), "{waits:?}");
    }

    #[test]
    fn a_refusal_frees_the_numbers_for_others() {
        let mut machine = new(&[true, false]);
        machine.handle_height(at(0), peer(0), 4);
        machine.handle_height(at(0), peer(1), 4);
        let chain = chain(64);
        ask(&mut machine, at(0), &chain);
        let asks = ask(&mut machine, at(150), &chain);
        assert_eq!(asks, vec![Ask { peer: peer(0), numbers: vec![1, 2, 3] }], "own organisation first");
        machine.handle_refusal(at(160), peer(0), &[1, 2, 3]);
        let asks = ask(&mut machine, at(160), &chain);
        assert_eq!(asks, vec![Ask { peer: peer(1), numbers: vec![1, 2, 3] }]);
        assert_eq!(machine.counters().refused, 3);
    }

    #[test]
    fn a_lost_peer_frees_its_numbers() {
        let mut machine = new(&[true, false]);
        machine.handle_height(at(0), peer(0), 100);
        machine.handle_height(at(0), peer(1), 5);
        let chain = chain(64);
        ask(&mut machine, at(0), &chain);
        machine.handle_peer_gone(at(1), peer(0));
        machine.handle_arrival(at(1), peer(1), 0);
        let asks = ask(&mut machine, at(600), &chain);
        assert!(asks.iter().all(|ask| ask.peer == peer(1)));
    }

    #[test]
    fn with_state_transfer_off_only_digests_are_followed() {
        let mut machine = new(&[true]);
        machine.config.enabled = false;
        machine.handle_height(at(0), peer(0), 100);
        let chain = chain(64);
        assert_eq!(ask(&mut machine, at(0), &chain), vec![]);
        machine.handle_digest(at(1), peer(0), &[99, 120], &chain);
        machine.handle_digest(at(1), peer(0), &[1, 2], &chain);
        ask(&mut machine, at(1), &chain);
        let asks = ask(&mut machine, at(600), &chain);
        assert_eq!(asks, vec![Ask { peer: peer(0), numbers: vec![1, 2] }]);
    }

    #[test]
    fn digests_of_any_shape_stay_bounded() {
        let mut machine = new(&[true]);
        let chain = chain(u64::MAX);
        machine.handle_digest(at(0), peer(0), &[0, u64::MAX, 5, 3, u64::MAX, u64::MAX, 7], &chain);
        assert_eq!(machine.sources[&peer(0)].claimed.len(), CLAIMS_PER_PEER_MAX);
    }
}
