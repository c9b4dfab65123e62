//! Introductions and anchors: what a node takes from whom, and what it says of it.

use std::collections::BTreeSet;

use grapevine_crypto::{MspId, sha256};
use prost::Message;

use super::tests::{SESSION, at, genesis, node, outputs, trade};
use super::*;
use crate::authority::ToyAuthority;
use crate::block::AuthenticBlock;
use crate::isolation::{TAG_SIZE, proof};
use crate::wire::{BulkHeader, BulkKind, ChannelBody, Frame, Joined, Request};

const ANCHOR: &str = "anchor:1";

fn other() -> ChannelId {
    "other".parse().unwrap()
}

fn other_hash() -> Digest {
    sha256(b"other")
}

fn introduce(node: &mut Node, channel: ChannelId, genesis_hash: Digest) {
    node.handle(at(1), Input::Introduce { channel, genesis_hash, endpoint: ANCHOR.to_owned() });
}

/// A peer of an organisation answers at the anchor's address and shows that it is in the channel that is asked for.
fn connect(node: &mut Node, organization: &str, shows: &[Digest]) -> PkiId {
    let credential = ToyAuthority::credential(organization, "peer1");
    let peer = credential.pki_id;
    let endpoint = Some(ANCHOR.to_owned());
    node.handle(at(2), Input::Connected { credential, session: SESSION, endpoint });
    let proofs = shows.iter().map(|hash| proof(hash, &SESSION, &peer).to_vec()).collect();
    node.handle(
        at(2),
        Input::Control { peer, frame: Frame::encode_body(FrameBody::Joined(Joined { proofs })) },
    );
    peer
}

fn send(node: &mut Node, peer: PkiId, block: &AuthenticBlock, kind: BulkKind) {
    let tag = proof(&other_hash(), &SESSION, &peer)[..TAG_SIZE].to_vec();
    let (number, hash) = (block.number(), block.hash().0.to_vec());
    let header = BulkHeader { tag, number, hash, kind: kind.into(), delegation: None }.encode_to_vec();
    node.handle(at(3), Input::Bulk { peer, header: header.into(), body: block.encoded().clone() });
}

fn refusals(node: &mut Node) -> Vec<String> {
    let refusal = |output| match output {
        Output::Introduced { result: Err(reason), .. } => Some(reason),
        _ => None,
    };
    outputs(node).into_iter().filter_map(refusal).collect()
}

fn asks_for_genesis(output: &Output) -> bool {
    let Output::SendControl { frame, .. } = output else { return false };
    let Ok(FrameBody::Channel(frame)) = Frame::parse(frame.clone()) else { return false };
    frame.body == Some(ChannelBody::Request(Request { numbers: vec![0] }))
}

#[test]
fn whoever_shows_the_channel_is_asked_once_and_only_a_wrong_genesis_block_is_held_against_it() {
    let mut node = node(false);
    introduce(&mut node, other(), other_hash());
    assert!(outputs(&mut node).contains(&Output::Dial { endpoint: ANCHOR.to_owned() }));
    let peer = connect(&mut node, "Org1MSP", &[other_hash(), genesis().hash()]);
    assert_eq!(outputs(&mut node).iter().filter(|output| asks_for_genesis(output)).count(), 1);
    // It takes us for a member by now.
    send(&mut node, peer, &AuthenticBlock::simulated(7, other_hash(), 100), BulkKind::Push);
    assert_eq!(outputs(&mut node), vec![]);
    send(&mut node, peer, &genesis(), BulkKind::Reply);
    assert_eq!(outputs(&mut node), vec![Output::Penalise { peer, why: Penalty::WrongBlock }]);
    node.handle_timeout(at(1) + INTRODUCTION_TIMEOUT);
    assert!(refusals(&mut node)[0].starts_with("none of the peers that have the channel"));
}

#[test]
fn an_introduction_that_fails_says_why() {
    let mut node = node(false);
    introduce(&mut node, other(), other_hash());
    node.handle(at(2), Input::DialFailed { endpoint: ANCHOR.to_owned(), reason: "refused".to_owned() });
    assert_eq!(refusals(&mut node), [format!("no peer can be reached at {ANCHOR}: refused")]);
    introduce(&mut node, other(), other_hash());
    connect(&mut node, "Org1MSP", &[]);
    node.handle_timeout(at(1) + INTRODUCTION_TIMEOUT);
    assert!(refusals(&mut node)[0].contains("does not show that it is in a channel"));
    introduce(&mut node, other(), other_hash());
    node.handle_timeout(at(1) + INTRODUCTION_TIMEOUT);
    assert!(refusals(&mut node)[0].starts_with("no peer answered"));
}

#[test]
fn introductions_are_bounded_and_never_get_in_the_way_of_a_joined_channel() {
    let mut node = node(false);
    introduce(&mut node, trade(), other_hash());
    introduce(&mut node, other(), genesis().hash());
    let said = refusals(&mut node);
    assert!(said[0].contains("joined already") && said[1].contains("is trade"), "{said:?}");
    for index in 0..=INTRODUCTIONS_MAX {
        introduce(&mut node, format!("c{index}").parse().unwrap(), sha256(&index.to_be_bytes()));
    }
    assert!(refusals(&mut node)[0].contains("another attempt"));
    // Joined by its block while it is being asked for: that stays.
    let scope = Scope {
        genesis_hash: sha256(&0usize.to_be_bytes()),
        organizations: ["Org1MSP".into()].into(),
        former: BTreeMap::new(),
    };
    let channel: ChannelId = "c0".parse().unwrap();
    let tip = scope.genesis_hash;
    let setup = ChannelSetup {
        channel: channel.clone(),
        scope: scope.clone(),
        anchors: Anchors::new(),
        height: 1,
        tip,
    };
    node.handle(at(3), Input::Join(setup));
    assert!(refusals(&mut node)[0].contains("meanwhile"));
    node.handle_timeout(at(1) + INTRODUCTION_TIMEOUT);
    assert_eq!(refusals(&mut node).len(), INTRODUCTIONS_MAX - 1);
    assert_eq!(node.scopes.get(&channel), Some(&scope));
}

fn configure(node: &mut Node, now: Time, of_org2: &[&str]) {
    let organizations: BTreeSet<MspId> = ["Org1MSP".into(), "Org2MSP".into()].into();
    let scope = Scope { genesis_hash: genesis().hash(), organizations, former: BTreeMap::new() };
    let listed = |endpoints: &[&str]| endpoints.iter().map(|endpoint| (*endpoint).to_owned()).collect();
    // The first organisation lists this very node.
    let anchors = [("Org1MSP".into(), listed(&["peer0.org1:1"])), ("Org2MSP".into(), listed(of_org2))].into();
    node.handle(now, Input::Reconfigured { channel: trade(), scope, anchors });
}

fn troubles(node: &mut Node, now: Time) -> Vec<AnchorTrouble> {
    node.handle_timeout(now);
    let all = node.anchor_troubles(&trade());
    assert!(all.iter().all(|(organization, _)| organization.as_str() == "Org2MSP"), "{all:?}");
    all.into_iter().map(|(_, trouble)| trouble).collect()
}

#[test]
fn anchors_that_are_missing_silent_or_foreign_are_told_of_until_they_are_right() {
    let mut node = node(false);
    configure(&mut node, at(1), &[]);
    assert_eq!(troubles(&mut node, at(1)), [AnchorTrouble::Missing]);
    let told = |node: &mut Node| {
        outputs(node).iter().filter(|output| matches!(output, Output::Event(Event::Anchor { .. }))).count()
    };
    assert_eq!(told(&mut node), 1);
    assert_eq!(troubles(&mut node, at(6_000)), [AnchorTrouble::Missing]);
    assert_eq!(told(&mut node), 0, "once");

    configure(&mut node, at(6_001), &[ANCHOR]);
    assert_eq!(troubles(&mut node, at(6_001)), []);
    assert_eq!(troubles(&mut node, at(6_001) + ANCHOR_SILENCE_MAX), [AnchorTrouble::Silent]);
    let peer = connect(&mut node, "Org1MSP", &[]);
    let now = at(6_001) + 2 * ANCHOR_SILENCE_MAX;
    let foreign = AnchorTrouble::Foreign { endpoint: ANCHOR.to_owned(), organization: "Org1MSP".into() };
    assert_eq!(troubles(&mut node, now), [AnchorTrouble::Silent, foreign]);
    node.handle(now, Input::Disconnected { peer });
    connect(&mut node, "Org2MSP", &[]);
    assert_eq!(troubles(&mut node, now + ANCHOR_SILENCE_MAX), []);
}
