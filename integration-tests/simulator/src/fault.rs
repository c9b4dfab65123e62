//! What goes wrong.

use std::time::Duration;

use grapevine_channels::node::Input;
use grapevine_channels::time::Time;
use rand::rngs::ChaCha8Rng;
use rand::{RngExt, SeedableRng};

use crate::checker::Check;
use crate::event::{Event, HostEvent, SessionId};
use crate::links::Distance;
use crate::scenario::Scenario;
use crate::simulation::{Cause, Kind, Simulation};
use crate::truth::{ChannelIndex, Site};

/// Whom a fault hits.
#[derive(Debug, Clone, Copy, PartialEq, Eq, serde::Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Target {
    /// This peer.
    Peer(Site),
    /// Whoever leads an organisation in a channel then; nobody if nobody does.
    Leader {
        /// The organisation.
        organization: usize,
        /// The channel.
        channel: ChannelIndex,
    },
}

/// A change of the world.
#[derive(Debug, Clone, PartialEq, Eq, serde::Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Fault {
    /// The process is killed; ledger and incarnation stay.
    Crash(Target),
    /// The process stops in order: leadership is handed over first.
    Stop(Target),
    /// A crashed peer starts; nothing if it runs.
    Restart(Site),
    /// All crashed peers start.
    RestartAll,
    /// A crashed peer loses its disk: ledger and incarnation are gone.
    Wipe(Site),
    /// The process stands still.
    Pause(Target),
    /// It goes on; nothing if it runs.
    Resume(Site),
    /// All paused peers go on.
    ResumeAll,
    /// Nothing gets from one site to the other any more; the other way may be open.
    Cut(Site, Site),
    /// Messages get from one site to the other again.
    Heal(Site, Site),
    /// These sites and the rest are cut off from each other.
    Partition(Vec<Site>),
    /// All cuts end.
    HealAll,
    /// The orderer's process is killed; its chain stays.
    OrdererStop,
    /// It starts.
    OrdererStart,
    /// A peer joins a channel.
    Join(Site, ChannelIndex),
    /// A peer leaves a channel; its ledger stays.
    Leave(Site, ChannelIndex),
    /// A peer's links get slower by a factor, in tenths; 10 is full speed.
    Slow(Site, u32),
}

impl Fault {
    /// What does not exist in a network of so many peers, organisations and channels, if the fault names such a thing. Links reach
    /// the orderer too, whose number follows the last peer's.
    pub(crate) fn names_unknown(
        &self,
        peers: usize,
        organizations: usize,
        channels: usize,
    ) -> Option<String> {
        let unknown = |site: Site, end: usize| (site >= end).then(|| format!("there is no peer {site}"));
        let no_channel = |channel| (channel >= channels).then(|| format!("there is no channel {channel}"));
        match self {
            Self::Crash(target) | Self::Stop(target) | Self::Pause(target) => match target {
                Target::Peer(site) => unknown(*site, peers),
                Target::Leader { organization, .. } if *organization >= organizations => {
                    Some(format!("there is no organisation {organization}"))
                }
                Target::Leader { channel, .. } => no_channel(*channel),
            },
            Self::Restart(site) | Self::Wipe(site) | Self::Resume(site) => unknown(*site, peers),
            Self::Slow(_, 0) => Some("a link can't be slower by nothing: 10 is full speed".into()),
            Self::Slow(site, _) => unknown(*site, peers),
            Self::Cut(from, to) | Self::Heal(from, to) => unknown(*from.max(to), peers + 1),
            Self::Partition(sites) => sites.iter().find_map(|site| unknown(*site, peers + 1)),
            Self::Join(site, channel) | Self::Leave(site, channel) => {
                unknown(*site, peers).or_else(|| no_channel(*channel))
            }
            Self::RestartAll | Self::ResumeAll | Self::HealAll | Self::OrdererStop | Self::OrdererStart => {
                None
            }
        }
    }
}

/// A schedule of faults from a seed: for `duration` from `start` something breaks or is mended every two seconds or so; then
/// all is mended.
pub fn random_faults(scenario: &Scenario, seed: u64, start: Time, duration: Duration) -> Vec<(Time, Fault)> {
    let mut rng = ChaCha8Rng::seed_from_u64(seed ^ 0xfa17);
    let mut faults = Vec::new();
    let end = start + duration;
    let mut now = start;
    while now < end {
        faults.push((now, random_fault(scenario, &mut rng)));
        now = now + Duration::from_millis(rng.random_range(50..4_000));
    }
    let mends = [Fault::HealAll, Fault::ResumeAll, Fault::OrdererStart, Fault::RestartAll];
    let joins = members(scenario).into_iter().map(|(peer, channel)| Fault::Join(peer, channel));
    faults.extend(mends.into_iter().chain(joins).map(|fault| (end, fault)));
    faults
}

/// Every peer with every channel of its organisation.
fn members(scenario: &Scenario) -> Vec<(Site, ChannelIndex)> {
    let mut members = Vec::new();
    for (channel, plan) in scenario.channels.iter().enumerate() {
        for organization in &plan.organizations {
            let first = scenario.first_of(*organization);
            let peers =
                scenario.organizations.get(*organization).map_or(0, |organization| organization.peers);
            members.extend((first..first + peers).map(|peer| (peer, channel)));
        }
    }
    members
}

/// A network of random shape under random faults, all from one seed.
pub fn chaos(seed: u64) -> Scenario {
    let mut rng = ChaCha8Rng::seed_from_u64(seed ^ 0xc405);
    let sizes: Vec<usize> = (0..rng.random_range(1..=3)).map(|_| rng.random_range(1..=4)).collect();
    let mut scenario = Scenario::sized(&sizes).with_channel("audit", &[0]);
    scenario.blocks = rng.random_range(20..200);
    scenario.block_interval = Duration::from_millis(rng.random_range(50..400));
    scenario.settings.disk_cost = Duration::from_millis(rng.random_range(1..40));
    scenario.distance = match rng.random_range(0..3) {
        0 => Distance::Lan,
        1 => Distance::Wan,
        _ => Distance::Uniform(Duration::from_millis(rng.random_range(1..200))),
    };
    if rng.random_bool(0.25) {
        scenario.forgers.insert(rng.random_range(0..scenario.peers()));
    }
    // Short enough for breaks by silence within a run.
    scenario.settings.broken_after = Duration::from_secs(rng.random_range(4..31));
    let start = Time::from_millis(rng.random_range(0..6_000));
    let duration = Duration::from_secs(rng.random_range(5..60));
    scenario.faults = random_faults(&scenario, seed, start, duration);
    scenario
}

fn random_fault(scenario: &Scenario, rng: &mut ChaCha8Rng) -> Fault {
    let peers = scenario.peers();
    let site = rng.random_range(0..peers);
    // The orderer is one more site for cuts.
    let (from, to) = (rng.random_range(0..=peers), rng.random_range(0..=peers));
    let leader = Target::Leader {
        organization: rng.random_range(0..scenario.organizations.len()),
        channel: rng.random_range(0..scenario.channels.len()),
    };
    let target = if rng.random_bool(0.5) { leader } else { Target::Peer(site) };
    let members = members(scenario);
    let (peer, channel) = members[rng.random_range(0..members.len())];
    match rng.random_range(0..19) {
        0 | 1 => Fault::Crash(target),
        2 => Fault::Stop(target),
        3 | 4 => Fault::Restart(site),
        5 => Fault::RestartAll,
        6 | 7 => Fault::Pause(target),
        8 => Fault::Resume(site),
        9 => Fault::ResumeAll,
        10 | 11 => Fault::Cut(from, to),
        12 => Fault::Partition((0..=peers).filter(|_| rng.random_bool(0.4)).collect()),
        13 => Fault::HealAll,
        14 => Fault::OrdererStop,
        15 => Fault::Wipe(site),
        16 => Fault::Leave(peer, channel),
        17 => Fault::Join(peer, channel),
        _ => Fault::OrdererStart,
    }
}

impl Simulation {
    pub(crate) fn fault(&mut self, fault: Fault) -> Check {
        self.measurements.trace(self.now, 0, 0, Kind::Fault as u8, 0);
        match fault {
            Fault::Crash(target) => {
                if let Some(peer) = self.target(target) {
                    self.crash(peer);
                }
            }
            Fault::Stop(target) => {
                // A paused process does not hear the signal.
                if let Some(peer) = self.target(target).filter(|peer| self.hosts[*peer].is_running()) {
                    self.feed(peer, Cause::Other, Input::Shutdown)?;
                    self.crash(peer);
                }
            }
            Fault::Restart(peer) => self.boot(peer)?,
            Fault::RestartAll => (0..self.hosts.len()).try_for_each(|peer| self.boot(peer))?,
            Fault::Wipe(peer) if self.hosts[peer].node.is_none() => {
                let host = &mut self.hosts[peer];
                host.ledgers.iter_mut().for_each(Vec::clear);
                host.incarnation = 0;
                host.wipes += 1;
                self.checker.wiped(peer);
            }
            Fault::Wipe(_) => {}
            Fault::Pause(target) => {
                if let Some(peer) = self.target(target).filter(|peer| self.hosts[*peer].node.is_some()) {
                    self.hosts[peer].paused = true;
                }
            }
            Fault::Resume(peer) => self.resume(peer)?,
            Fault::ResumeAll => (0..self.hosts.len()).try_for_each(|peer| self.resume(peer))?,
            Fault::Cut(from, to) => self.cut(from, to),
            Fault::Heal(from, to) => self.heal(from, to),
            Fault::Partition(side) => {
                for one in 0..=self.truth.orderer() {
                    for other in
                        (0..=self.truth.orderer()).filter(|other| side.contains(&one) != side.contains(other))
                    {
                        self.cut(one, other);
                    }
                }
            }
            Fault::HealAll => {
                for (from, to) in self.network.cuts() {
                    self.heal(from, to);
                }
            }
            Fault::OrdererStop => self.orderer_stops(),
            Fault::OrdererStart => self.orderer.up = true,
            Fault::Join(peer, channel) => self.join(peer, channel)?,
            Fault::Slow(peer, tenths) => self.wire.slow_down(peer, f64::from(tenths) / 10.0),
            Fault::Leave(peer, channel) => {
                let host = &mut self.hosts[peer];
                host.joined.remove(&channel);
                // As the process would that stops writing: what is not on disk yet is lost.
                host.disk_waiting.retain(|(of, _)| *of != channel);
                if let Some(writing) = &mut host.disk_writing {
                    writing.retain(|(of, _)| *of != channel);
                }
                self.stop_pulling(peer, channel);
                self.board.gone(peer, Some(channel));
                let id = self.truth.channels[channel].id.clone();
                self.feed(peer, Cause::Other, Input::Leave(id))?;
            }
        }
        Ok(())
    }

    pub(crate) fn target(&self, target: Target) -> Option<Site> {
        match target {
            Target::Peer(peer) => Some(peer),
            Target::Leader { organization, channel } => {
                let id = &self.truth.channels[channel].id;
                (0..self.hosts.len()).find(|peer| {
                    self.truth.peers[*peer].organization == organization
                        && self.hosts[*peer].is_running()
                        && self.hosts[*peer].node.as_ref().is_some_and(|node| node.is_leader(id))
                })
            }
        }
    }

    fn crash(&mut self, peer: Site) {
        for (other, id) in self.network.connected_to(peer) {
            self.network.close_at(peer, id);
            self.hang_up(peer, other, id);
        }
        let channels: Vec<ChannelIndex> = self.hosts[peer].pullers.keys().copied().collect();
        for channel in channels {
            self.stop_pulling(peer, channel);
        }
        self.wire.clear(peer);
        self.board.gone(peer, None);
        self.hosts[peer].crash();
    }

    fn resume(&mut self, peer: Site) -> Check {
        let host = &mut self.hosts[peer];
        if host.paused {
            host.resumed_at = self.now;
        }
        host.paused = false;
        for event in std::mem::take(&mut host.inbox) {
            self.host_event(peer, event)?;
        }
        Ok(())
    }

    fn cut(&mut self, from: Site, to: Site) {
        if from == to {
            return;
        }
        let broken_after = self.scenario.settings.broken_after;
        if let Some((connection, direction)) = self.network.cut(from, to, self.now) {
            let event = Event::Silence { connection, direction, since: self.now };
            self.queue.push(self.now + broken_after, event);
        }
        let orderer = self.truth.orderer();
        if from == orderer || to == orderer {
            let peer = if from == orderer { to } else { from };
            let sessions: Vec<(ChannelIndex, SessionId)> =
                self.hosts[peer].pullers.iter().map(|(channel, puller)| (*channel, puller.session)).collect();
            for (channel, session) in sessions {
                self.later(broken_after, peer, HostEvent::DeliverSilent { channel, session });
            }
        }
    }

    fn heal(&mut self, from: Site, to: Site) {
        if let Some((id, waited)) = self.network.heal(from, to) {
            for message in waited {
                self.send(from, to, id, message);
            }
        }
        if from == self.truth.orderer() {
            self.pump_all(None);
        }
    }
}
