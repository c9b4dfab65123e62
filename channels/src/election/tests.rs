//! One test per rule; a small bus runs several machines against each other.

use super::*;
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
    Election::new(config(), peer(index), height, Time::ZERO)
}

fn declaration(counter: u64) -> Leadership {
    Leadership { kind: LeadershipKind::Declaration.into(), counter, height: 1, ..Leadership::default() }
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
    orderer_up: bool,
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
        Self {
            now: Time::ZERO,
            machines,
            cut: Vec::new(),
            in_flight: Vec::new(),
            log: Vec::new(),
            orderer_up: true,
        }
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
                    machine.handle_message(now, from, &message, message.height);
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
                } else if output == ElectionOutput::ProbeOrderer {
                    machine.handle_probe(self.now, self.orderer_up.then_some(Duration::from_millis(1)));
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
    bus.machines.get_mut(&highest).unwrap().handle_height(at(0), 9);
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
    assert!(matches!(outputs(&mut machine)[..], [ElectionOutput::Lead(_), ElectionOutput::ProbeOrderer]));
}

#[test]
fn who_knows_nobody_waits_for_the_peers_it_dials_but_no_longer_than_the_grace() {
    let settles = |steps: &[(u64, bool)]| {
        let mut machine = election(0, 1);
        steps.iter().for_each(|(now, seeking)| machine.handle_seeking(at(*now), *seeking));
        machine.next_deadline().unwrap()
    };
    assert_eq!(settles(&[]), at(400), "there is nobody to dial");
    assert_eq!(settles(&[(0, true)]), at(2_000));
    assert_eq!(settles(&[(0, true), (700, false)]), at(900), "dialling has come to an end");
    let mut machine = election(0, 1);
    machine.handle_seeking(at(0), true);
    machine.handle_member(at(300), peer(1));
    assert_eq!(machine.next_deadline().unwrap(), at(500), "who knows members waits for them");
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
    // The lowest id of all.
    let newcomer = (2..200).map(peer).find(|id| *id < leader).unwrap();
    let now = bus.now;
    let mut machine = Election::new(config(), newcomer, 1, now);
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
    machine.handle_message(at(10), peer(1), &declaration(7), 1);
    machine.handle_message(at(20), peer(2), &declaration(6), 1);
    assert_eq!(machine.leader(), Some(Term { counter: 7, leader: peer(1) }));
    machine.handle_message(at(30), peer(2), &declaration(8), 1);
    assert_eq!(machine.leader(), Some(Term { counter: 8, leader: peer(2) }));
}

#[test]
fn messages_of_strangers_and_absurd_counters_change_nothing() {
    let mut machine = election(0, 1);
    machine.handle_member(at(0), peer(1));
    let mut message = declaration(7);
    machine.handle_message(at(10), peer(2), &message, 1);
    assert_eq!(machine.leader(), None);
    message.counter = u64::MAX;
    machine.handle_message(at(10), peer(1), &message, 1);
    assert_eq!(machine.leader(), None);
    assert_eq!(machine.counter_highest, 0);
}

fn message(kind: LeadershipKind, counter: u64, height: u64) -> Leadership {
    Leadership { kind: kind.into(), counter, height, ..Leadership::default() }
}

fn sent(outputs: &[ElectionOutput], kind: LeadershipKind) -> Vec<PkiId> {
    let to = |output: &ElectionOutput| match output {
        ElectionOutput::Send { peer, message } if message.kind() == kind => Some(*peer),
        _ => None,
    };
    outputs.iter().filter_map(to).collect()
}

/// A machine of height 10 that follows `peer1` in term 5, and knows `peer2`.
fn follower() -> Election {
    let mut machine = election(0, 10);
    machine.handle_member(at(0), peer(1));
    machine.handle_member(at(0), peer(2));
    machine.handle_message(at(10), peer(1), &message(LeadershipKind::Declaration, 5, 10), 10);
    outputs(&mut machine);
    machine
}

#[test]
fn a_leader_without_an_orderer_hands_over_to_who_reaches_one() {
    let mut bus = Bus::new(&[1, 1, 1]);
    bus.run_until(at(3_000));
    let first = bus.leaders()[0];
    let now = bus.now;
    bus.machines.get_mut(&first).unwrap().handle_orderer_contact(now, None);
    bus.run_until(now + Duration::from_secs(3));
    let second = bus.leaders();
    assert_eq!(second.len(), 1);
    assert_ne!(second[0], first);
    assert_eq!(bus.machines[&second[0]].account().unwrap().reason, Some(Reason::HandedOver));
}

/// As of a leader whose requests the orderer refuses for their timestamp.
#[test]
fn refusals_again_and_again_do_not_put_off_the_handover() {
    let mut bus = Bus::new(&[1, 1, 1]);
    bus.run_until(at(3_000));
    let first = bus.leaders()[0];
    for _ in 0..8 {
        let now = bus.now;
        bus.machines.get_mut(&first).unwrap().handle_orderer_contact(now, None);
        bus.run_until(now + Duration::from_millis(400));
    }
    let second = bus.leaders();
    assert_eq!(second.len(), 1);
    assert_ne!(second[0], first);
}

#[test]
fn a_leader_whose_orderer_nobody_reaches_stays() {
    let mut bus = Bus::new(&[1, 1, 1]);
    bus.run_until(at(3_000));
    let first = bus.leaders()[0];
    bus.orderer_up = false;
    let now = bus.now;
    bus.machines.get_mut(&first).unwrap().handle_orderer_contact(now, None);
    bus.run_until(now + Duration::from_secs(60));
    assert_eq!(bus.leaders(), vec![first]);
    assert!(!bus.log.iter().any(|(at, _, output)| *at > now && matches!(output, ElectionOutput::Lead(_))));
}

#[test]
fn a_broken_connection_to_a_leader_that_lives_moves_no_leadership() {
    let mut bus = Bus::new(&[1, 1, 1, 1]);
    bus.run_until(at(3_000));
    let leader = bus.leaders()[0];
    let cut = *bus.machines.keys().find(|peer| **peer != leader).unwrap();
    bus.cut.extend([(leader, cut), (cut, leader)]);
    let now = bus.now;
    bus.machines.get_mut(&cut).unwrap().handle_member_gone(now, leader);
    bus.machines.get_mut(&leader).unwrap().handle_member_gone(now, cut);
    bus.run_until(now + Duration::from_secs(30));
    assert_eq!(bus.leaders(), vec![leader]);
    let account = bus.machines[&cut].account().unwrap();
    assert_eq!((account.term.leader, account.hearsay), (leader, true));
}

#[test]
fn a_leader_that_falls_behind_is_stood_against_and_one_that_is_behind_is_not_followed() {
    let mut machine = follower();
    machine.handle_timeout(at(1_510));
    machine.handle_height(at(1_600), 20);
    machine.handle_message(at(1_700), peer(1), &message(LeadershipKind::Declaration, 5, 11), 11);
    machine.handle_timeout(at(3_100));
    outputs(&mut machine);
    assert_eq!(machine.leader(), Some(Term { counter: 5, leader: peer(1) }));
    // A lease after it had 20 blocks itself, its leader still has 11.
    machine.handle_message(at(3_150), peer(1), &message(LeadershipKind::Declaration, 5, 11), 11);
    machine.handle_message(at(4_600), peer(1), &message(LeadershipKind::Declaration, 5, 11), 11);
    assert_eq!(machine.leader(), None);
    // Another with nothing is not followed, however high its term.
    machine.handle_message(at(4_710), peer(2), &message(LeadershipKind::Declaration, 9, 1), 1);
    assert_eq!(machine.leader(), None);
    while !machine.is_leader() {
        let due = machine.next_deadline().unwrap();
        machine.handle_timeout(due);
    }
    assert!(machine.leader().unwrap().counter > 9);
    assert_eq!(machine.account().unwrap().reason, Some(Reason::Behind));
}

#[test]
fn a_leader_that_withholds_is_deposed_for_a_while() {
    let mut machine = follower();
    let mut probed = 0;
    // Quiet for long, with a leader that goes on declaring itself.
    for step in 1..400 {
        let now = at(10 + step * 100);
        machine.handle_message(now, peer(1), &message(LeadershipKind::Declaration, 5, 10), 10);
        machine.handle_timeout(now);
        probed +=
            outputs(&mut machine).iter().filter(|output| **output == ElectionOutput::ProbeOrderer).count();
    }
    assert!((1..10).contains(&probed), "one of three asks, ever more rarely: {probed}");
    // The orderer has what we have: nothing is held back.
    machine.handle_newest(at(41_000), 10);
    machine.handle_timeout(at(43_000));
    machine.handle_message(at(43_000), peer(1), &message(LeadershipKind::Declaration, 5, 10), 10);
    assert_eq!(machine.leader().unwrap().leader, peer(1));
    machine.handle_newest(at(43_100), 12);
    machine.handle_message(at(44_000), peer(1), &message(LeadershipKind::Declaration, 5, 10), 10);
    machine.handle_timeout(at(44_600));
    assert!(outputs(&mut machine).contains(&ElectionOutput::Deposed(peer(1))));
    machine.handle_message(at(44_700), peer(1), &message(LeadershipKind::Declaration, 50, 10), 10);
    assert_eq!(machine.leader(), None, "not followed in any term");
    let now = at(44_600) + DEPOSED_FOR;
    machine.handle_timeout(now);
    outputs(&mut machine);
    let counter = machine.counter_highest + 7;
    machine.handle_message(now, peer(1), &message(LeadershipKind::Declaration, counter, 10), 10);
    assert_eq!(machine.leader().unwrap().leader, peer(1));
}

#[test]
fn who_gets_blocks_joins_in_no_deposition() {
    let deposes = |machine: &mut Election, now: Time| {
        let about = peer(1).0.0.to_vec();
        let declaration = Leadership { about, ..message(LeadershipKind::Declaration, 6, 11) };
        machine.handle_message(now, peer(2), &declaration, 11);
        machine.deposed.contains_key(&peer(1))
    };
    let mut fed = follower();
    fed.handle_height(at(4_000), 11);
    assert!(!deposes(&mut fed, at(4_500)));
    assert!(deposes(&mut follower(), at(4_500)));
}

/// After a partition each side may have deposed the other's leader.
#[test]
fn two_leaders_that_deposed_each_other_do_not_contend_for_long() {
    let mut bus = Bus::new(&[1, 1, 1, 1]);
    let ids: Vec<PkiId> = bus.machines.keys().copied().collect();
    for left in &ids[..2] {
        for right in &ids[2..] {
            bus.cut.extend([(*left, *right), (*right, *left)]);
        }
    }
    bus.run_until(at(6_000));
    let leaders = bus.leaders();
    assert_eq!(leaders.len(), 2);
    for (one, other) in [(leaders[0], leaders[1]), (leaders[1], leaders[0])] {
        bus.machines.get_mut(&one).unwrap().depose(at(6_000), other, DEPOSED_FOR);
    }
    bus.cut.clear();
    bus.run_until(at(6_000 + 3 * 1_500));
    assert_eq!(bus.leaders().len(), 1);
    assert!(bus.all_follow(bus.leaders()[0]));
}

#[test]
fn deposed_leaders_are_bounded() {
    let mut machine = follower();
    (10..100).for_each(|index| machine.depose(at(100 + index as u64), peer(index), DEPOSED_FOR));
    assert_eq!(machine.deposed.len(), DEPOSED_MAX);
    assert!(machine.deposed.contains_key(&peer(99)) && !machine.deposed.contains_key(&peer(10)));
}

#[test]
fn heights_count_for_rank_and_contact_counts_more() {
    let mut machine = election(0, 10);
    machine.handle_member(at(0), peer(1));
    let proposal = |contact: OrdererContact, height| Leadership {
        contact: contact.into(),
        ..message(LeadershipKind::Proposal, 1, height)
    };
    let mut better = |contact, counted| {
        machine.handle_message(at(1), peer(1), &proposal(contact, counted), counted);
        machine.is_better(at(1), peer(1))
    };
    assert!(better(OrdererContact::Reached, 3));
    assert!(better(OrdererContact::Unknown, 11));
    assert!(!better(OrdererContact::Unknown, 9));
    assert!(!better(OrdererContact::Failed, 11));
    machine.handle_message(at(1), peer(1), &proposal(OrdererContact::Reached, 3), 3);
    assert!(!machine.is_better(at(1_501), peer(1)), "believed for one lease");
}

#[test]
fn a_doubter_gets_notice_when_the_leader_is_heard() {
    let mut machine = follower();
    machine.handle_message(at(100), peer(2), &message(LeadershipKind::Proposal, 6, 10), 10);
    assert_eq!(sent(&outputs(&mut machine), LeadershipKind::Query), vec![peer(1)]);
    machine.handle_message(at(101), peer(1), &message(LeadershipKind::Declaration, 6, 10), 10);
    assert_eq!(sent(&outputs(&mut machine), LeadershipKind::Notice), vec![peer(2)]);
    machine.handle_message(at(102), peer(1), &message(LeadershipKind::Declaration, 6, 10), 10);
    assert_eq!(sent(&outputs(&mut machine), LeadershipKind::Notice), vec![], "once");
}

#[test]
fn static_modes_lead_always_or_never() {
    let leads = ElectionConfig { use_leader_election: false, org_leader: true, ..config() };
    let mut machine = Election::new(leads, peer(0), 1, Time::ZERO);
    assert!(machine.is_leader());
    assert!(matches!(outputs(&mut machine)[..], [ElectionOutput::Lead(_)]));
    machine.handle_member(at(0), peer(1));
    machine.handle_message(at(1), peer(1), &declaration(9), 1);
    assert!(machine.is_leader());
    let never = ElectionConfig { use_leader_election: false, org_leader: false, ..config() };
    let mut machine = Election::new(never, peer(0), 1, Time::ZERO);
    assert_eq!((machine.is_leader(), machine.next_deadline()), (false, None));
    assert_eq!(outputs(&mut machine), vec![]);
}
