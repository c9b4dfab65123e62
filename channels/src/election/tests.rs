//! One test per rule; a small bus runs several machines against each other.

use super::*;
use rand::SeedableRng;
use std::collections::BTreeMap;

fn peer(index: usize) -> PkiId {
    PkiId::new(&"Org1MSP".into(), &format!("peer{index}"))
}

fn at(milliseconds: u64) -> Time {
    Time::from_millis(milliseconds)
}

fn config() -> ElectionConfig {
    ElectionConfig {
        use_leader_election: true,
        org_leader: false,
        startup_grace_period: Duration::from_secs(2),
        membership_sample_interval: Duration::from_millis(200),
        leader_alive_threshold: Duration::from_millis(1_500),
        leader_election_duration: Duration::from_millis(300),
    }
}

fn election(index: usize, height: u64) -> Election {
    Election::new(config(), peer(index), height, Time::ZERO, ChaCha8Rng::seed_from_u64(index as u64))
}

fn outputs(machine: &mut Election) -> Vec<ElectionOutput> {
    std::iter::from_fn(|| machine.poll_output()).collect()
}

/// Machines that hear each other after 1 ms, unless cut.
struct Bus {
    now: Time,
    machines: BTreeMap<PkiId, Election>,
    cut: Vec<(PkiId, PkiId)>,
    in_flight: Vec<(Time, PkiId, PkiId, Leadership)>,
    log: Vec<(Time, PkiId, ElectionOutput)>,
}

impl Bus {
    fn new(heights: &[u64]) -> Self {
        let mut machines: BTreeMap<PkiId, Election> = heights
            .iter()
            .enumerate()
            .map(|(index, height)| (peer(index), election(index, *height)))
            .collect();
        let all: Vec<PkiId> = machines.keys().copied().collect();
        for (own, machine) in &mut machines {
            all.iter()
                .filter(|other| *other != own)
                .for_each(|other| machine.handle_member(Time::ZERO, *other));
        }
        Self { now: Time::ZERO, machines, cut: Vec::new(), in_flight: Vec::new(), log: Vec::new() }
    }

    fn run_until(&mut self, end: Time) {
        loop {
            self.collect();
            let message = self.in_flight.iter().map(|(due, ..)| *due).min();
            let timer = self.machines.values().filter_map(Election::next_deadline).min();
            let Some(next) = earliest_of(message, timer).filter(|next| *next <= end) else { break };
            self.now = next.max(self.now);
            let now = self.now;
            let due: Vec<_> = self.in_flight.extract_if(.., |(due, ..)| *due <= now).collect();
            for (_, from, to, message) in due {
                if let Some(machine) = self.machines.get_mut(&to) {
                    machine.handle_message(now, from, &message);
                }
            }
            self.machines.values_mut().for_each(|machine| machine.handle_timeout(now));
        }
        self.now = end;
    }

    fn collect(&mut self) {
        for (own, machine) in &mut self.machines {
            while let Some(output) = machine.poll_output() {
                if let ElectionOutput::Send { peer, message } = &output {
                    if !self.cut.contains(&(*own, *peer)) {
                        let due = self.now + Duration::from_millis(1);
                        self.in_flight.push((due, *own, *peer, message.clone()));
                    }
                } else {
                    self.log.push((self.now, *own, output));
                }
            }
        }
    }

    fn leaders(&self) -> Vec<PkiId> {
        self.machines.iter().filter(|(_, machine)| machine.is_leader()).map(|(id, _)| *id).collect()
    }

    fn all_follow(&self, leader: PkiId) -> bool {
        self.machines.values().all(|machine| machine.leader().is_some_and(|term| term.leader == leader))
    }

    fn remove(&mut self, gone: PkiId) {
        self.machines.remove(&gone);
        let now = self.now;
        self.machines.values_mut().for_each(|machine| machine.handle_member_gone(now, gone));
    }
}

fn earliest_of(left: Option<Time>, right: Option<Time>) -> Option<Time> {
    crate::time::earliest(left, right)
}

#[test]
fn equals_elect_the_lowest_id() {
    let mut bus = Bus::new(&[5, 5, 5, 5, 5]);
    bus.run_until(at(3_000));
    let lowest = *bus.machines.keys().next().unwrap();
    assert_eq!(bus.leaders(), vec![lowest]);
    assert!(bus.all_follow(lowest));
}

#[test]
fn the_longest_ledger_leads() {
    let mut bus = Bus::new(&[5, 5, 5]);
    let highest = *bus.machines.keys().last().unwrap();
    bus.machines.get_mut(&highest).unwrap().handle_height(9);
    bus.run_until(at(3_000));
    assert_eq!(bus.leaders(), vec![highest]);
}

#[test]
fn alone_one_leads_after_settling() {
    let mut machine = election(0, 1);
    let due = machine.next_deadline().unwrap();
    machine.handle_timeout(due);
    machine.handle_timeout(machine.next_deadline().unwrap());
    assert!(machine.is_leader());
    assert!(matches!(outputs(&mut machine)[..], [ElectionOutput::Lead(_)]));
}

#[test]
fn a_dead_leader_is_replaced_and_the_new_term_is_higher() {
    let mut bus = Bus::new(&[1, 1, 1, 1]);
    bus.run_until(at(3_000));
    let first = bus.leaders()[0];
    let term = bus.machines[&first].leader().unwrap();
    bus.remove(first);
    let killed = bus.now;
    bus.run_until(at(4_000));
    let second = bus.leaders();
    assert_eq!(second.len(), 1);
    assert!(bus.machines[&second[0]].leader().unwrap().outranks(&term));
    let lead =
        bus.log.iter().find(|(at, _, o)| *at > killed && matches!(o, ElectionOutput::Lead(_))).unwrap();
    assert!(lead.0.since(killed) <= Duration::from_millis(450), "{:?}", lead.0.since(killed));
}

#[test]
fn a_silent_leader_is_replaced_after_its_lease() {
    let mut bus = Bus::new(&[1, 1, 1]);
    bus.run_until(at(3_000));
    let silent = bus.leaders()[0];
    bus.machines.remove(&silent);
    bus.run_until(at(3_000 + 1_500 + 300 + 100));
    assert_eq!(bus.leaders().len(), 1);
}

#[test]
fn a_leader_that_stops_hands_over_at_once() {
    let mut bus = Bus::new(&[1, 1, 1]);
    bus.run_until(at(3_000));
    let first = bus.leaders()[0];
    let now = bus.now;
    bus.machines.get_mut(&first).unwrap().handle_shutdown(now);
    bus.run_until(at(3_500));
    assert_eq!(bus.leaders().len(), 1);
    assert_ne!(bus.leaders()[0], first);
}

#[test]
fn after_a_partition_one_of_two_leaders_steps_down() {
    let mut bus = Bus::new(&[1, 1, 1, 1]);
    let ids: Vec<PkiId> = bus.machines.keys().copied().collect();
    for left in &ids[..2] {
        for right in &ids[2..] {
            bus.cut.extend([(*left, *right), (*right, *left)]);
        }
    }
    bus.run_until(at(6_000));
    assert_eq!(bus.leaders().len(), 2);
    bus.cut.clear();
    bus.run_until(at(8_000));
    assert_eq!(bus.leaders().len(), 1);
    assert!(bus.all_follow(bus.leaders()[0]));
}

#[test]
fn a_newcomer_does_not_displace_a_running_leader() {
    let mut bus = Bus::new(&[1, 1]);
    bus.run_until(at(3_000));
    let leader = bus.leaders()[0];
    // The lowest id of all, with a longer ledger even.
    let newcomer = (2..200).map(peer).find(|id| *id < leader).unwrap();
    let now = bus.now;
    let mut machine = Election::new(config(), newcomer, 50, now, ChaCha8Rng::seed_from_u64(9));
    for (id, other) in &mut bus.machines {
        machine.handle_member(now, *id);
        other.handle_member(now, newcomer);
    }
    bus.machines.insert(newcomer, machine);
    bus.run_until(at(6_000));
    assert_eq!(bus.leaders(), vec![leader]);
    assert!(bus.all_follow(leader));
}

#[test]
fn a_lower_term_is_not_followed_while_a_higher_one_is_heard() {
    let mut machine = election(0, 1);
    machine.handle_member(at(0), peer(1));
    machine.handle_member(at(0), peer(2));
    let declaration = |counter| Leadership {
        kind: LeadershipKind::Declaration.into(),
        counter,
        height: 1,
        yielding: false,
    };
    machine.handle_message(at(10), peer(1), &declaration(7));
    machine.handle_message(at(20), peer(2), &declaration(6));
    assert_eq!(machine.leader(), Some(Term { counter: 7, leader: peer(1) }));
    machine.handle_message(at(30), peer(2), &declaration(8));
    assert_eq!(machine.leader(), Some(Term { counter: 8, leader: peer(2) }));
}

#[test]
fn messages_of_strangers_and_absurd_counters_change_nothing() {
    let mut machine = election(0, 1);
    machine.handle_member(at(0), peer(1));
    let mut message =
        Leadership { kind: LeadershipKind::Declaration.into(), counter: 7, height: 1, yielding: false };
    machine.handle_message(at(10), peer(2), &message);
    assert_eq!(machine.leader(), None);
    message.counter = u64::MAX;
    machine.handle_message(at(10), peer(1), &message);
    assert_eq!(machine.leader(), None);
    assert_eq!(machine.counter_highest, 0);
}

#[test]
fn a_leader_without_an_orderer_makes_room_once() {
    let mut bus = Bus::new(&[1, 1, 1]);
    bus.run_until(at(3_000));
    let first = bus.leaders()[0];
    let now = bus.now;
    bus.machines.get_mut(&first).unwrap().handle_orderer_contact(now, false);
    bus.run_until(now + ORDERER_SILENCE_MAX + Duration::from_secs(2));
    let second = bus.leaders();
    assert_eq!(second.len(), 1);
    assert_ne!(second[0], first, "one that yields ranks last");
}

#[test]
fn static_modes_lead_always_or_never() {
    let leads = ElectionConfig { use_leader_election: false, org_leader: true, ..config() };
    let mut machine = Election::new(leads, peer(0), 1, Time::ZERO, ChaCha8Rng::seed_from_u64(1));
    assert!(machine.is_leader());
    assert!(matches!(outputs(&mut machine)[..], [ElectionOutput::Lead(_)]));
    machine.handle_member(at(0), peer(1));
    let declaration =
        Leadership { kind: LeadershipKind::Declaration.into(), counter: 9, height: 9, yielding: false };
    machine.handle_message(at(1), peer(1), &declaration);
    assert!(machine.is_leader());
    let never = ElectionConfig { use_leader_election: false, org_leader: false, ..config() };
    let mut machine = Election::new(never, peer(0), 1, Time::ZERO, ChaCha8Rng::seed_from_u64(1));
    assert_eq!((machine.is_leader(), machine.next_deadline()), (false, None));
    assert_eq!(outputs(&mut machine), vec![]);
}
