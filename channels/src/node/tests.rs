//! The node as its driver sees it: inputs in, outputs out.

use std::collections::BTreeSet;

use super::*;
use crate::authority::ToyAuthority;
use crate::block::AuthenticBlock;
use crate::chain::{Held, PENDING_BYTES_MAX};
use crate::isolation::proof;
use crate::wire::{BulkHeader, BulkKind, ChannelBody, ChannelFrame, Frame, FrameBody, Joined, Request};
use prost::Message;

const OWN: &str = "peer0";
const BUFFER_BLOCKS: u64 = 256;
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

pub(super) fn node_with(org_leader: bool, mode: DisseminationMode) -> Node {
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
        block_buffer_size: BUFFER_BLOCKS,
        max_block_count_to_store: 10,
        halt_on_equivocation: false,
        publish_state_info_interval: second,
    };
    let own = ToyAuthority::credential("Org1MSP", OWN);
    let start = Start { own, peer_id: vec![1], incarnation: 1, wall_ms: 0, seed: 1 };
    let authority = ToyAuthority::new("Org1MSP", OWN, &["Org1MSP"]);
    let mut node = Node::new(config, start, Box::new(authority), Time::ZERO);
    let scope = Scope {
        genesis_hash: genesis().hash(),
        organizations: ["Org1MSP".into()].into(),
        former: BTreeMap::new(),
    };
    let tip = genesis().hash();
    let setup = ChannelSetup { channel: trade(), scope, anchors: Anchors::new(), height: 1, tip };
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
    let credential = Credential { pki_id: peer, ..ToyAuthority::credential("Org1MSP", "other") };
    node.handle(at(1), Input::Connected { credential, session: SESSION, endpoint: None });
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

/// The leader takes it for one that keeps new blocks; having heard the height, it sends announcements instead.
#[test]
fn who_is_pushed_a_block_too_far_ahead_says_how_high_it_is() {
    let heights_told = |ahead: u64| {
        let mut node = node(false);
        let peer = PkiId::new(&"Org1MSP".into(), "peer1");
        connect(&mut node, peer);
        outputs(&mut node);
        let number = BUFFER_BLOCKS + ahead;
        peer_sends(&mut node, peer, &chain_of(number, 100)[number as usize - 1]);
        node.handle_timeout(at(1_100));
        let is_state = |output: &Output| match output {
            Output::SendControl { frame, .. } => matches!(
                Frame::parse(frame.clone()),
                Ok(FrameBody::Channel(ChannelFrame { body: Some(ChannelBody::State(_)), .. }))
            ),
            _ => false,
        };
        outputs(&mut node).iter().filter(|output| is_state(output)).count()
    };
    assert_eq!(heights_told(1), heights_told(0) + 1);
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

/// Hands the node a block of another peer and gives what it wants then; verification finds it authentic.
fn peer_sends(node: &mut Node, peer: PkiId, block: &AuthenticBlock) -> Vec<Output> {
    push(node, peer, block);
    for ticket in tickets(node) {
        node.handle(at(2), Input::Verified { ticket, result: Ok(block.clone()) });
    }
    outputs(node)
}

fn evidence_of(outputs: &[Output]) -> Vec<Digest> {
    let evidence = |output: &Output| match output {
        Output::KeepEvidence { block, .. } => Some(block.hash()),
        _ => None,
    };
    outputs.iter().filter_map(evidence).collect()
}

/// A node with blocks 1 to 30 committed, of which it remembers the last 10, connected to a peer.
fn node_with_history(halt_on_equivocation: bool) -> (Node, PkiId, Vec<AuthenticBlock>) {
    let mut node = node(true);
    node.config.halt_on_equivocation = halt_on_equivocation;
    let peer = PkiId::new(&"Org1MSP".into(), "peer1");
    connect(&mut node, peer);
    let blocks = chain_of(30, 100);
    for block in &blocks {
        orderer_sends(&mut node, at(1), block);
        let (height, tip) = (block.number() + 1, block.hash());
        node.handle(at(1), Input::Committed { channel: trade(), height, tip });
    }
    outputs(&mut node);
    (node, peer, blocks)
}

#[test]
fn a_second_authentic_block_is_evidence_at_every_height() {
    let (mut node, peer, blocks) = node_with_history(false);
    // Inside the window of recent blocks the node knows by itself.
    let recent = AuthenticBlock::simulated(28, Digest([9; 32]), 100);
    assert_eq!(evidence_of(&peer_sends(&mut node, peer, &recent)), vec![recent.hash()]);
    // Below it the ledger says.
    let old = AuthenticBlock::simulated(3, Digest([9; 32]), 100);
    let wanted = peer_sends(&mut node, peer, &old);
    let compare = |block: &AuthenticBlock| Output::Compare { channel: trade(), block: block.clone() };
    assert!(wanted.contains(&compare(&old)) && evidence_of(&wanted).is_empty(), "{wanted:?}");
    let kept = Some(blocks[2].hash());
    node.handle(at(3), Input::Compared { channel: trade(), block: old.clone(), kept });
    let wanted = outputs(&mut node);
    assert_eq!(evidence_of(&wanted), vec![old.hash()]);
    assert!(wanted.iter().any(|output| matches!(output, Output::Event(Event::Fork { number: 3, .. }))));
    assert!(!wanted.iter().any(|output| matches!(output, Output::Halt { .. })));

    // The very block that was committed is none, whether the node, verification or the ledger finds it out.
    let duplicates = node.counters().duplicate_blocks;
    push(&mut node, peer, &blocks[4]);
    assert!(tickets(&mut node).is_empty());
    let kept = Some(blocks[5].hash());
    node.handle(at(4), Input::Compared { channel: trade(), block: blocks[5].clone(), kept });
    assert_eq!(node.counters().duplicate_blocks, duplicates + 2);
    push(&mut node, peer, &AuthenticBlock::simulated(6, Digest([8; 32]), 100));
    let ticket = tickets(&mut node)[0];
    let known = Rejection::Known { number: 6, hash: blocks[5].hash() };
    node.handle(at(4), Input::Verified { ticket, result: Err(known) });
    assert_eq!(node.counters().duplicate_blocks, duplicates + 3);
    let wanted = outputs(&mut node);
    let wrong = Output::Penalise { peer, why: Penalty::WrongBlock };
    assert!(wanted.contains(&wrong), "it is not what the sender said: {wanted:?}");
    assert!(evidence_of(&wanted).is_empty());
    let (chain, _) = node.channel_counters(&trade()).unwrap();
    assert_eq!(chain.conflicts, 2);
}

#[test]
fn halting_on_equivocation_holds_for_old_blocks_too() {
    let (mut node, peer, blocks) = node_with_history(true);
    let old = AuthenticBlock::simulated(3, Digest([9; 32]), 100);
    peer_sends(&mut node, peer, &old);
    let kept = Some(blocks[2].hash());
    node.handle(at(3), Input::Compared { channel: trade(), block: old.clone(), kept });
    let outputs = outputs(&mut node);
    let halt = outputs.iter().position(|output| matches!(output, Output::Halt { .. })).unwrap();
    // The others hear of it first: both blocks, the own one before the other.
    let sent = outputs[..halt].iter().filter_map(|output| match output {
        Output::SendBlock { peer: to, number: 3, block, .. } if *to == peer => Some(block.clone()),
        _ => None,
    });
    assert_eq!(sent.collect::<Vec<_>>(), vec![Held::Ledger(3), Held::Memory(old.clone())]);
    // Nothing is written from now on, and nothing sent a second time.
    let next = AuthenticBlock::simulated(31, blocks[29].hash(), 100);
    let later = peer_sends(&mut node, peer, &next);
    assert!(!later.iter().any(|output| matches!(output, Output::Commit { .. })), "{later:?}");
    let again = AuthenticBlock::simulated(30, Digest([8; 32]), 100);
    let later = peer_sends(&mut node, peer, &again);
    assert!(!later.iter().any(|output| matches!(output, Output::Halt { .. } | Output::SendBlock { .. })));
}

#[test]
fn blocks_being_compared_with_the_ledger_are_bounded() {
    let (mut node, peer, _) = node_with_history(false);
    for seed in 0..=COMPARING_MAX {
        let old = AuthenticBlock::simulated(3, Digest([seed as u8; 32]), 100);
        let wanted = peer_sends(&mut node, peer, &old);
        let asked = wanted.iter().any(|output| matches!(output, Output::Compare { .. }));
        assert_eq!(asked, seed < COMPARING_MAX);
    }
    assert_eq!(node.counters().comparing_over_bound, 1);
}

mod removed_organisations {
    use super::*;
    use crate::isolation::LastBlock;
    use crate::wire::Request;

    const REMOVED: &str = "Org2MSP";

    fn stranger(number: usize) -> PkiId {
        PkiId::new(&REMOVED.into(), &format!("peer{number}"))
    }

    fn arrives(node: &mut Node, now: Time, peer: PkiId) {
        let credential = Credential { pki_id: peer, ..ToyAuthority::credential(REMOVED, "other") };
        node.handle(now, Input::Connected { credential, session: SESSION, endpoint: None });
        let proofs = vec![proof(&genesis().hash(), &SESSION, &peer).to_vec()];
        node.handle(
            now,
            Input::Control { peer, frame: Frame::encode_body(FrameBody::Joined(Joined { proofs })) },
        );
    }

    /// Org2 is removed (or let in) by the highest block.
    fn reconfigure(node: &mut Node, now: Time, is_member: bool) -> LastBlock {
        let (height, hash) = node.height(&trade()).unwrap();
        let last = LastBlock { number: height - 1, hash };
        let mut organizations = BTreeSet::from(["Org1MSP".into()]);
        let mut former = BTreeMap::new();
        if is_member {
            organizations.insert(REMOVED.into());
        } else {
            former.insert(REMOVED.into(), last);
        }
        let scope = Scope { genesis_hash: genesis().hash(), organizations, former };
        node.handle(now, Input::Reconfigured { channel: trade(), scope, anchors: Anchors::new() });
        last
    }

    fn ask(node: &mut Node, now: Time, peer: PkiId, numbers: Vec<u64>) {
        let tag = proof(&genesis().hash(), &SESSION, &peer)[..crate::isolation::TAG_SIZE].to_vec();
        let body = Some(ChannelBody::Request(Request { numbers }));
        let frame = Frame::encode_body(FrameBody::Channel(ChannelFrame { tag, body }));
        node.handle(now, Input::Control { peer, frame });
    }

    /// Numbers of blocks and heights of states sent to a peer, and numbers refused.
    fn sent(node: &mut Node, peer: PkiId) -> (Vec<u64>, Vec<u64>, Vec<u64>) {
        let (mut blocks, mut heights, mut refused) = (vec![], vec![], vec![]);
        for output in outputs(node) {
            match output {
                Output::SendBlock { peer: to, number, .. } if to == peer => blocks.push(number),
                Output::SendControl { peer: to, frame } if to == peer => match Frame::parse(frame).unwrap() {
                    FrameBody::Channel(ChannelFrame { body: Some(ChannelBody::State(state)), .. }) => {
                        heights.push(state.height);
                    }
                    FrameBody::Channel(ChannelFrame {
                        body: Some(ChannelBody::Refusal(refusal)), ..
                    }) => {
                        refused.extend(refusal.numbers);
                    }
                    FrameBody::Joined(_) => {}
                    other => panic!("a guest gets {other:?}"),
                },
                _ => {}
            }
        }
        (blocks, heights, refused)
    }

    fn grow(node: &mut Node, blocks: &[AuthenticBlock]) {
        for block in blocks {
            orderer_sends(node, at(50), block);
            let (height, tip) = (block.number() + 1, block.hash());
            node.handle(at(50), Input::Committed { channel: trade(), height, tip });
        }
        node.handle_timeout(at(5_000));
    }

    /// The whole life: member, removed while connected, the chain grows, gone, back, behind, idle, let in again.
    #[test]
    fn get_the_chain_up_to_their_removal_and_nothing_later() {
        let (mut node, _, blocks) = node_with_history(false);
        let peer = stranger(0);
        reconfigure(&mut node, at(10), true);
        arrives(&mut node, at(11), peer);
        assert!(node.channel_members(&trade()).contains(&peer) && node.membership().is_connected(&peer));
        outputs(&mut node);

        let last = reconfigure(&mut node, at(20), false);
        assert_eq!(last.number, 30);
        assert_eq!(sent(&mut node, peer).0, vec![30], "the block that removes them is pushed");
        assert!(!node.channel_members(&trade()).contains(&peer) && !node.membership().is_connected(&peer));
        let more = chain_of(40, 100)[30..].to_vec();
        assert_eq!(more[0].previous_hash(), Some(blocks[29].hash()));
        grow(&mut node, &more);
        assert_eq!(node.height(&trade()).unwrap().0, 41);
        assert_eq!(sent(&mut node, peer), (vec![], vec![], vec![]), "nothing later, not even the height");

        node.handle(at(5_100), Input::Disconnected { peer });
        arrives(&mut node, at(5_200), peer);
        let (_, heights, _) = sent(&mut node, peer);
        assert_eq!(heights, vec![31]);
        ask(&mut node, at(5_300), peer, vec![4, 30, 31, 40]);
        assert_eq!(sent(&mut node, peer), (vec![4, 30], vec![], vec![31, 40]));
        push(&mut node, peer, &more[0]);
        assert!(tickets(&mut node).is_empty(), "it is no source of blocks");

        // Asking keeps it here, silence does not.
        ask(&mut node, at(5_300) + GUEST_IDLE, peer, vec![5]);
        node.handle_timeout(at(5_301) + GUEST_IDLE);
        let away = |output: &Output| matches!(output, Output::Disconnect { peer: who, .. } if *who == peer);
        assert!(!outputs(&mut node).iter().any(away));
        node.handle_timeout(at(5_300) + GUEST_IDLE * 2);
        assert!(outputs(&mut node).iter().any(away));

        reconfigure(&mut node, at(90_000), true);
        assert!(node.channel_members(&trade()).contains(&peer) && node.membership().is_connected(&peer));
    }

    #[test]
    fn are_few_at_a_time() {
        let (mut node, _, _) = node_with_history(false);
        reconfigure(&mut node, at(10), false);
        for number in 0..=GUESTS_MAX {
            outputs(&mut node);
            arrives(&mut node, at(11), stranger(number));
            let refused = outputs(&mut node).iter().any(|output| matches!(output, Output::Disconnect { .. }));
            assert_eq!(refused, number == GUESTS_MAX);
        }
        assert_eq!(node.counters().guests_over_bound, 1);
    }
}

#[test]
fn a_frame_of_a_channel_the_sender_is_not_in_is_dropped_and_counted() {
    let mut node = node(false);
    let peer = PkiId::new(&"Org1MSP".into(), "peer1");
    connect(&mut node, peer);
    outputs(&mut node);
    // Knows the genesis hash of another channel only, and that of ours under another session.
    let stranger = proof(&Digest([9; 32]), &SESSION, &peer);
    let replayed = proof(&genesis().hash(), &[8; 32], &peer);
    for proof in [stranger, replayed] {
        let tag = proof[..crate::isolation::TAG_SIZE].to_vec();
        let before = node.counters().unlinked_frames;
        let body = Some(ChannelBody::Request(Request { numbers: vec![0] }));
        let frame = Frame::encode_body(FrameBody::Channel(ChannelFrame { tag: tag.clone(), body }));
        node.handle(at(5), Input::Control { peer, frame });
        let block = &chain_of(1, 100)[0];
        let header = BulkHeader { tag, number: 1, kind: BulkKind::Push.into(), ..BulkHeader::default() };
        let (header, body) = (header.encode_to_vec().into(), block.encoded().clone());
        node.handle(at(6), Input::Bulk { peer, header, body });
        assert_eq!(node.counters().unlinked_frames, before + 2);
        assert_eq!(outputs(&mut node), [], "the sender learns nothing, and is not even disconnected");
    }
}
