//! Trials of membership and leadership: one question each, one number for an answer.
//!
//! A trial runs a network over wide-area links up to the moment in question and takes the time, or counts. The safety checks of
//! every run are on, whether a run settles is the trial's own business.

use std::collections::BTreeMap;
use std::time::Duration;

use grapevine_channels::membership::MemberState;
use grapevine_channels::time::Time;
use rand::rngs::ChaCha8Rng;
use rand::{RngExt, SeedableRng};

use crate::checker::Violation;
use crate::fault::{Fault, Target};
use crate::links::Distance;
use crate::scenario::Scenario;
use crate::simulation::Simulation;
use crate::truth::Site;

/// Time between two looks at the network.
const LOOK_INTERVAL: Duration = Duration::from_millis(10);
/// When the network has found itself and something happens.
const BEGIN: Time = Time::from_millis(12_000);
/// A block of 10 KB comes in this interval.
const BLOCK_INTERVAL: Duration = Duration::from_millis(200);
/// A trial that takes longer has failed.
const LONGEST: Duration = Duration::from_secs(60);
/// How long after its last pause a peer counts as healthy.
pub(crate) const HEALTHY_AFTER: Duration = Duration::from_secs(2);

const LEADER: Target = Target::Leader { organization: 0, channel: 0 };

/// How a peer goes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Death {
    /// The process dies; its connections close.
    Killed,
    /// The process stops in order.
    Stopped,
    /// Nothing is heard of it any more.
    Silent,
}

/// The longest time any other peer goes without a new block when the leader of `peers` goes.
///
/// # Errors
/// A violation, or blocks that stay away.
pub fn leader_gap(peers: usize, death: Death, seed: u64) -> Result<Duration, Violation> {
    let mut trial = Trial::new(with_blocks(peers), seed)?;
    trial.advance(BEGIN)?;
    let Some(leader) = trial.simulation.target(LEADER) else { return Err(trial.failed("nobody leads")) };
    trial.kill(leader, death)?;
    let mut last: BTreeMap<Site, (u64, Time)> = BTreeMap::new();
    let mut gap = Duration::ZERO;
    while trial.simulation.now < BEGIN + Duration::from_secs(8) {
        let now = trial.simulation.now;
        for peer in (0..peers).filter(|peer| *peer != leader) {
            let height = trial.simulation.hosts[peer].height(0);
            let known = last.entry(peer).or_insert((height, now));
            gap = gap.max(now.since(known.1));
            if height > known.0 {
                *known = (height, now);
            }
        }
        trial.advance(now + LOOK_INTERVAL)?;
    }
    Ok(gap)
}

/// How long it takes until all others hold a peer for dead that went.
///
/// # Errors
/// A violation, or somebody who never notices.
pub fn death_noticed(peers: usize, death: Death, seed: u64) -> Result<Duration, Violation> {
    let mut trial = Trial::new(quiet(peers), seed)?;
    trial.advance(BEGIN)?;
    let gone = usize::try_from(seed).unwrap_or_default() % peers;
    trial.kill(gone, death)?;
    trial.until("noticed the death", |simulation| {
        (0..peers)
            .filter(|peer| *peer != gone)
            .all(|peer| state(simulation, peer, gone) == Some(MemberState::Dead))
    })
}

/// How long it takes until a new member and all others know each other, from its start.
///
/// # Errors
/// A violation, or views that stay different.
pub fn joined(peers: usize, seed: u64) -> Result<Duration, Violation> {
    let newcomer = peers - 1;
    let mut scenario = quiet(peers);
    scenario.starts.insert(newcomer, BEGIN);
    let mut trial = Trial::new(scenario, seed)?;
    trial.advance(BEGIN)?;
    trial.until("knew the new member and were known to it", |simulation| {
        (0..newcomer).all(|peer| {
            state(simulation, peer, newcomer) == Some(MemberState::Alive)
                && state(simulation, newcomer, peer) == Some(MemberState::Alive)
        })
    })
}

/// How long it takes until peers that start at once all know each other.
///
/// # Errors
/// A violation, or views that stay different.
pub fn started_together(peers: usize, seed: u64) -> Result<Duration, Violation> {
    let mut trial = Trial::new(quiet(peers), seed)?;
    trial.until("all knew each other", |simulation| {
        (0..peers).all(|peer| {
            let node = simulation.hosts[peer].node.as_ref();
            let members = node.map(|node| node.membership().members());
            members.is_some_and(|members| {
                members.len() + 1 == peers
                    && members.values().all(|member| member.state == MemberState::Alive)
            })
        })
    })
}

/// Bytes of control frames that a peer of an idle network receives a second.
///
/// # Errors
/// A violation.
pub fn idle_bytes(peers: usize, length: Duration, seed: u64) -> Result<f64, Violation> {
    let mut trial = Trial::new(quiet(peers), seed)?;
    trial.advance(BEGIN + Duration::from_secs(20))?;
    let (start, before) = (trial.simulation.now, trial.simulation.measurements.control_bytes_received);
    trial.advance(start + length)?;
    let received = trial.simulation.measurements.control_bytes_received - before;
    Ok(received as f64 / length.as_secs_f64() / peers as f64)
}

/// How often a healthy peer is declared dead while a tenth of the peers stand still now and then for 1 to 30 s.
///
/// # Errors
/// A violation.
pub fn healthy_declared_dead(peers: usize, length: Duration, seed: u64) -> Result<u64, Violation> {
    let mut rng = ChaCha8Rng::seed_from_u64(seed ^ 0x9a05);
    let mut scenario = quiet(peers);
    for peer in 0..peers.div_ceil(10) {
        let mut at = BEGIN;
        while at < BEGIN + length {
            at = at + Duration::from_millis(rng.random_range(2_000..60_000));
            scenario.faults.push((at, Fault::Pause(Target::Peer(peer))));
            at = at + Duration::from_millis(rng.random_range(1_000..30_000));
            scenario.faults.push((at, Fault::Resume(peer)));
        }
    }
    let mut trial = Trial::new(scenario, seed)?;
    trial.advance(BEGIN + length)?;
    Ok(trial.simulation.measurements.healthy_declared_dead)
}

/// How long it takes five peers, after these one-way cuts of ten seconds heal, until one leads all and all have all blocks.
///
/// # Errors
/// A violation, or a network that does not find itself.
pub fn healed(cuts: &[(Site, Site)], seed: u64) -> Result<Duration, Violation> {
    const PEERS: usize = 5;
    let mut scenario = with_blocks(PEERS);
    scenario.blocks = 100;
    let heals = BEGIN + Duration::from_secs(10);
    for (from, to) in cuts {
        scenario = scenario.at(12_000, Fault::Cut(*from, *to));
    }
    scenario.faults.push((heals, Fault::HealAll));
    let mut trial = Trial::new(scenario, seed)?;
    trial.advance(heals)?;
    trial.until("one leader and equal heights", |simulation| {
        let nodes = || simulation.hosts.iter().filter_map(|host| host.node.as_ref());
        let id = &simulation.truth.channels[0].id;
        let mut leaders = nodes().map(|node| node.leader(id).map(|term| term.leader));
        let first = leaders.next().flatten();
        // Blocks go on coming: who is no more than one behind has what has had the time to come.
        let heights = || simulation.hosts.iter().map(|host| host.height(0));
        let level = heights().max().unwrap_or(0) - heights().min().unwrap_or(0) <= 1
            && heights().max().unwrap_or(0) + 2 >= simulation.orderer.height(0);
        first.is_some()
            && leaders.all(|leader| leader == first)
            && nodes().filter(|node| node.is_leader(id)).count() == 1
            && level
    })
}

fn quiet(peers: usize) -> Scenario {
    let mut scenario = Scenario::network(1, peers);
    scenario.distance = Distance::Wan;
    // Never done, so that no run is judged for settling, and none ends.
    scenario.blocks = u64::MAX;
    scenario.first_block = BEGIN + Duration::from_secs(1_000_000);
    scenario
}

fn with_blocks(peers: usize) -> Scenario {
    let mut scenario = quiet(peers);
    scenario.block_bytes = 10_000;
    scenario.block_interval = BLOCK_INTERVAL;
    scenario.first_block = Time::from_millis(8_000);
    scenario
}

fn state(simulation: &Simulation, peer: Site, other: Site) -> Option<MemberState> {
    let membership = simulation.hosts[peer].node.as_ref()?.membership();
    membership.member(&simulation.truth.peers[other].credential.pki_id).map(|member| member.state)
}

struct Trial {
    simulation: Simulation,
}

impl Trial {
    fn new(scenario: Scenario, seed: u64) -> Result<Self, Violation> {
        Ok(Self { simulation: Simulation::new(scenario, seed)? })
    }

    fn failed(&self, what: &str) -> Violation {
        Violation { seed: self.simulation.seed, at: self.simulation.now, what: what.to_owned() }
    }

    /// Lets happen what happens until then.
    fn advance(&mut self, until: Time) -> Result<(), Violation> {
        while self.simulation.queue.next().is_some_and(|at| at <= until) {
            let stepped = self.simulation.step();
            stepped.map_err(|what| self.failed(&what))?;
        }
        self.simulation.now = until;
        Ok(())
    }

    fn kill(&mut self, peer: Site, death: Death) -> Result<(), Violation> {
        let fault = match death {
            Death::Killed => Fault::Crash(Target::Peer(peer)),
            Death::Stopped => Fault::Stop(Target::Peer(peer)),
            Death::Silent => Fault::Partition(vec![peer]),
        };
        self.simulation.fault(fault).map_err(|what| self.failed(&what))
    }

    /// The time until it is so.
    fn until(&mut self, what: &str, so: impl Fn(&Simulation) -> bool) -> Result<Duration, Violation> {
        let start = self.simulation.now;
        while !so(&self.simulation) {
            if self.simulation.now.since(start) > LONGEST {
                return Err(self.failed(&format!("not within {LONGEST:?}: {what}")));
            }
            self.advance(self.simulation.now + LOOK_INTERVAL)?;
        }
        Ok(self.simulation.now.since(start))
    }
}
