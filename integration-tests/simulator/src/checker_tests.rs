//! A checker that sees nothing is worse than none: each check against the wrong it is there for.

use grapevine_channels::block::AuthenticBlock;
use grapevine_channels::chain::Held;
use grapevine_channels::isolation::TAG_SIZE;
use grapevine_channels::time::Time;
use grapevine_channels::wire::{
    BulkHeader, BulkKind, ChannelBody, ChannelFrame, Frame, FrameBody, Joined, Leadership, LeadershipKind,
    SignedAlive, SignedInternalEndpoint, State, View,
};
use grapevine_crypto::Digest;
use prost::Message;

use crate::network::Connection;
use crate::scenario::Scenario;
use crate::simulation::Simulation;
use crate::truth::{ChannelIndex, Site};

/// Two peers of the first organisation and one of the second.
const ONE: Site = 0;
const TWO: Site = 1;
const FOREIGN: Site = 3;
const TRADE: ChannelIndex = 0;
const AUDIT: ChannelIndex = 1;

/// A network of 2 × 3 peers with some blocks committed.
fn running() -> Simulation {
    let scenario = Scenario::network(2, 3).with_channel("audit", &[0]);
    let mut simulation = Simulation::new(scenario, 1).unwrap();
    while simulation.now < Time::from_millis(7_000) {
        simulation.step().unwrap();
    }
    assert!(simulation.hosts[ONE].height(TRADE) > 10);
    simulation
}

fn connection(simulation: &Simulation, one: Site, other: Site) -> &Connection {
    &simulation.network.connections[&simulation.network.open_at(one, other).unwrap()]
}

fn tag(connection: &Connection, from: Site, channel: ChannelIndex) -> Vec<u8> {
    connection.proofs[connection.direction_from(from)][channel][..TAG_SIZE].to_vec()
}

/// What the checker says to a control frame from the first peer.
fn control(simulation: &Simulation, to: Site, body: impl Fn(&Connection) -> FrameBody) -> String {
    let connection = connection(simulation, ONE, to);
    let frame = Frame { body: Some(body(connection)) }.encode_to_vec().into();
    let verdict = simulation.checker.control_written(&simulation.truth, connection, ONE, &frame);
    verdict.err().unwrap_or_default()
}

fn channel_frame(connection: &Connection, channel: ChannelIndex, body: ChannelBody) -> FrameBody {
    FrameBody::Channel(ChannelFrame { tag: tag(connection, ONE, channel), body: Some(body) })
}

fn state() -> ChannelBody {
    ChannelBody::State(State { height: 1, tip_hash: vec![0; 32], answer: false })
}

/// What the checker says to a block from the first peer.
fn block(
    simulation: &mut Simulation,
    to: Site,
    channel: ChannelIndex,
    kind: BulkKind,
    block: Held,
) -> String {
    let id = simulation.network.open_at(ONE, to).unwrap();
    let connection = &simulation.network.connections[&id];
    let number = match &block {
        Held::Memory(block) => block.number(),
        Held::Ledger(number) => *number,
    };
    let header = BulkHeader {
        tag: tag(connection, ONE, channel),
        number,
        hash: vec![],
        kind: kind.into(),
        delegation: None,
    };
    let (header, host) = (header.encode_to_vec().into(), &simulation.hosts[ONE]);
    let verdict = simulation.checker.block_written(&simulation.truth, connection, ONE, &header, &block, host);
    verdict.err().unwrap_or_default()
}

#[test]
fn frames_outside_their_channel_and_organisation() {
    let simulation = running();
    let says = |to, body: &dyn Fn(&Connection) -> FrameBody| control(&simulation, to, body);
    assert_eq!(says(FOREIGN, &|connection| channel_frame(connection, TRADE, state())), "");
    assert_eq!(says(TWO, &|connection| channel_frame(connection, AUDIT, state())), "");
    assert!(
        says(FOREIGN, &|connection| channel_frame(connection, AUDIT, state())).contains("whose config lacks")
    );
    let nobody = |_: &Connection| FrameBody::Channel(ChannelFrame { tag: vec![0; 16], body: Some(state()) });
    assert!(says(TWO, &nobody).contains("the tag of no channel"));
    let election = |connection: &Connection| {
        let kind = LeadershipKind::Proposal.into();
        let message = Leadership { kind, counter: 1, height: 1, ..Leadership::default() };
        channel_frame(connection, TRADE, ChannelBody::Leadership(message))
    };
    assert_eq!(says(TWO, &election), "");
    assert!(says(FOREIGN, &election).contains("left the organisation"));
    let proofs = |connection: &Connection| {
        let shown = connection.proofs[connection.direction_from(ONE)][AUDIT].to_vec();
        FrameBody::Joined(Joined { proofs: vec![shown] })
    };
    assert_eq!(says(TWO, &proofs), "");
    assert!(says(FOREIGN, &proofs).contains("shown outside"));
    let view = |_: &Connection| {
        let internal = Some(SignedInternalEndpoint::default());
        FrameBody::View(View { records: vec![SignedAlive { internal, ..SignedAlive::default() }] })
    };
    assert_eq!(says(TWO, &view), "");
    assert!(says(FOREIGN, &view).contains("internal endpoint"));
}

#[test]
fn frames_to_a_member_that_has_not_joined() {
    let mut scenario = Scenario::network(1, 2);
    scenario.joins_later.insert((TWO, TRADE));
    let mut simulation = Simulation::new(scenario, 1).unwrap();
    while simulation.now < Time::from_millis(2_000) {
        simulation.step().unwrap();
    }
    let said = control(&simulation, TWO, |connection| channel_frame(connection, TRADE, state()));
    assert!(said.contains("has not joined"), "{said}");
}

#[test]
fn blocks_unverified_pushed_out_back_or_twice() {
    let mut simulation = running();
    let forged = Held::Memory(AuthenticBlock::simulated(3, Digest([9; 32]), 10));
    assert!(block(&mut simulation, TWO, TRADE, BulkKind::Reply, forged).contains("never verified"));
    let missing = Held::Ledger(10_000);
    assert!(
        block(&mut simulation, TWO, TRADE, BulkKind::Reply, missing).contains("not in the sender's ledger")
    );
    let own = |number| Held::Ledger(number);
    assert_eq!(block(&mut simulation, FOREIGN, TRADE, BulkKind::Reply, own(1)), "");
    assert!(block(&mut simulation, FOREIGN, AUDIT, BulkKind::Reply, own(1)).contains("whose config lacks"));
    assert!(
        block(&mut simulation, FOREIGN, TRADE, BulkKind::Push, own(1)).contains("out of the organisation")
    );
    simulation.checker.link_closed(ONE, TWO, TRADE);
    assert_eq!(block(&mut simulation, TWO, TRADE, BulkKind::Push, own(1)), "");
    assert!(block(&mut simulation, TWO, TRADE, BulkKind::Push, own(1)).contains("pushed twice"));
    simulation.checker.block_taken(TRADE, ONE, TWO, 2);
    assert!(block(&mut simulation, TWO, TRADE, BulkKind::Push, own(2)).contains("pushed back"));
}

#[test]
fn commits_unverified_forged_or_out_of_order() {
    let mut simulation = running();
    let height = simulation.hosts[ONE].height(TRADE);
    let genuine = simulation.orderer.chains[TRADE][height as usize - 1].clone();
    let forged = AuthenticBlock::simulated(height, genuine.hash(), 16_001);
    let mut says = |block: &AuthenticBlock, verified: bool| {
        if verified {
            simulation.checker.verified(ONE, block);
        }
        let (truth, orderer, host) = (&simulation.truth, &simulation.orderer, &simulation.hosts[ONE]);
        simulation.checker.commit(truth, orderer, ONE, TRADE, block, host).err().unwrap_or_default()
    };
    assert!(says(&forged, false).contains("did not verify"));
    assert!(says(&forged, true).contains("not the orderers'"));
    assert!(says(&genuine, true).contains("or unlinked"), "it is committed already");
}

#[test]
fn ledgers_that_differ_shrink_or_are_foreign() {
    let check = |spoil: &dyn Fn(&mut Simulation)| {
        let mut simulation = running();
        let Simulation { checker, truth, orderer, hosts, .. } = &mut simulation;
        checker.whole(truth, orderer, hosts).unwrap();
        spoil(&mut simulation);
        let Simulation { checker, truth, orderer, hosts, .. } = &mut simulation;
        checker.whole(truth, orderer, hosts).err().unwrap_or_default()
    };
    assert_eq!(check(&|_| {}), "");
    let differs = check(&|simulation| {
        simulation.hosts[ONE].ledgers[TRADE][4] = AuthenticBlock::simulated(4, Digest([9; 32]), 10);
    });
    assert!(differs.contains("differs at block 4"), "{differs}");
    let shrinks = check(&|simulation| {
        simulation.hosts[ONE].ledgers[TRADE].pop();
    });
    assert!(shrinks.contains("shrank"), "{shrinks}");
    let foreign = check(&|simulation| {
        let genesis = simulation.truth.channels[AUDIT].genesis.clone();
        simulation.hosts[FOREIGN].ledgers[AUDIT].push(genesis);
    });
    assert!(foreign.contains("foreign channel"), "{foreign}");
}
