//! The machine as its caller sees it: what happens in, what it wants sent out.

use proptest::prelude::*;
use rand::SeedableRng;

use super::super::pursuit::{SOURCES_MAX, WANTED_MAX};
use super::*;
use crate::block::AuthenticBlock;
use crate::dissemination::DisseminationMode;
use crate::wire::{Announcement, Holding};

const FANOUT: usize = 3;
const WINDOW: u64 = 1_000;

fn at(milliseconds: u64) -> Time {
    Time::from_millis(milliseconds)
}

fn peer(index: usize) -> PkiId {
    PkiId::new(&"Org1MSP".into(), &format!("peer{index}"))
}

fn block(number: u64) -> AuthenticBlock {
    AuthenticBlock::simulated(number, Digest([0; 32]), 1_000)
}

/// A peer with its outputs and counters. Members are `peer(1)` to `peer(members)`; the leader is `peer(1)`.
struct Relay {
    machine: Grapevine,
    chain: Chain,
    outputs: Outputs,
    counters: DisseminationCounters,
}

impl Relay {
    fn new(members: usize) -> Self {
        let config = DisseminationConfig {
            mode: DisseminationMode::Grapevine,
            propagate_peer_num: FANOUT,
            pull_interval: Duration::from_secs(1),
            pull_peer_num: 3,
            link_bits_per_second: 1_000_000_000,
        };
        let mut machine = Grapevine::new(config, ChaCha8Rng::seed_from_u64(1));
        (1..=members).for_each(|index| machine.handle_peer(peer(index)));
        machine.handle_leader(Some(peer(1)));
        let chain = Chain::new(1, block(0).hash(), WINDOW, 100);
        Self { machine, chain, outputs: Outputs::new(), counters: DisseminationCounters::default() }
    }

    /// The body of a push arrives.
    fn pushed(&mut self, from: usize, number: u64, entries: &[(usize, u32)]) {
        let members: Vec<u8> = entries.iter().flat_map(|(index, _)| prefix(&peer(*index))).collect();
        let sizes = entries.iter().map(|(_, size)| *size).collect();
        let delegation = Delegation { members: members.into(), sizes, heads: 0 };
        let header = BulkHeader {
            number,
            hash: block(number).hash().0.to_vec(),
            kind: BulkKind::Push as i32,
            delegation: Some(delegation),
            ..BulkHeader::default()
        };
        let (outputs, counters) = (&mut self.outputs, &mut self.counters);
        self.machine.handle_bulk(at(1), peer(from), &header, &self.chain, outputs, counters);
    }

    /// It is authentic and new, and kept.
    fn verified(&mut self, number: u64, source: BlockSource) {
        self.chain.offer(block(number));
        let new = NewBlock {
            number,
            hash: block(number).hash(),
            size: 1_000,
            source,
            verified_in: Duration::from_millis(1),
        };
        self.machine.handle_block(at(2), &new, &mut self.outputs, &mut self.counters);
    }

    fn frame(&mut self, now: Time, from: usize, body: &ChannelBody) {
        let (outputs, counters) = (&mut self.outputs, &mut self.counters);
        self.machine.handle_frame(now, peer(from), body, &self.chain, outputs, counters);
    }

    fn announced(&mut self, now: Time, from: usize, number: u64, eta_micros: u64) {
        let hash = block(number).hash().0.to_vec();
        let manifest = Manifest { number, hash, size: 1_000, eta_micros, ..Manifest::default() };
        self.frame(now, from, &ChannelBody::Announcement(Announcement { manifests: vec![manifest] }));
    }

    fn holds(&mut self, now: Time, from: usize, ranges: Vec<u64>, to_all: bool) {
        self.frame(now, from, &ChannelBody::Holding(Holding { ranges, to_all }));
    }

    /// Whom the block is pushed to, since this was asked last.
    fn pushes(&mut self) -> Vec<PkiId> {
        let outputs = self.outputs.drain(..);
        outputs
            .filter_map(|output| match output {
                DisseminationOutput::Push { peer, .. } => Some(peer),
                DisseminationOutput::Send { .. } => None,
            })
            .collect()
    }

    /// Who is asked for what when time has come to `now`.
    fn asked(&mut self, now: Time) -> Vec<(PkiId, Vec<u64>)> {
        self.outputs.clear();
        let (outputs, counters) = (&mut self.outputs, &mut self.counters);
        self.machine.handle_timeout(now, &self.chain, outputs, counters);
        let outputs = self.outputs.drain(..);
        outputs
            .filter_map(|output| match output {
                DisseminationOutput::Send { peer, body: ChannelBody::Request(Request { numbers }) } => {
                    Some((peer, numbers))
                }
                _ => None,
            })
            .collect()
    }
}

#[test]
fn a_relay_serves_whom_it_is_told_to_and_only_once_the_block_is_verified() {
    let mut relay = Relay::new(9);
    relay.pushed(1, 1, &[(2, 2), (3, 1), (4, 1)]);
    assert!(relay.pushes().is_empty(), "nothing is forwarded unverified");
    relay.verified(1, BlockSource::Push(peer(1)));
    assert_eq!(relay.pushes(), vec![peer(2), peer(4)]);
}

#[test]
fn a_block_is_forwarded_once_whoever_asks_for_more() {
    let mut relay = Relay::new(9);
    relay.pushed(1, 1, &[(2, 1)]);
    relay.verified(1, BlockSource::Push(peer(1)));
    assert_eq!(relay.pushes(), vec![peer(2)]);
    for from in [1, 5, 6] {
        relay.pushed(from, 1, &[(3, 1), (4, 1)]);
        relay.verified(1, BlockSource::Push(peer(from)));
        assert!(relay.pushes().is_empty());
    }
}

#[test]
fn never_back_to_the_sender_nor_to_a_holder_nor_out_of_the_channel() {
    let mut relay = Relay::new(9);
    relay.holds(at(0), 3, vec![1, 1], false);
    relay.announced(at(0), 4, 1, 0);
    relay.machine.handle_height(peer(5), 2);
    relay.machine.handle_peer_gone(at(0), peer(6));
    // The sender, holders of three kinds, one that left, strangers, and one that lacks the block.
    relay.pushed(2, 1, &[(2, 1), (3, 1), (4, 1), (5, 1), (6, 1), (77, 1), (78, 1), (7, 1)]);
    relay.verified(1, BlockSource::Push(peer(2)));
    assert_eq!(relay.pushes(), vec![peer(7)]);
    assert_eq!(relay.counters.bad_plans, 0);
}

#[test]
fn children_are_bounded_however_many_are_ordered() {
    let mut relay = Relay::new(60);
    let all: Vec<(usize, u32)> = (2..=60).map(|index| (index, 1)).collect();
    relay.pushed(1, 1, &all);
    relay.verified(1, BlockSource::Push(peer(1)));
    assert_eq!(relay.pushes().len(), FANOUT);
}

#[test]
fn a_plan_that_contradicts_itself_is_counted_and_not_acted_on() {
    for plan in [vec![(2, 1), (2, 1)], vec![(2, 0)], vec![(2, 9)], vec![(2, u32::MAX), (3, 1)]] {
        let mut relay = Relay::new(9);
        relay.pushed(1, 1, &plan);
        relay.verified(1, BlockSource::Push(peer(1)));
        assert_eq!((relay.pushes(), relay.counters.bad_plans), (vec![], 1), "{plan:?}");
    }
}

#[test]
fn orders_for_another_block_of_the_number_are_void() {
    let mut relay = Relay::new(9);
    relay.pushed(1, 1, &[(2, 1)]);
    let other = NewBlock {
        number: 1,
        hash: Digest([9; 32]),
        size: 1_000,
        source: BlockSource::Reply(peer(3)),
        verified_in: Duration::ZERO,
    };
    relay.machine.handle_block(at(2), &other, &mut relay.outputs, &mut relay.counters);
    assert!(relay.pushes().is_empty());
}

#[test]
fn what_a_forger_ordered_goes_with_its_block_and_the_next_orders_count() {
    let mut relay = Relay::new(9);
    relay.pushed(8, 1, &[(2, 1)]);
    relay.machine.handle_rejected(at(1), peer(7), 1);
    relay.machine.handle_rejected(at(1), peer(8), 1);
    relay.pushed(1, 1, &[(3, 1)]);
    relay.verified(1, BlockSource::Push(peer(1)));
    assert_eq!(relay.pushes(), vec![peer(3)]);
}

#[test]
fn a_rejected_body_makes_the_next_source_be_asked_at_once() {
    let mut relay = Relay::new(9);
    relay.holds(at(0), 2, vec![1, 1], false);
    relay.holds(at(0), 3, vec![1, 1], false);
    let (first, _) = relay.asked(at(500)).remove(0);
    relay.machine.handle_rejected(at(501), first, 1);
    let (second, _) = relay.asked(at(501)).remove(0);
    assert_ne!(first, second);
    relay.machine.handle_rejected(at(502), second, 1);
    assert!(relay.asked(at(502)).is_empty());
    assert_eq!(relay.counters.missed, 1, "with nobody left it is given up");
    assert!(!relay.machine.is_pursuing(1));
}

#[test]
fn only_the_leader_that_is_followed_promises() {
    // Nine seconds promised by who does not lead: not believed, the block is asked for when it may no longer be on its way.
    let mut relay = Relay::new(9);
    relay.announced(at(0), 2, 1, 9_000_000);
    assert_eq!(relay.asked(at(200)), vec![(peer(2), vec![1])]);
    // Promised by the leader: waited for, and whoever says something else later changes nothing.
    let mut relay = Relay::new(9);
    relay.announced(at(0), 1, 1, 3_000_000);
    relay.announced(at(1), 1, 1, 1);
    relay.announced(at(1), 2, 1, 1);
    assert!(relay.asked(at(2_900)).is_empty());
    assert!(!relay.asked(at(9_000)).is_empty());
}

#[test]
fn floods_fill_what_is_bounded_and_are_counted() {
    let mut relay = Relay::new(60);
    for number in 1..2 * WINDOW {
        relay.announced(at(0), 1, number, 1_000_000);
        relay.pushed(2, number, &[(3, 1)]);
    }
    let machine = &relay.machine;
    assert_eq!(machine.pursuit.len(), WANTED_MAX);
    assert!(machine.pursuit.contains(1), "the lowest stay");
    assert_eq!(machine.promises.len(), REMEMBERED_MAX);
    assert!(machine.orders.len() <= REMEMBERED_MAX && machine.arriving.len() <= REMEMBERED_MAX);
    assert!(machine.promises.keys().all(|number| *number < WINDOW + 1), "nothing beyond the window");
    let dropped = relay.counters.over_bound;
    assert!(dropped >= WINDOW - WANTED_MAX as u64, "{dropped}");
    relay.holds(at(0), 2, vec![0, u64::MAX, 7, 3, u64::MAX, u64::MAX, 5], true);
    (2..=60).for_each(|from| relay.holds(at(0), from, vec![1, 1], false));
    assert!(relay.counters.over_bound > dropped + (58 - SOURCES_MAX) as u64);
    assert_eq!(relay.machine.pursuit.len(), WANTED_MAX);
}

#[test]
fn frames_of_strangers_leave_nothing() {
    let mut relay = Relay::new(9);
    relay.announced(at(0), 77, 1, 1_000);
    relay.holds(at(0), 77, vec![1, 200], true);
    relay.pushed(77, 1, &[(2, 1)]);
    assert_eq!(relay.machine.pursuit.len(), 0);
    assert!(relay.machine.promises.is_empty() && relay.machine.orders.is_empty());
}

#[test]
fn a_body_that_dribbles_in_is_waited_for_a_while_only() {
    let mut relay = Relay::new(9);
    relay.holds(at(0), 2, vec![1, 1], false);
    let header = BulkHeader { number: 1, ..BulkHeader::default() };
    for step in 0..ARRIVING_MIN.as_millis() as u64 / 10 {
        relay.machine.handle_bulk_started(at(step * 10), &header, &relay.chain);
        assert!(relay.asked(at(step * 10 + 1)).is_empty(), "{step}");
    }
    let end = ARRIVING_MIN.as_millis() as u64;
    relay.machine.handle_bulk_started(at(end), &header, &relay.chain);
    assert_eq!(relay.asked(at(end)), vec![(peer(2), vec![1])]);
}

#[test]
fn a_block_that_was_fetched_is_reported_to_who_promised_it_once() {
    let mut relay = Relay::new(9);
    relay.announced(at(0), 1, 1, 1_000);
    relay.holds(at(1), 2, vec![1, 1], false);
    assert!(!relay.asked(at(2_000)).is_empty());
    relay.verified(1, BlockSource::Reply(peer(2)));
    let late = relay.outputs.iter().filter(|output| {
        matches!(output, DisseminationOutput::Send { peer: to, body: ChannelBody::Late(_) } if *to == peer(1))
    });
    assert_eq!(late.count(), 1);
    assert_eq!((relay.counters.requested, relay.counters.repaired), (1, 1));
}

#[test]
fn in_a_large_organization_more_hear_who_holds_a_block() {
    for (members, expected) in [(20, 4), (499, 4), (999, 9), (1_500, 10)] {
        let mut relay = Relay::new(members);
        relay.verified(1, BlockSource::Push(peer(1)));
        relay.machine.handle_timeout(at(1_000), &relay.chain, &mut relay.outputs, &mut relay.counters);
        let is_holding = |output: &&DisseminationOutput| {
            matches!(output, DisseminationOutput::Send { body: ChannelBody::Holding(_), .. })
        };
        assert_eq!(relay.outputs.iter().filter(is_holding).count(), expected, "{members} members");
    }
}

#[test]
fn who_is_far_behind_gets_announcements_and_no_bodies() {
    let mut relay = Relay::new(4);
    relay.verified(1, BlockSource::Orderer);
    relay.outputs.clear();
    relay.machine.highest = 200;
    relay.machine.handle_height(peer(2), 200 - FAR_BEHIND_BLOCKS);
    relay.verified(201, BlockSource::Orderer);
    relay.machine.flush(at(1_000), &mut relay.outputs);
    let told = relay.outputs.iter().any(|output| {
        matches!(output, DisseminationOutput::Send { peer: to, body: ChannelBody::Announcement(_) } if *to == peer(2))
    });
    assert!(told);
    assert!(!relay.pushes().contains(&peer(2)));
    relay.machine.handle_height(peer(2), 201);
    relay.verified(202, BlockSource::Orderer);
    assert!(relay.pushes().contains(&peer(2)));
}

proptest! {
    /// Whatever members say, what this peer forwards goes to at most so many, to each once, never to a stranger.
    #[test]
    fn pushes_are_bounded_and_go_to_members_whatever_is_ordered(
        orders in proptest::collection::vec(
            (1usize..12, 1u64..4, proptest::collection::vec((1usize..15, 0u32..6), 0..12)), 0..30),
    ) {
        let mut relay = Relay::new(9);
        let mut sent: BTreeMap<u64, Vec<PkiId>> = BTreeMap::new();
        for (from, number, entries) in orders {
            relay.pushed(from, number, &entries);
            if !relay.chain.holds(number) {
                relay.verified(number, BlockSource::Push(peer(from)));
            }
            for output in relay.outputs.drain(..) {
                if let DisseminationOutput::Push { peer: to, number, .. } = output {
                    prop_assert!(to != peer(from));
                    sent.entry(number).or_default().push(to);
                }
            }
        }
        for to in sent.values_mut() {
            prop_assert!(to.len() <= FANOUT);
            prop_assert!(to.iter().all(|to| (1..=9).any(|index| *to == peer(index))));
            to.sort();
            let all = to.len();
            to.dedup();
            prop_assert_eq!(to.len(), all);
        }
    }
}
