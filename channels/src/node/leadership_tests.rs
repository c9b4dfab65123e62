//! Whose election messages count.

use super::tests::{SESSION, at, node, outputs};
use super::*;
use crate::authority::ToyAuthority;
use crate::block::AuthenticBlock;
use crate::isolation::{TAG_SIZE, proof};
use crate::wire::{ChannelBody, ChannelFrame, Frame, Joined, Leadership, LeadershipKind};

const GENESIS: Digest = Digest([9; 32]);

fn audit() -> ChannelId {
    "audit".parse().unwrap()
}

/// A node of Org1 that elects a leader of `audit`, which is Org2's channel, too.
fn electing() -> Node {
    let mut node = node(false);
    node.config.election.use_leader_election = true;
    let organizations = ["Org1MSP".into(), "Org2MSP".into()].into();
    let scope = Scope { genesis_hash: GENESIS, organizations, former: BTreeMap::new() };
    let setup =
        ChannelSetup { channel: audit(), scope, anchors: Anchors::new(), height: 1, tip: Digest([1; 32]) };
    node.handle(at(0), Input::Join(setup));
    outputs(&mut node);
    node
}

fn connect(node: &mut Node, organization: &str, name: &str, has_joined: bool) -> PkiId {
    let credential = ToyAuthority::credential(organization, name);
    let peer = credential.pki_id;
    node.handle(at(1), Input::Connected { credential, session: SESSION, endpoint: None });
    if has_joined {
        let joined = Joined { proofs: vec![proof(&GENESIS, &SESSION, &peer).to_vec()] };
        node.handle(at(1), Input::Control { peer, frame: Frame::encode_body(FrameBody::Joined(joined)) });
    }
    outputs(node);
    peer
}

/// Says that it leads, in term 3, by the tag that a member would use.
fn declares(node: &mut Node, peer: PkiId) {
    let kind = LeadershipKind::Declaration.into();
    says(node, peer, Leadership { kind, counter: 3, height: 1, ..Leadership::default() });
}

fn says(node: &mut Node, peer: PkiId, leadership: Leadership) {
    let tag = proof(&GENESIS, &SESSION, &peer)[..TAG_SIZE].to_vec();
    let frame = ChannelFrame { tag, body: Some(ChannelBody::Leadership(leadership)) };
    node.handle(at(2), Input::Control { peer, frame: Frame::encode_body(FrameBody::Channel(frame)) });
}

#[test]
fn a_member_of_the_own_organisation_is_followed() {
    let mut node = electing();
    let peer = connect(&mut node, "Org1MSP", "peer1", true);
    declares(&mut node, peer);
    assert_eq!(node.leader(&audit()), Some(Term { counter: 3, leader: peer }));
    node.handle(at(3), Input::Disconnected { peer });
    assert_eq!(node.leader(&audit()), None, "not without a connection");
}

/// A leader that hands over because it stops passes nothing on any more; one that only lost its orderers does.
#[test]
fn a_leader_that_stops_is_left_out_of_the_next_plan() {
    for is_stopping in [false, true] {
        let mut node = electing();
        let own = node.own.pki_id;
        let peer = connect(&mut node, "Org1MSP", "peer1", true);
        declares(&mut node, peer);
        let kind = LeadershipKind::Resignation.into();
        let about = own.0.0.to_vec();
        says(&mut node, peer, Leadership { kind, counter: 3, about, is_stopping, ..Leadership::default() });
        assert!(node.is_leader(&audit()));
        outputs(&mut node);
        let block = AuthenticBlock::simulated(1, Digest([1; 32]), 100);
        node.handle(at(4), Input::OrdererBlock { channel: audit(), body: block.encoded().clone() });
        let verify = outputs(&mut node).into_iter().find_map(|output| match output {
            Output::Verify { ticket, .. } => Some(ticket),
            _ => None,
        });
        node.handle(at(5), Input::Verified { ticket: verify.unwrap(), result: Ok(block) });
        let pushed = outputs(&mut node)
            .iter()
            .any(|output| matches!(output, Output::SendBlock { peer: to, .. } if *to == peer));
        assert_eq!(pushed, !is_stopping);
    }
}

#[test]
fn strangers_other_organisations_and_who_has_not_joined_are_not() {
    let mut node = electing();
    let foreign = connect(&mut node, "Org2MSP", "peer1", true);
    let outside = connect(&mut node, "Org1MSP", "peer2", false);
    let stranger = PkiId::new(&"Org1MSP".into(), "peer3");
    let unlinked = node.counters().unlinked_frames;
    for peer in [foreign, outside, stranger] {
        declares(&mut node, peer);
        assert_eq!(node.leader(&audit()), None);
    }
    assert_eq!(node.counters().unlinked_frames, unlinked + 2, "a stranger is not even heard");
    // Nor did the counter of the term count.
    let member = connect(&mut node, "Org1MSP", "peer1", true);
    declares(&mut node, member);
    assert_eq!(node.leader(&audit()), Some(Term { counter: 3, leader: member }));
}
