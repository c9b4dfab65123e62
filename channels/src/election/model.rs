//! Every run of small networks: the machine itself, driven through all orders and losses of messages.
//!
//! A state holds the machines, the messages under way and the time to the next deadline. A step delivers the oldest message
//! of a link, loses it, kills a peer, or, when nothing is under way, lets time pass to the next deadline of any machine. A
//! message so takes no time, or for ever. Losses and deaths are counted and bounded; after the last one the network is
//! good.
//!
//! *Checked in every state*: nobody follows a lower term than before; whoever leads does so in the highest term it knows.
//! *Three leases after the last fault, and on*: exactly one leads, and all follow it.
//!
//! Times in a state are relative to the present, and what is older than any rule looks back is as old as that, so that states that
//! differ in age alone are one. All have joined at once, so that tenure never tells them apart; it stays 0.

use std::collections::BTreeMap;
use std::hash::Hash;
use std::time::Duration;

use grapevine_crypto::PkiId;
use stateright::{Checker, Model, Property};

use super::*;

/// The present in every state.
const NOW: Time = Time::from_millis(1_000_000);
const LEASE: Duration = Duration::from_millis(1_500);
/// What is older than this is as old as this: no rule but tenure looks back further than two leases.
const AGE_MAX: Duration = Duration::from_millis(2 * LEASE.as_millis() as u64 + 1);

fn config() -> ElectionConfig {
    ElectionConfig {
        use_leader_election: true,
        org_leader: false,
        startup_grace_period: Duration::from_millis(600),
        membership_sample_interval: Duration::from_millis(300),
        leader_alive_threshold: LEASE,
        leader_election_duration: Duration::from_millis(300),
    }
}

impl Election {
    /// The same machine at [`NOW`], `passed` later.
    fn aged(mut self, passed: Duration) -> Self {
        let map = |at: Time| (at - passed).max(NOW - AGE_MAX);
        self.joined = NOW;
        self.members.values_mut().for_each(|member| member.contact_at = map(member.contact_at));
        self.contact.at = map(self.contact.at);
        self.marks.map_times(&map);
        self.watch.map_times(&map);
        self.deposed.values_mut().for_each(|until| *until = map(*until));
        self.queried = self.queried.map(map);
        if let Some(Errand::Due(at)) = &mut self.errand {
            *at = map(*at);
        }
        match &mut self.stance {
            Stance::Settling { since, changed, .. } => (*since, *changed) = (map(*since), map(*changed)),
            Stance::Following { account, lease_ends } => {
                (account.since, *lease_ends) = (map(account.since), map(*lease_ends));
            }
            Stance::Leaderless { proposes } => *proposes = map(*proposes),
            Stance::Candidate { decides, .. } => *decides = map(*decides),
            Stance::Leading { account, declared, declares, vacancy } => {
                account.since = map(account.since);
                (*declared, *declares, *vacancy) = (map(*declared), map(*declares), map(*vacancy));
            }
            Stance::Static => {}
        }
        self
    }
}

#[derive(Debug, Clone, PartialEq, Eq, Hash)]
struct Network {
    /// `None`: dead.
    peers: Vec<Option<Election>>,
    /// The highest term each peer has followed.
    highest: Vec<Option<Term>>,
    /// Messages under way, by sender and receiver, oldest first.
    links: BTreeMap<(usize, usize), Vec<Leadership>>,
    losses: u8,
    deaths: u8,
    /// Since the last fault, or the start.
    calm: Duration,
    /// Somebody followed a lower term than before.
    went_back: bool,
}

#[derive(Debug, Clone, PartialEq, Eq, Hash)]
enum Step {
    Deliver(usize, usize),
    Lose(usize, usize),
    Kill(usize),
    Wait,
}

struct Elections {
    peers: usize,
    /// Peers take what has come for them in turn, each in any order; otherwise in any order at all.
    in_turn: bool,
    losses_max: u8,
    deaths_max: u8,
}

fn id(index: usize) -> PkiId {
    PkiId::new(&"Org1MSP".into(), &format!("peer{index}"))
}

impl Elections {
    /// Carries out what a machine wants and notes whom it follows.
    fn settle(&self, network: &mut Network, index: usize) {
        let Some(machine) = &mut network.peers[index] else { return };
        while let Some(output) = machine.poll_output() {
            match output {
                ElectionOutput::Send { peer, message } => {
                    let to = (0..self.peers).find(|to| id(*to) == peer).unwrap();
                    if network.highest.len() > to {
                        network.links.entry((index, to)).or_default().push(message);
                    }
                }
                // Whether an orderer answers changes ranks, not the protocol.
                ElectionOutput::ProbeOrderer => machine.handle_probe(NOW, Some(Duration::ZERO)),
                _ => {}
            }
        }
        if let Some(term) = machine.leader() {
            network.went_back |= network.highest[index].is_some_and(|highest| highest > term);
            network.highest[index] = Some(term);
        }
    }

    fn wait(&self, network: &mut Network) -> Option<()> {
        let due = network.peers.iter().flatten().filter_map(Election::next_deadline).min()?;
        let passed = due.since(NOW);
        network.calm = (network.calm + passed).min(LEASE * 6);
        for peer in &mut network.peers {
            *peer = peer.take().map(|machine| machine.aged(passed));
        }
        for index in 0..self.peers {
            if let Some(machine) = &mut network.peers[index]
                && machine.next_deadline().is_some_and(|at| at <= NOW)
            {
                machine.handle_timeout(NOW);
                self.settle(network, index);
            }
        }
        Some(())
    }
}

impl Model for Elections {
    type State = Network;
    type Action = Step;

    fn init_states(&self) -> Vec<Network> {
        let peers = (0..self.peers).map(|own| {
            let mut machine = Election::new(config(), id(own), 1, NOW);
            (0..self.peers)
                .filter(|other| *other != own)
                .for_each(|other| machine.handle_member(NOW, id(other)));
            Some(machine)
        });
        vec![Network {
            peers: peers.collect(),
            highest: vec![None; self.peers],
            links: BTreeMap::new(),
            losses: 0,
            deaths: 0,
            calm: Duration::ZERO,
            went_back: false,
        }]
    }

    fn actions(&self, network: &Network, steps: &mut Vec<Step>) {
        let first = network.links.keys().map(|(_, to)| *to).min();
        for (from, to) in network.links.keys() {
            if self.in_turn && Some(*to) != first {
                continue;
            }
            steps.push(Step::Deliver(*from, *to));
            if network.losses < self.losses_max {
                steps.push(Step::Lose(*from, *to));
            }
        }
        if network.links.is_empty() {
            steps.push(Step::Wait);
            if network.deaths < self.deaths_max {
                let leads = |peer: &Option<Election>| peer.as_ref().is_some_and(Election::is_leader);
                steps.extend((0..self.peers).filter(|peer| leads(&network.peers[*peer])).map(Step::Kill));
            }
        }
    }

    fn next_state(&self, network: &Network, step: Step) -> Option<Network> {
        let mut network = network.clone();
        match step {
            Step::Deliver(from, to) | Step::Lose(from, to) => {
                let link = network.links.get_mut(&(from, to))?;
                let message = link.remove(0);
                if link.is_empty() {
                    network.links.remove(&(from, to));
                }
                if matches!(step, Step::Lose(..)) {
                    network.losses += 1;
                    network.calm = Duration::ZERO;
                } else if let Some(machine) = &mut network.peers[to] {
                    machine.handle_message(NOW, id(from), &message, message.height);
                    self.settle(&mut network, to);
                }
            }
            Step::Kill(peer) => {
                network.peers[peer] = None;
                network.deaths += 1;
                network.calm = Duration::ZERO;
                for index in 0..self.peers {
                    if let Some(machine) = &mut network.peers[index] {
                        machine.handle_member_gone(NOW, id(peer));
                        self.settle(&mut network, index);
                    }
                }
            }
            Step::Wait => self.wait(&mut network)?,
        }
        Some(network)
    }

    fn properties(&self) -> Vec<Property<Self>> {
        vec![
            Property::<Self>::always("terms never go back", |_, network| !network.went_back),
            Property::<Self>::always("one leader within three leases", |_, network| {
                network.calm < LEASE * 3 || !network.links.is_empty() || is_settled(network)
            }),
            Property::<Self>::sometimes("a leader is elected", |_, network| is_settled(network)),
            Property::<Self>::sometimes("two lead for a moment", |_, network| leaders(network) > 1),
        ]
    }

    fn within_boundary(&self, network: &Network) -> bool {
        network.calm <= LEASE * 4
    }
}

fn leaders(network: &Network) -> usize {
    network.peers.iter().flatten().filter(|machine| machine.is_leader()).count()
}

fn is_settled(network: &Network) -> bool {
    let mut terms = network.peers.iter().flatten().map(|machine| machine.leader().map(|term| term.leader));
    let first = terms.next().flatten();
    leaders(network) == 1 && first.is_some() && terms.all(|leader| leader == first)
}

fn explore(model: Elections) {
    let Elections { peers, losses_max, deaths_max, .. } = model;
    let checker = model.checker().threads(2).spawn_bfs().join();
    println!(
        "{peers} peers, {losses_max} losses, {deaths_max} deaths: {} states, {} deep",
        checker.unique_state_count(),
        checker.max_depth()
    );
    checker.assert_properties();
}

#[test]
fn three_peers_in_every_order() {
    explore(Elections { peers: 3, in_turn: false, losses_max: 1, deaths_max: 1 });
}

#[test]
fn three_peers_in_turn_with_more_losses() {
    explore(Elections { peers: 3, in_turn: true, losses_max: 2, deaths_max: 1 });
}

#[test]
fn four_peers_in_turn_with_a_death() {
    explore(Elections { peers: 4, in_turn: true, losses_max: 0, deaths_max: 1 });
}

#[test]
fn four_peers_in_turn_with_a_loss() {
    explore(Elections { peers: 4, in_turn: true, losses_max: 1, deaths_max: 0 });
}

/// `make model`: this many peers, losses and deaths, as `4 1 0`; minutes and gigabytes.
#[test]
fn at_length_if_asked_for() {
    let Ok(asked) = std::env::var("GRAPEVINE_MODEL") else { return };
    let mut numbers = asked.split_whitespace().map(|number| number.parse::<u8>().expect("a number"));
    let mut next = || numbers.next().expect("GRAPEVINE_MODEL is three numbers: peers, losses, deaths");
    let (peers, losses_max, deaths_max) = (usize::from(next()), next(), next());
    explore(Elections { peers, in_turn: true, losses_max, deaths_max });
}
