//! Catching up as the driver of a node sees it.

use super::tests::{SESSION, at, chain_of, connect, genesis, node, node_with, outputs, trade};
use super::*;
use crate::block::AuthenticBlock;
use crate::chain::PENDING_BYTES_MAX;
use crate::dissemination::DisseminationMode;
use crate::isolation::{TAG_SIZE, proof};
use crate::verify::VerifiedHeader;
use crate::wire::{
    BulkHeader, BulkKind, ChannelBody, ChannelFrame, Frame, FrameBody, Headers, HeadersRequest, State,
};
use prost::Message;

fn peer() -> PkiId {
    PkiId::new(&"Org1MSP".into(), "peer1")
}

fn tag() -> Vec<u8> {
    proof(&genesis().hash(), &SESSION, &peer())[..TAG_SIZE].to_vec()
}

fn say(node: &mut Node, now: Time, body: ChannelBody) {
    let frame = ChannelFrame { tag: tag(), body: Some(body) };
    let frame = Frame { body: Some(FrameBody::Channel(frame)) }.encode_to_vec().into();
    node.handle(now, Input::Control { peer: peer(), frame });
}

/// The channel frames among what is wanted now.
fn said(outputs: &[Output]) -> Vec<ChannelBody> {
    let body = |output: &Output| match output {
        Output::SendControl { frame, .. } => match Frame::parse(frame.clone()) {
            Ok(FrameBody::Channel(frame)) => frame.body,
            _ => None,
        },
        _ => None,
    };
    outputs.iter().filter_map(body).collect()
}

fn joined() -> Node {
    let mut node = node(false);
    connect(&mut node, peer());
    outputs(&mut node);
    node
}

fn state(height: u64, answer: bool) -> ChannelBody {
    ChannelBody::State(State { height, tip_hash: Vec::new(), answer })
}

#[test]
fn a_state_is_answered_if_it_asks_for_that() {
    let mut node = joined();
    say(&mut node, at(10), state(1, false));
    assert_eq!(said(&outputs(&mut node)), vec![]);
    say(&mut node, at(10), state(1, true));
    let own = State { height: 1, tip_hash: genesis().hash().0.to_vec(), answer: false };
    assert_eq!(said(&outputs(&mut node)), vec![ChannelBody::State(own)]);
}

#[test]
fn who_pulls_from_the_orderer_waits_for_its_copy_and_then_asks_others() {
    let mut node = node_with(false, DisseminationMode::Direct);
    connect(&mut node, peer());
    let contact = |in_contact| Input::OrdererContact { channel: trade(), in_contact, round_trip: None };
    node.handle(at(5), contact(true));
    outputs(&mut node);
    let asked_at = |node: &mut Node, since: u64| {
        say(node, at(since), state(2, false));
        (0..40).map(|step| since + step * 100).find(|now| {
            node.handle_timeout(at(*now));
            let wanted =
                |body: &ChannelBody| matches!(body, ChannelBody::Request(request) if request.numbers == [1]);
            said(&outputs(node)).iter().any(wanted)
        })
    };
    let waited = asked_at(&mut node, 10).unwrap();
    assert!((2_000..2_300).contains(&waited), "{waited} ms");

    let mut node = node_with(false, DisseminationMode::Direct);
    connect(&mut node, peer());
    node.handle(at(5), contact(false));
    outputs(&mut node);
    let waited = asked_at(&mut node, 10).unwrap();
    assert!(waited < 500, "without an orderer at once: {waited} ms");
}

#[test]
fn headers_are_read_as_far_as_there_are_any_and_a_few_at_a_time() {
    let (mut node, block) = (joined(), chain_of(1, 100).remove(0));
    node.handle(at(5), Input::OrdererBlock { channel: trade(), body: block.encoded().clone() });
    let ticket = outputs(&mut node).into_iter().find_map(|output| match output {
        Output::Verify { ticket, .. } => Some(ticket),
        _ => None,
    });
    node.handle(at(5), Input::Verified { ticket: ticket.unwrap(), result: Ok(block.clone()) });
    node.handle(at(5), Input::Committed { channel: trade(), height: 2, tip: block.hash() });
    outputs(&mut node);
    let asks = |node: &mut Node, first, count| {
        say(node, at(10), ChannelBody::HeadersRequest(HeadersRequest { first, count }));
        outputs(node)
    };
    for (first, count) in [(2, 5), (u64::MAX, 1), (1, 0), (0, 2)] {
        let empty = Headers { first, ..Headers::default() };
        assert_eq!(said(&asks(&mut node, first, count)), vec![ChannelBody::Headers(empty)]);
    }
    let read = || Output::ReadHeaders { peer: peer(), channel: trade(), first: 1, count: 1 };
    for _ in 0..HEADER_READS_PER_PEER_MAX {
        assert_eq!(asks(&mut node, 1, 100), vec![read()]);
    }
    assert_eq!(asks(&mut node, 1, 100), vec![]);
    assert_eq!(node.counters().headers_over_bound, 1);
    let headers = Headers::of(1, [Ok::<_, ()>((block.block().clone(), 100))].into_iter()).unwrap();
    node.handle(at(11), Input::HeadersRead { peer: peer(), channel: trade(), headers: headers.clone() });
    assert_eq!(said(&outputs(&mut node)), vec![ChannelBody::Headers(headers)]);
    assert_eq!(asks(&mut node, 1, 100), vec![read()]);
}

/// A block of a verified header goes to the pool with it, and is committed.
#[test]
fn blocks_are_checked_against_their_verified_headers() {
    let (mut node, blocks) = (joined(), chain_of(30, 1_000));
    say(&mut node, at(10), state(31, false));
    let request = said(&outputs(&mut node)).into_iter().find_map(|body| match body {
        ChannelBody::HeadersRequest(request) => Some((request.first, request.count)),
        _ => None,
    });
    assert_eq!(request, Some((1, 30)));
    let range = blocks.iter().map(|block| Ok::<_, ()>((block.block().clone(), block.size())));
    say(&mut node, at(11), ChannelBody::Headers(Headers::of(1, range).unwrap()));
    let wanted = outputs(&mut node);
    let verify = wanted.into_iter().find_map(|output| match output {
        Output::VerifyHeaders { ticket, headers, .. } => Some((ticket, headers)),
        _ => None,
    });
    let (ticket, headers) = verify.unwrap();
    let verified = headers.headers().map(|(header, _)| VerifiedHeader::simulated(header)).collect();
    node.handle(at(12), Input::HeadersVerified { ticket, result: Ok(verified) });
    outputs(&mut node);
    let header = BulkHeader { tag: tag(), number: 1, kind: BulkKind::Reply.into(), ..BulkHeader::default() };
    let header = header.encode_to_vec().into();
    let body = blocks[0].encoded().clone();
    node.handle(at(13), Input::Bulk { peer: peer(), header, body });
    let found = outputs(&mut node).into_iter().find_map(|output| match output {
        Output::Verify { ticket, verified, .. } => Some((ticket, verified)),
        _ => None,
    });
    let (ticket, verified) = found.unwrap();
    assert_eq!(verified.map(|header| header.hash()), Some(blocks[0].hash()));
    node.handle(at(14), Input::Verified { ticket, result: Ok(blocks[0].clone()) });
    assert!(outputs(&mut node).contains(&Output::Commit { channel: trade(), block: blocks[0].clone() }));
}

#[test]
fn who_sends_headers_that_do_not_verify_is_disconnected() {
    let (mut node, blocks) = (joined(), chain_of(30, 1_000));
    say(&mut node, at(10), state(31, false));
    outputs(&mut node);
    let range = blocks.iter().map(|block| Ok::<_, ()>((block.block().clone(), block.size())));
    say(&mut node, at(11), ChannelBody::Headers(Headers::of(1, range).unwrap()));
    let ticket = outputs(&mut node).into_iter().find_map(|output| match output {
        Output::VerifyHeaders { ticket, .. } => Some(ticket),
        _ => None,
    });
    let result = Err(Rejection::Forged("nobody signed it".into()));
    node.handle(at(12), Input::HeadersVerified { ticket: ticket.unwrap(), result });
    let why = Penalty::BadHeader("nobody signed it".into());
    assert!(outputs(&mut node).contains(&Output::Penalise { peer: peer(), why }));
}

/// A follower whose members refuse what they have asks the orderer, spreads nothing of it, and leaves it again.
#[test]
fn a_stranded_follower_pulls_from_the_orderer_until_it_has_all() {
    let (mut node, blocks) = (joined(), chain_of(4, 1_000));
    say(&mut node, at(10), state(5, false));
    let mut pulls = Vec::new();
    let mut now = 10;
    while pulls.is_empty() {
        now += 10;
        assert!(now < 20_000, "never");
        node.handle_timeout(at(now));
        let wanted = outputs(&mut node);
        for body in said(&wanted) {
            if let ChannelBody::Request(request) = body {
                say(&mut node, at(now), ChannelBody::Refusal(request));
            }
        }
        pulls.extend(wanted.into_iter().filter(|output| matches!(output, Output::StartDeliver { .. })));
    }
    assert_eq!(pulls, [Output::StartDeliver { channel: trade(), next: 1 }]);
    assert!(now >= 5_000, "the members had their time: {now} ms");
    let mut stopped = false;
    for block in &blocks {
        node.handle(at(now), Input::OrdererBlock { channel: trade(), body: block.encoded().clone() });
        let wanted = outputs(&mut node);
        let ticket = wanted.into_iter().find_map(|output| match output {
            Output::Verify { ticket, .. } => Some(ticket),
            _ => None,
        });
        node.handle(at(now), Input::Verified { ticket: ticket.unwrap(), result: Ok(block.clone()) });
        let (height, tip) = (block.number() + 1, block.hash());
        node.handle(at(now), Input::Committed { channel: trade(), height, tip });
        node.handle_timeout(at(now + 5));
        let wanted = outputs(&mut node);
        assert!(!wanted.iter().any(|output| matches!(output, Output::SendBlock { .. })), "nothing is pushed");
        stopped |= wanted.contains(&Output::StopDeliver { channel: trade() });
        assert_eq!(stopped, block.number() == 4);
        now += 10;
    }
}

/// One bound for all: what waits for the disk is room that nobody is asked to fill.
#[test]
fn a_slow_disk_stops_the_asking() {
    let (mut node, blocks) = (joined(), chain_of(60, 2 << 20));
    say(&mut node, at(10), state(61, false));
    let mut asked = Vec::new();
    let mut waiting = outputs(&mut node);
    for now in 11..200 {
        let mut numbers = Vec::new();
        for body in said(&waiting) {
            if let ChannelBody::Request(request) = body {
                numbers.extend(request.numbers);
            }
        }
        asked.extend(numbers.iter().copied());
        for number in numbers {
            let header =
                BulkHeader { tag: tag(), number, kind: BulkKind::Reply.into(), ..BulkHeader::default() };
            let (header, body) =
                (header.encode_to_vec().into(), blocks[number as usize - 1].encoded().clone());
            node.handle(at(now), Input::Bulk { peer: peer(), header, body });
        }
        node.handle_timeout(at(now));
        waiting = outputs(&mut node);
        let tickets: Vec<Ticket> = waiting
            .iter()
            .filter_map(
                |output| if let Output::Verify { ticket, .. } = output { Some(*ticket) } else { None },
            )
            .collect();
        let numbers: Vec<u64> = waiting
            .iter()
            .filter_map(|output| if let Output::Verify { claim, .. } = output { *claim } else { None })
            .map(|claim| claim.number)
            .collect();
        for (ticket, number) in tickets.into_iter().zip(numbers) {
            let block = blocks[number as usize - 1].clone();
            node.handle(at(now), Input::Verified { ticket, result: Ok(block) });
        }
        waiting.extend(outputs(&mut node));
    }
    let bytes = asked.len() * (2 << 20);
    assert!(asked.len() >= 4, "{asked:?}");
    // The first few are asked for before their size is known.
    let unsized_bytes = crate::reconciliation::UNSIZED_BLOCKS as usize * (2 << 20);
    assert!(bytes <= ASKED_BYTES_MAX + unsized_bytes, "nothing was committed, {bytes} bytes were asked for");
}

/// What was asked for is verified however much it is: nothing of it is dropped and fetched again.
#[test]
fn blocks_that_were_asked_for_do_not_count_as_a_flood() {
    let (mut node, count) = (joined(), 3 * VERIFYING_PER_PEER_MAX as u64);
    let blocks = chain_of(count, 1_000);
    say(&mut node, at(10), state(count + 1, false));
    let (mut answered, mut verifying, mut now) = (0, 0, 10);
    while answered < VERIFYING_PER_PEER_MAX + 20 {
        now += 1;
        assert!(now < 2_000, "only {answered} were asked for");
        let wanted = outputs(&mut node);
        verifying += wanted.iter().filter(|output| matches!(output, Output::Verify { .. })).count();
        for output in &wanted {
            if let Output::VerifyHeaders { ticket, headers, .. } = output {
                let verified =
                    headers.headers().map(|(header, _)| VerifiedHeader::simulated(header)).collect();
                node.handle(at(now), Input::HeadersVerified { ticket: *ticket, result: Ok(verified) });
            }
        }
        for body in said(&wanted) {
            match body {
                ChannelBody::HeadersRequest(request) => {
                    let range = blocks.iter().skip(request.first as usize - 1).take(request.count as usize);
                    let range = range.map(|block| Ok::<_, ()>((block.block().clone(), block.size())));
                    say(&mut node, at(now), ChannelBody::Headers(Headers::of(request.first, range).unwrap()));
                }
                ChannelBody::Request(request) => {
                    for number in request.numbers {
                        let kind = BulkKind::Reply.into();
                        let header = BulkHeader { tag: tag(), number, kind, ..BulkHeader::default() };
                        let body = blocks[number as usize - 1].encoded().clone();
                        let header = header.encode_to_vec().into();
                        node.handle(at(now), Input::Bulk { peer: peer(), header, body });
                        answered += 1;
                    }
                }
                _ => {}
            }
        }
        node.handle_timeout(at(now));
    }
    verifying += outputs(&mut node).iter().filter(|output| matches!(output, Output::Verify { .. })).count();
    assert_eq!((verifying, node.counters().verifying_over_bound), (answered, 0));
}

/// The in-order buffer is one for the process: what waits in one channel is room that another does not have.
#[test]
fn channels_share_the_room_before_the_ledger() {
    let mut node = joined();
    let other: ChannelId = "audit".parse().unwrap();
    let first = AuthenticBlock::simulated(0, Digest([0; 32]), 101);
    let organizations: std::collections::BTreeSet<_> = ["Org1MSP".into()].into();
    let scope =
        crate::isolation::Scope { genesis_hash: first.hash(), organizations, former: BTreeMap::new() };
    node.handle(
        at(2),
        Input::Join(ChannelSetup {
            channel: other.clone(),
            scope,
            anchors: Anchors::new(),
            height: 1,
            tip: first.hash(),
        }),
    );
    outputs(&mut node);
    // Early blocks of one channel take nearly all there is.
    let size = PENDING_BYTES_MAX / 8;
    let deliver = |node: &mut Node, channel: &ChannelId, block: &AuthenticBlock| {
        node.handle(at(5), Input::OrdererBlock { channel: channel.clone(), body: block.encoded().clone() });
        let ticket = outputs(node).into_iter().find_map(|output| match output {
            Output::Verify { ticket, .. } => Some(ticket),
            _ => None,
        });
        node.handle(at(5), Input::Verified { ticket: ticket.unwrap(), result: Ok(block.clone()) });
        outputs(node);
    };
    for block in &chain_of(9, size)[1..] {
        deliver(&mut node, &trade(), block);
    }
    let too_far = |node: &Node, channel: &ChannelId| node.channel_counters(channel).unwrap().0.too_far;
    let before = too_far(&node, &trade());
    let mut previous = first.hash();
    let theirs: Vec<AuthenticBlock> = (1..=3)
        .map(|number| {
            let block = AuthenticBlock::simulated(number, previous, size);
            previous = block.hash();
            block
        })
        .collect();
    deliver(&mut node, &other, &theirs[1]);
    deliver(&mut node, &other, &theirs[2]);
    assert!(too_far(&node, &other) >= 1, "the other channel finds the room taken");
    // Its next needed block always fits.
    deliver(&mut node, &other, &theirs[0]);
    assert!(node.channels[&other].chain.holds(1));
    let waiting: usize = node.channels.values().map(|channel| channel.chain.waiting_bytes()).sum();
    assert!(waiting <= PENDING_BYTES_MAX + size, "{waiting} bytes wait");
    assert!(before <= 1, "one channel alone may have all of it");
}
