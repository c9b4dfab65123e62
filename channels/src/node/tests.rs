//! The node as its driver sees it: inputs in, outputs out.

use super::*;
use crate::authority::ToyAuthority;
use crate::chain::PENDING_BYTES_MAX;
use crate::isolation::proof;
use crate::wire::{BulkHeader, BulkKind, Frame, FrameBody, Joined};
use prost::Message;

const OWN: &str = "peer0";
pub(super) const SESSION: [u8; 32] = [7; 32];

pub(super) fn at(milliseconds: u64) -> Time {
    Time::from_millis(milliseconds)
}

pub(super) fn trade() -> ChannelId {
    "trade".parse().unwrap()
}

pub(super) fn genesis() -> AuthenticBlock {
    AuthenticBlock::simulated(0, Digest([0; 32]), 100)
}

/// Blocks 1 to `count` of `size` bytes.
pub(super) fn chain_of(count: u64, size: usize) -> Vec<AuthenticBlock> {
    let mut previous = genesis().hash();
    (1..=count)
        .map(|number| {
            let block = AuthenticBlock::simulated(number, previous, size);
            previous = block.hash();
            block
        })
        .collect()
}

/// A node of Org1 that has joined `trade`, as its static leader or not.
pub(super) fn node(org_leader: bool) -> Node {
    node_with(org_leader, DisseminationMode::Grapevine)
}

fn node_with(org_leader: bool, mode: DisseminationMode) -> Node {
    let second = Duration::from_secs(1);
    let config = NodeConfig {
        membership: MembershipConfig {
            network_id: "test".into(),
            internal_endpoint: "peer0.org1:1".into(),
            external_endpoint: String::new(),
            bootstrap: vec![],
            alive_interval: second,
            alive_expiration: 5 * second,
            reconnect_interval: second,
            fanout: 3,
            connections_max: 100,
        },
        election: ElectionConfig {
            use_leader_election: false,
            org_leader,
            startup_grace_period: second,
            membership_sample_interval: second,
            leader_alive_threshold: second,
            leader_election_duration: second,
        },
        dissemination: DisseminationConfig {
            mode,
            propagate_peer_num: 3,
            pull_interval: second,
            pull_peer_num: 3,
            link_bits_per_second: 1_000_000_000,
        },
        dissemination_modes: BTreeMap::new(),
        reconciliation: ReconciliationConfig {
            enabled: true,
            check_interval: second,
            response_timeout: 3 * second,
            batch_size: 10,
            max_retries: 3,
        },
        block_buffer_size: 64,
        max_block_count_to_store: 10,
        halt_on_equivocation: false,
        publish_state_info_interval: second,
    };
    let own = ToyAuthority::credential("Org1MSP", OWN);
    let start = Start { own, peer_id: vec![1], incarnation: 1, wall_start: 0, seed: 1 };
    let authority = ToyAuthority::new("Org1MSP", OWN, &["Org1MSP"]);
    let mut node = Node::new(config, start, Box::new(authority), Time::ZERO);
    let scope = Scope { genesis_hash: genesis().hash(), organizations: ["Org1MSP".into()].into() };
    let tip = genesis().hash();
    let setup = ChannelSetup { channel: trade(), scope, anchors: BTreeSet::new(), height: 1, tip };
    node.handle(Time::ZERO, Input::Join(setup));
    node
}

pub(super) fn outputs(node: &mut Node) -> Vec<Output> {
    std::iter::from_fn(|| node.poll_output()).collect()
}

/// The tickets of the blocks to be verified among all that is wanted now.
fn tickets(node: &mut Node) -> Vec<Ticket> {
    let ticket = |output| if let Output::Verify { ticket, .. } = output { Some(ticket) } else { None };
    outputs(node).into_iter().filter_map(ticket).collect()
}

fn orderer_sends(node: &mut Node, now: Time, block: &AuthenticBlock) {
    node.handle(now, Input::OrdererBlock { channel: trade(), body: block.encoded().clone() });
    for ticket in tickets(node) {
        node.handle(now, Input::Verified { ticket, result: Ok(block.clone()) });
    }
}

pub(super) fn connect(node: &mut Node, peer: PkiId) {
    let organization = "Org1MSP".into();
    node.handle(at(1), Input::Connected { peer, organization, session: SESSION, endpoint: None });
    let proofs = vec![proof(&genesis().hash(), &SESSION, &peer).to_vec()];
    let frame = Frame::encode_body(FrameBody::Joined(Joined { proofs }));
    node.handle(at(1), Input::Control { peer, frame });
}

fn push(node: &mut Node, peer: PkiId, block: &AuthenticBlock) {
    let tag = proof(&genesis().hash(), &SESSION, &peer)[..crate::isolation::TAG_SIZE].to_vec();
    let hash = block.hash().0.to_vec();
    let header =
        BulkHeader { tag, number: block.number(), hash, kind: BulkKind::Push.into(), delegation: None };
    let body = block.encoded().clone();
    node.handle(at(2), Input::Bulk { peer, header: header.encode_to_vec().into(), body });
}

/// A block of the orderer that finds no room is pulled again, once the disk is done with those before, not over and over.
#[test]
fn a_dropped_block_of_the_orderer_is_pulled_again_when_there_is_room() {
    let mut node = node(true);
    assert!(outputs(&mut node).contains(&Output::StartDeliver { channel: trade(), next: 1 }));
    let blocks = chain_of(6, PENDING_BYTES_MAX / 2 + 1);
    for block in &blocks[..2] {
        orderer_sends(&mut node, at(10), block);
    }
    outputs(&mut node);
    // Block 1 is on its way to the disk, 2 waits for it, 3 finds no room; 4 comes too late to matter.
    orderer_sends(&mut node, at(10), &blocks[2]);
    let stop = Output::StopDeliver { channel: trade() };
    assert_eq!(outputs(&mut node).iter().filter(|output| **output == stop).count(), 1);
    orderer_sends(&mut node, at(10), &blocks[3]);
    assert!(!outputs(&mut node).contains(&stop), "it rests already");

    node.handle_timeout(at(10) + ORDERER_REST);
    let start = |next| Output::StartDeliver { channel: trade(), next };
    assert!(!outputs(&mut node).iter().any(|output| matches!(output, Output::StartDeliver { .. })));
    for height in [2, 3] {
        let tip = blocks[height as usize - 2].hash();
        node.handle(at(300), Input::Committed { channel: trade(), height, tip });
    }
    node.handle_timeout(at(10) + ORDERER_REST * 2);
    assert!(outputs(&mut node).contains(&start(3)));
    orderer_sends(&mut node, at(500), &blocks[2]);
    assert!(outputs(&mut node).contains(&Output::Commit { channel: trade(), block: blocks[2].clone() }));
}

#[test]
fn what_a_peer_has_under_verification_is_bounded_over_reconnections() {
    let mut node = node(false);
    let peer = PkiId::new(&"Org1MSP".into(), "peer1");
    let blocks = chain_of(2 * VERIFYING_PER_PEER_MAX as u64, 100);
    connect(&mut node, peer);
    outputs(&mut node);
    blocks[..40].iter().for_each(|block| push(&mut node, peer, block));
    let first = tickets(&mut node);
    assert_eq!(first.len(), 40);
    node.handle(at(3), Input::Disconnected { peer });
    connect(&mut node, peer);
    outputs(&mut node);
    blocks[40..].iter().for_each(|block| push(&mut node, peer, block));
    assert_eq!(tickets(&mut node).len(), VERIFYING_PER_PEER_MAX - 40);
    assert_eq!(node.counters().verifying_over_bound, 128 - VERIFYING_PER_PEER_MAX as u64);
    let result = Err(Rejection::Untimely("no".into()));
    node.handle(at(4), Input::Verified { ticket: first[0], result });
    push(&mut node, peer, &blocks[127]);
    assert_eq!(tickets(&mut node).len(), 1, "a verdict makes room for one more");
}

#[test]
fn in_direct_mode_every_peer_leads_and_pushes_nothing() {
    let mut node = node_with(false, DisseminationMode::Direct);
    assert!(outputs(&mut node).contains(&Output::StartDeliver { channel: trade(), next: 1 }));
    connect(&mut node, PkiId::new(&"Org1MSP".into(), "peer1"));
    outputs(&mut node);
    orderer_sends(&mut node, at(10), &chain_of(1, 100)[0]);
    assert!(!outputs(&mut node).iter().any(|output| matches!(output, Output::SendBlock { .. })));
    assert_eq!(node.counters().blocks_pushed, 0);
}

#[test]
fn pings_are_answered_and_measured() {
    let mut node = node(false);
    let peer = PkiId::new(&"Org1MSP".into(), "peer1");
    connect(&mut node, peer);
    let sent = |node: &mut Node| -> Vec<FrameBody> {
        let frame = |output| match output {
            Output::SendControl { frame, .. } => Frame::parse(frame).ok(),
            _ => None,
        };
        outputs(node).into_iter().filter_map(frame).collect()
    };
    let frames = sent(&mut node);
    let ping =
        frames.iter().find_map(|frame| if let FrameBody::Ping(nonce) = frame { Some(*nonce) } else { None });
    node.handle(
        at(5),
        Input::Control { peer, frame: Frame::encode_body(FrameBody::Ping(Nonce { value: 7 })) },
    );
    assert_eq!(sent(&mut node), vec![FrameBody::Pong(Nonce { value: 7 })]);
    node.handle(at(21), Input::Control { peer, frame: Frame::encode_body(FrameBody::Pong(ping.unwrap())) });
    assert_eq!(node.round_trip(&peer), Some(Duration::from_millis(20)));
    node.handle(at(22), Input::RoundTrip { peer, round_trip: Duration::from_millis(4) });
    assert_eq!(node.round_trip(&peer), Some(Duration::from_millis(18)), "measured outside: one more sample");
}
