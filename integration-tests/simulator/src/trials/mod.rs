//! Trials of membership and leadership: one question each, one number for an answer.
//!
//! A trial runs a network over wide-area links (2 ms + 60 ms × distance, 1 Gbit/s a peer) up to the moment in question and takes the time, or
//! counts. The safety checks of every run are on, whether a run settles is the trial's own business.

mod leaders;
mod members;

use std::time::Duration;

use grapevine_channels::membership::MemberState;
use grapevine_channels::time::Time;

pub use leaders::{CommonStart, cuts, healed, leader_gap, rejoin_gap, started_leaders};
pub use members::{death_noticed, healthy_declared_dead, idle_bytes, joined, started_together};

use crate::checker::Violation;
use crate::fault::{Fault, Target};
use crate::links::{Distance, LinkSettings};
use crate::scenario::Scenario;
use crate::simulation::Simulation;
use crate::truth::Site;

/// Time between two looks at the network.
const LOOK_INTERVAL: Duration = Duration::from_millis(10);
/// When the network has been up for a while and something happens.
const BEGIN: Time = Time::from_millis(6_000);
/// A block of 10 KB comes in this interval.
const BLOCK_INTERVAL: Duration = Duration::from_millis(200);
/// A trial that takes longer has failed.
const LONGEST: Duration = Duration::from_secs(60);
/// Bytes a second of a peer's link.
const LINK: u64 = 125_000_000;
/// How long after its last pause a peer counts as healthy.
pub(crate) const HEALTHY_AFTER: Duration = Duration::from_secs(2);

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

fn quiet(peers: usize) -> Scenario {
    let mut scenario = Scenario::network(1, peers);
    scenario.distance = Distance::Wan;
    scenario.links = LinkSettings::of_bandwidth(LINK);
    // Never done, so that no run is judged for settling, and none ends.
    scenario.blocks = u64::MAX;
    scenario.first_block = BEGIN + Duration::from_secs(1_000_000);
    scenario
}

fn with_blocks(peers: usize, first_block: Time) -> Scenario {
    let mut scenario = quiet(peers);
    scenario.block_bytes = 10_000;
    scenario.block_interval = BLOCK_INTERVAL;
    scenario.first_block = first_block;
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
        while self.simulation.next_event().is_some_and(|at| at <= until) {
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
