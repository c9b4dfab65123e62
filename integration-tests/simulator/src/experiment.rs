//! One protocol, many placements: what `run` measures.
//!
//! A *placement* is a seed: it says where everybody is, who is silent, who does not know whom, and decides all that is random in the run.
//! The leader is the first peer of each organisation; since places are drawn at random, so is its own. The same seed gives the same
//! placements to every protocol.
//!
//! Membership is converged and frozen, and reconciliation is off: what is measured is dissemination alone, and a block that it does not bring
//! is missed.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Mutex;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use grapevine_channels::dissemination::DisseminationMode;
use grapevine_channels::time::Time;
use rand::rngs::ChaCha8Rng;
use rand::seq::IteratorRandom;
use rand::{Rng, SeedableRng};

use crate::checker::Violation;
use crate::fault::Fault;
use crate::links::{Distance, GIGABIT, Latency, LinkSettings};
use crate::measured::Measured;
use crate::models::{self, Gossipsub, Plumtree, Stage, Star};
use crate::outcome::Outcome;
use crate::scenario::{Leadership, Scenario};
use crate::simulation::Simulation;
use crate::truth::{ChannelIndex, Site};

/// Distinguishes the randomness of choices from that of the run with the same seed.
const CHOICES_STREAM: u64 = 0x5e1f;
/// Longer than any run.
const NEVER: Duration = Duration::from_secs(1_000_000_000);

/// What spreads the blocks.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Protocol {
    /// Ours: real nodes.
    Grapevine,
    /// Fabric's gossip: real nodes in their mode of that name.
    Classic,
    /// Everybody gets every block from its source; the models say how.
    Star,
    /// libp2p's gossipsub.
    Gossipsub,
    /// Plumtree.
    Plumtree,
}

impl Protocol {
    /// Its name on the command line and in results.
    pub fn name(self) -> &'static str {
        match self {
            Self::Grapevine => "grapevine",
            Self::Classic => "classic",
            Self::Star => "star",
            Self::Gossipsub => "gossipsub",
            Self::Plumtree => "plumtree",
        }
    }
}

/// What is measured.
#[derive(Debug, Clone)]
pub struct Experiment {
    /// The protocol.
    pub protocol: Protocol,
    /// Peers of all organisations together, leaders included.
    pub peers: usize,
    /// Organisations of even size; models have one.
    pub organizations: usize,
    /// Channels that all organisations have joined; models have one.
    pub channels: usize,
    /// Bytes of a block.
    pub block_bytes: usize,
    /// Blocks in each channel.
    pub blocks: u64,
    /// Time between two of a channel.
    pub interval: Duration,
    /// How far apart peers are.
    pub distance: Distance,
    /// Bandwidth and faults of links.
    pub links: LinkSettings,
    /// Share of peers that accept everything and do nothing for others; leaders never.
    pub silent: f64,
    /// Share of peers that announce and never send.
    pub withholding: f64,
    /// Share of peers whose links are ten times slower.
    pub slow: f64,
    /// Each ordered pair: the first does not know the second, with this probability.
    pub views_off: f64,
    /// Members come and go by the membership protocol; else everybody knows everybody for ever, at no cost.
    pub live_membership: bool,
    /// Reconciliation is on: nothing is missed for good.
    pub reconciliation: bool,
    /// Channels that peers join by a fault only.
    pub joins_later: BTreeSet<(Site, ChannelIndex)>,
    /// How much faster each peer's clock runs than true time, in millionths.
    pub clock_drift_ppm: BTreeMap<Site, i32>,
    /// What goes wrong, and when; the first block is made after a second.
    pub faults: Vec<(Time, Fault)>,
    /// Placements.
    pub placements: u64,
    /// Decides everything that is random.
    pub seed: u64,
    /// How long after the last block a run waits for what is still missing.
    pub patience: Duration,
    /// Placements that are run at a time.
    pub threads: usize,
}

impl Default for Experiment {
    fn default() -> Self {
        Self {
            protocol: Protocol::Grapevine,
            peers: 20,
            organizations: 1,
            channels: 1,
            block_bytes: 160_000,
            blocks: 1,
            interval: Duration::from_millis(1_000),
            distance: Distance::Wan,
            links: LinkSettings::of_bandwidth(GIGABIT),
            silent: 0.0,
            withholding: 0.0,
            slow: 0.0,
            views_off: 0.0,
            live_membership: false,
            reconciliation: false,
            joins_later: BTreeSet::new(),
            clock_drift_ppm: BTreeMap::new(),
            faults: Vec::new(),
            placements: 20,
            seed: 1,
            patience: Duration::from_secs(10),
            threads: 1,
        }
    }
}

impl Experiment {
    /// Runs all placements. `progress` hears of every block that a leader holds.
    ///
    /// # Errors
    /// The first violation.
    pub fn run(&self, progress: impl Fn(u64) + Sync) -> Result<Outcome, Violation> {
        let placements = usize::try_from(self.placements).unwrap_or(usize::MAX);
        let next = AtomicUsize::new(0);
        let results: Mutex<Vec<Option<Result<Measured, Violation>>>> =
            Mutex::new((0..placements).map(|_| None).collect());
        std::thread::scope(|scope| {
            for _ in 0..self.threads.clamp(1, placements.max(1)) {
                scope.spawn(|| {
                    loop {
                        let place = next.fetch_add(1, Ordering::Relaxed);
                        if place >= placements {
                            return;
                        }
                        let result = self.place(place as u64, &progress);
                        let failed = result.is_err();
                        if let Ok(mut results) = results.lock() {
                            results[place] = Some(result);
                        }
                        if failed {
                            next.store(placements, Ordering::Relaxed);
                        }
                    }
                });
            }
        });
        let results = results.into_inner().unwrap_or_default();
        let measured: Result<Vec<Measured>, Violation> = results.into_iter().flatten().collect();
        Ok(Outcome::of(self, &measured?))
    }

    /// Runs one placement.
    ///
    /// # Errors
    /// The first violation.
    pub fn place(&self, placement: u64, progress: impl Fn(u64)) -> Result<Measured, Violation> {
        let seed = self.seed_of(placement);
        match self.protocol {
            Protocol::Grapevine | Protocol::Classic => {
                Simulation::new(self.scenario(seed), seed)?.measure(self.patience, progress)
            }
            Protocol::Star => Ok(models::run(self.stage(seed), Star, progress)),
            Protocol::Gossipsub => Ok(models::run(self.stage(seed), Gossipsub::default(), progress)),
            Protocol::Plumtree => Ok(models::run(self.stage(seed), Plumtree::default(), progress)),
        }
    }

    /// The seed of a placement: far from those of its neighbours.
    pub fn seed_of(&self, placement: u64) -> u64 {
        ChaCha8Rng::seed_from_u64(self.seed ^ placement.wrapping_mul(0x9e37_79b9_7f4a_7c15)).next_u64()
    }

    /// Peers of each organisation.
    fn sizes(&self) -> Vec<usize> {
        let organizations = self.organizations.max(1);
        (0..organizations)
            .map(|number| self.peers / organizations + usize::from(number < self.peers % organizations))
            .collect()
    }

    /// A share of all peers, leaders spared.
    fn choose(&self, share: f64, rng: &mut ChaCha8Rng) -> BTreeSet<Site> {
        let mut leaders = BTreeSet::new();
        let mut first = 0;
        for size in self.sizes() {
            leaders.insert(first);
            first += size;
        }
        let count = (share * self.peers as f64).round() as usize;
        (0..self.peers).filter(|site| !leaders.contains(site)).sample(rng, count).into_iter().collect()
    }

    /// Silent, withholding and slow peers of a placement.
    fn choices(&self, seed: u64) -> [BTreeSet<Site>; 3] {
        let mut rng = ChaCha8Rng::seed_from_u64(seed ^ CHOICES_STREAM);
        [self.silent, self.withholding, self.slow].map(|share| self.choose(share, &mut rng))
    }

    fn links(&self, slow: &BTreeSet<Site>) -> LinkSettings {
        let mut links = self.links.clone();
        links.slow.extend(slow.iter().map(|site| (*site, 10.0)));
        links
    }

    /// The network of real nodes of a placement.
    pub fn scenario(&self, seed: u64) -> Scenario {
        let mut scenario = Scenario::sized(&self.sizes()).led_by(Leadership::Static(0));
        let all: Vec<usize> = (0..scenario.organizations.len()).collect();
        for channel in 1..self.channels {
            scenario = scenario.with_channel(&format!("trade{channel}"), &all);
        }
        let [silent, withholding, slow] = self.choices(seed);
        (scenario.warm, scenario.frozen) = (true, !self.live_membership);
        scenario.joins_later = self.joins_later.clone();
        scenario.clock_drift_ppm = self.clock_drift_ppm.clone();
        scenario.faults = self.faults.clone();
        scenario.silent = silent;
        scenario.withholding = withholding;
        scenario.links = self.links(&slow);
        scenario.views_off = self.views_off;
        scenario.distance = self.distance;
        scenario.blocks = self.blocks;
        scenario.block_bytes = self.block_bytes;
        scenario.block_interval = self.interval;
        scenario.first_block = Time::from_millis(1_000);
        let settings = &mut scenario.settings;
        if self.protocol == Protocol::Classic {
            settings.dissemination.mode = DisseminationMode::Classic;
            settings.dissemination.propagate_peer_num = 3;
            settings.dissemination.pull_interval = Duration::from_secs(4);
            settings.dissemination.pull_peer_num = 3;
        }
        if !self.live_membership {
            settings.alive_interval = NEVER;
            settings.alive_expiration = NEVER;
            settings.reconnect_interval = NEVER;
        }
        settings.reconciliation.enabled = self.reconciliation;
        if self.protocol == Protocol::Classic {
            settings.publish_state_info_interval = Duration::from_secs(4);
        }
        scenario
    }

    /// What a model of a placement runs in.
    fn stage(&self, seed: u64) -> Stage {
        let [silent, withholding, slow] = self.choices(seed);
        let settings = crate::scenario::Settings::default();
        Stage {
            peers: self.peers,
            latency: Latency::of(self.distance, self.peers + 1, seed),
            links: self.links(&slow),
            blocks: self.blocks,
            block_bytes: self.block_bytes,
            interval: self.interval,
            silent: silent.union(&withholding).copied().collect(),
            verify_cost: settings.verify_cost,
            verify_cost_per_mb: settings.verify_cost_per_mb,
            patience: self.patience,
            seed,
        }
    }
}
