//! Trials of leadership: does the flow of blocks go on.

use std::collections::BTreeMap;
use std::time::Duration;

use grapevine_channels::time::Time;
use rand::rngs::ChaCha8Rng;
use rand::{RngExt, SeedableRng};

use super::{BEGIN, BLOCK_INTERVAL, Death, LOOK_INTERVAL, Trial, with_blocks};
use crate::checker::Violation;
use crate::fault::{Fault, Target};
use crate::simulation::Simulation;
use crate::truth::{Site, Truth};

const LEADER: Target = Target::Leader { organization: 0, channel: 0 };
/// Blocks flow from here on.
const FIRST_BLOCK: Time = Time::from_millis(5_000);
/// How long gaps are looked for at least, and at most while one is open.
const WATCHED: [Duration; 2] = [Duration::from_secs(3), Duration::from_secs(10)];
/// A peer that has waited no longer than this for a block waits as always.
const USUAL: Duration = Duration::from_millis(2 * BLOCK_INTERVAL.as_millis() as u64);
/// Blocks that a peer lacks when it comes back.
const HISTORY: u64 = 100_000;

/// The longest time any other peer goes without a new block when the leader of `peers` goes.
///
/// # Errors
/// A violation.
pub fn leader_gap(peers: usize, death: Death, seed: u64) -> Result<Duration, Violation> {
    let mut trial = Trial::new(with_blocks(peers, FIRST_BLOCK), seed)?;
    trial.advance(BEGIN)?;
    let Some(leader) = trial.simulation.target(LEADER) else { return Err(trial.failed("nobody leads")) };
    trial.kill(leader, death)?;
    trial.longest_gap(leader)
}

/// The longest time any other of `peers` goes without a new block when the peer of lowest PKI-ID comes back with an empty ledger and lacks 100,000
/// blocks.
///
/// # Errors
/// A violation, or a peer that leads though it is behind.
pub fn rejoin_gap(peers: usize, seed: u64) -> Result<Duration, Violation> {
    let mut scenario = with_blocks(peers, FIRST_BLOCK);
    scenario.history = HISTORY;
    let truth = Truth::new(&scenario).map_err(|what| Violation { seed, at: Time::ZERO, what })?;
    let lowest = (0..peers).min_by_key(|peer| truth.peers[*peer].credential.pki_id).unwrap_or_default();
    scenario.behind.insert(lowest);
    scenario.starts.insert(lowest, BEGIN);
    let mut trial = Trial::new(scenario, seed)?;
    trial.advance(BEGIN)?;
    let gap = trial.longest_gap(lowest)?;
    if trial.simulation.measurements.leaders.contains(&lowest) {
        return Err(trial.failed("the peer that is behind led"));
    }
    Ok(gap)
}

/// What a common start comes to.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct CommonStart {
    /// Peers that ever led.
    pub leaders: usize,
    /// Bytes that the orderer sent ÷ bytes of the blocks it made.
    pub orderer_egress_blocks: f64,
}

/// Peers start within half a second of each other while blocks are made already; half a minute of that.
///
/// # Errors
/// A violation, or other than one leader at the end.
pub fn started_leaders(peers: usize, seed: u64) -> Result<CommonStart, Violation> {
    let mut rng = ChaCha8Rng::seed_from_u64(seed ^ 0x57a7);
    let mut scenario = with_blocks(peers, Time::from_millis(500));
    for peer in 0..peers {
        scenario.starts.insert(peer, Time::from_millis(rng.random_range(0..500)));
    }
    let mut trial = Trial::new(scenario, seed)?;
    trial.advance(Time::from_millis(30_000))?;
    let Simulation { measurements, orderer, scenario, .. } = &trial.simulation;
    let made = orderer.height(0).saturating_sub(1) as f64 * scenario.block_bytes as f64;
    let start = CommonStart {
        leaders: measurements.leaders.len(),
        orderer_egress_blocks: measurements.orderer_bytes_sent as f64 / made,
    };
    if has_one_leader(&trial.simulation) { Ok(start) } else { Err(trial.failed("not one leader")) }
}

/// All sets of one-way cuts among five peers that are tried: every single one, and every pair.
pub fn cuts() -> Vec<Vec<(Site, Site)>> {
    let ends = (0..5).flat_map(|from| (0..5).map(move |to| (from, to)));
    let directions: Vec<(Site, Site)> = ends.filter(|(from, to)| from != to).collect();
    let mut cuts: Vec<Vec<(Site, Site)>> = directions.iter().map(|cut| vec![*cut]).collect();
    for (index, one) in directions.iter().enumerate() {
        cuts.extend(directions.iter().skip(index + 1).map(|other| vec![*one, *other]));
    }
    cuts
}

/// How long it takes five peers, after these one-way cuts of ten seconds heal, until one leads all and all have all blocks.
///
/// # Errors
/// A violation, or a network that does not find itself.
pub fn healed(cuts: &[(Site, Site)], seed: u64) -> Result<Duration, Violation> {
    let mut scenario = with_blocks(5, FIRST_BLOCK);
    let heals = BEGIN + Duration::from_secs(10);
    scenario.faults.extend(cuts.iter().map(|(from, to)| (BEGIN, Fault::Cut(*from, *to))));
    scenario.faults.push((heals, Fault::HealAll));
    let mut trial = Trial::new(scenario, seed)?;
    trial.advance(heals)?;
    trial.until("one leader and equal heights", |simulation| {
        // Blocks go on coming: who is no more than one behind has what has had the time to come.
        let heights = || simulation.hosts.iter().map(|host| host.height(0));
        let level = heights().max().unwrap_or(0) - heights().min().unwrap_or(0) <= 1
            && heights().max().unwrap_or(0) + 2 >= simulation.orderer.height(0);
        level && has_one_leader(simulation)
    })
}

/// Whether exactly one peer leads and all that run follow it.
fn has_one_leader(simulation: &Simulation) -> bool {
    let nodes = || simulation.hosts.iter().filter_map(|host| host.node.as_ref());
    let id = &simulation.truth.channels[0].id;
    let mut leaders = nodes().map(|node| node.leader(id).map(|term| term.leader));
    let first = leaders.next().flatten();
    first.is_some()
        && leaders.all(|leader| leader == first)
        && nodes().filter(|node| node.is_leader(id)).count() == 1
}

impl Trial {
    /// The longest time from here that any peer but one goes without a new block.
    fn longest_gap(&mut self, but: Site) -> Result<Duration, Violation> {
        let start = self.simulation.now;
        let mut last: BTreeMap<Site, (u64, Time)> = BTreeMap::new();
        let mut gap = Duration::ZERO;
        loop {
            let now = self.simulation.now;
            let mut open = Duration::ZERO;
            for peer in (0..self.simulation.hosts.len()).filter(|peer| *peer != but) {
                let height = self.simulation.hosts[peer].height(0);
                let known = last.entry(peer).or_insert((height, now));
                open = open.max(now.since(known.1));
                if height > known.0 {
                    *known = (height, now);
                }
            }
            gap = gap.max(open);
            let watched = now.since(start);
            if watched >= WATCHED[1] || (watched >= WATCHED[0] && open <= USUAL) {
                return Ok(gap);
            }
            self.advance(now + LOOK_INTERVAL)?;
        }
    }
}
