//! A whole node that catches up from sources of which only one is honest: their answers are bytes of frames and blocks, as from the
//! transport. Time is virtual; whatever they send or withhold, every block is committed, and no other.

use super::tests::{SESSION, at, chain_of, connect, genesis, node};
use super::*;
use crate::block::AuthenticBlock;
use crate::isolation::{TAG_SIZE, proof};
use crate::verify::VerifiedHeader;
use crate::wire::{
    BulkHeader, BulkKind, ChannelBody, ChannelFrame, Frame, FrameBody, Headers, Request, State,
};
use prost::Message;

/// One way of a message.
const LATENCY: Duration = Duration::from_millis(5);
/// The chain that is missing.
const BLOCKS: u64 = 60;
const BLOCK_BYTES: usize = 2_000;

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Conduct {
    Honest,
    /// Claims 2^64 - 1 blocks and has none.
    Boaster,
    /// Refuses all, shows no headers.
    Empty,
    /// Takes requests and never answers.
    Silent,
    /// Sends blocks and headers of another channel for those of this one.
    OtherChannel,
    /// Sends what it was asked for under the tag of a channel nobody knows.
    OtherTag,
    /// Answers with a range next to the one that was asked for.
    WrongRange,
    /// The last block first, and the headers late.
    OutOfOrder,
    /// Everything three times.
    Duplicates,
    /// Bytes that mean nothing.
    Garbage,
    /// One byte a second: nothing is whole in time.
    Trickle,
    /// Is gone after so many messages.
    Leaves(usize),
}

#[derive(Debug)]
enum Said {
    Control(Vec<u8>),
    Bulk(Vec<u8>, bytes::Bytes),
    Gone,
}

struct Village {
    node: Node,
    /// Block 0 and the others.
    blocks: Vec<AuthenticBlock>,
    /// The same numbers in another channel.
    others: Vec<AuthenticBlock>,
    conducts: Vec<Conduct>,
    connected: Vec<bool>,
    sent: Vec<usize>,
    queue: BTreeMap<(Time, u64), (usize, Said)>,
    queued: u64,
    now: Time,
    committed: Vec<AuthenticBlock>,
}

fn peer(index: usize) -> PkiId {
    PkiId::new(&"Org1MSP".into(), &format!("source{index}"))
}

fn tag(index: usize) -> Vec<u8> {
    proof(&genesis().hash(), &SESSION, &peer(index))[..TAG_SIZE].to_vec()
}

fn headers_of(blocks: &[AuthenticBlock], first: u64, count: u64) -> Headers {
    let range = blocks.iter().skip(first as usize).take(count as usize);
    Headers::of(first, range.map(|block| Ok::<_, ()>((block.block().clone(), block.size())))).unwrap()
}

impl Village {
    fn new(conducts: &[Conduct]) -> Self {
        let blocks: Vec<_> = std::iter::once(genesis()).chain(chain_of(BLOCKS, BLOCK_BYTES)).collect();
        let mut previous = Digest([9; 32]);
        let others = (0..=BLOCKS).map(|number| {
            let block = AuthenticBlock::simulated(number, previous, BLOCK_BYTES + 1);
            previous = block.hash();
            block
        });
        let mut village = Self {
            node: node(false),
            blocks,
            others: others.collect(),
            conducts: conducts.to_vec(),
            connected: vec![true; conducts.len()],
            sent: vec![0; conducts.len()],
            queue: BTreeMap::new(),
            queued: 0,
            now: at(2),
            committed: Vec::new(),
        };
        for index in 0..conducts.len() {
            connect(&mut village.node, peer(index));
            village.say_state(index);
        }
        village.settle();
        village
    }

    fn send(&mut self, index: usize, wait: Duration, message: Said) {
        if let Conduct::Leaves(after) = self.conducts[index] {
            self.sent[index] += 1;
            let message = if self.sent[index] > after { Said::Gone } else { message };
            if self.sent[index] > after + 1 {
                return;
            }
            self.queue.insert((self.now + wait, self.queued), (index, message));
        } else {
            self.queue.insert((self.now + wait, self.queued), (index, message));
        }
        self.queued += 1;
    }

    fn say(&mut self, index: usize, wait: Duration, body: ChannelBody) {
        let tag = if self.conducts[index] == Conduct::OtherTag { vec![1; TAG_SIZE] } else { tag(index) };
        let frame = Frame { body: Some(FrameBody::Channel(ChannelFrame { tag, body: Some(body) })) };
        self.send(index, wait, Said::Control(frame.encode_to_vec()));
    }

    /// Nobody could be asked who does not say what it has under the right tag.
    fn say_state(&mut self, index: usize) {
        let height = if self.conducts[index] == Conduct::Boaster { u64::MAX } else { BLOCKS + 1 };
        let body = ChannelBody::State(State { height, tip_hash: Vec::new(), answer: false });
        let frame =
            Frame { body: Some(FrameBody::Channel(ChannelFrame { tag: tag(index), body: Some(body) })) };
        self.send(index, LATENCY, Said::Control(frame.encode_to_vec()));
    }

    fn send_block(&mut self, index: usize, wait: Duration, number: u64, block: &AuthenticBlock) {
        let tag = if self.conducts[index] == Conduct::OtherTag { vec![1; TAG_SIZE] } else { tag(index) };
        let header = BulkHeader { tag, number, kind: BulkKind::Reply.into(), ..BulkHeader::default() };
        self.send(index, wait, Said::Bulk(header.encode_to_vec(), block.encoded().clone()));
    }

    fn answer_blocks(&mut self, index: usize, numbers: &[u64]) {
        let block = |blocks: &[AuthenticBlock], number: u64| blocks[number as usize % blocks.len()].clone();
        let (conduct, twice) = (self.conducts[index], LATENCY * 2);
        match conduct {
            Conduct::Silent => {}
            Conduct::Boaster | Conduct::Empty => {
                self.say(index, twice, ChannelBody::Refusal(Request { numbers: numbers.to_vec() }));
            }
            Conduct::Garbage => {
                self.send(index, twice, Said::Control(vec![0xff; 40]));
                self.send(index, twice, Said::Bulk(vec![0xff; 40], vec![0xff; 400].into()));
            }
            Conduct::Trickle => {
                for number in numbers {
                    let wait = Duration::from_secs(BLOCK_BYTES as u64);
                    let block = block(&self.blocks, *number);
                    self.send_block(index, wait, *number, &block);
                }
            }
            Conduct::OtherChannel => {
                for number in numbers {
                    let block = block(&self.others, *number);
                    self.send_block(index, twice, *number, &block);
                }
            }
            Conduct::WrongRange => {
                for number in numbers {
                    let block = block(&self.blocks, number + 7);
                    self.send_block(index, twice, block.number(), &block);
                }
            }
            Conduct::OutOfOrder | Conduct::Duplicates => {
                let times = if conduct == Conduct::Duplicates { 3 } else { 1 };
                for number in numbers.iter().rev().flat_map(|number| vec![*number; times]) {
                    let block = block(&self.blocks, number);
                    self.send_block(index, twice, number, &block);
                }
            }
            Conduct::Honest | Conduct::OtherTag | Conduct::Leaves(_) => {
                for number in numbers {
                    let block = block(&self.blocks, *number);
                    self.send_block(index, twice, *number, &block);
                }
            }
        }
    }

    fn answer_headers(&mut self, index: usize, first: u64, count: u64) {
        let conduct = self.conducts[index];
        let headers = match conduct {
            Conduct::Silent | Conduct::Trickle => return,
            Conduct::Boaster | Conduct::Empty => Headers { first, ..Headers::default() },
            Conduct::OtherChannel => headers_of(&self.others, first, count),
            Conduct::WrongRange => headers_of(&self.blocks, first + 1, count),
            Conduct::Garbage => {
                return self.send(index, LATENCY, Said::Control(vec![0xfe; 400]));
            }
            _ => headers_of(&self.blocks, first, count),
        };
        let wait = if conduct == Conduct::OutOfOrder { LATENCY * 20 } else { LATENCY * 2 };
        let times = if conduct == Conduct::Duplicates { 3 } else { 1 };
        for _ in 0..times {
            self.say(index, wait, ChannelBody::Headers(headers.clone()));
        }
    }

    fn take(&mut self, index: usize, message: Said) {
        if !self.connected[index] {
            return;
        }
        let peer = peer(index);
        let input = match message {
            Said::Control(frame) => Input::Control { peer, frame: frame.into() },
            Said::Bulk(header, body) => Input::Bulk { peer, header: header.into(), body },
            Said::Gone => {
                self.connected[index] = false;
                Input::Disconnected { peer }
            }
        };
        self.node.handle(self.now, input);
    }

    /// Does what the node wants, until it wants nothing.
    fn settle(&mut self) {
        while let Some(output) = self.node.poll_output() {
            match output {
                Output::SendControl { peer, frame } => self.hear(peer, frame),
                Output::Verify { ticket, kept, body, .. } => {
                    let result = self.judge(kept, &body);
                    self.node.handle(self.now, Input::Verified { ticket, result });
                }
                Output::VerifyHeaders { ticket, headers, .. } => {
                    let signed = headers.headers().all(|(header, _)| {
                        let block = self.blocks.get(header.number as usize);
                        block.is_some_and(|block| block.block().header() == &header)
                    });
                    let verified = headers.headers().map(|(header, _)| VerifiedHeader::simulated(header));
                    let result = if signed {
                        Ok(verified.collect())
                    } else {
                        Err(Rejection::Forged("nobody signed it".into()))
                    };
                    self.node.handle(self.now, Input::HeadersVerified { ticket, result });
                }
                Output::Commit { channel, block } => {
                    let (height, tip) = (block.number() + 1, block.hash());
                    self.committed.push(block);
                    self.node.handle(self.now, Input::Committed { channel, height, tip });
                }
                Output::Penalise { peer, .. } | Output::Disconnect { peer, .. } => {
                    let index = self.index(peer);
                    assert_ne!(self.conducts[index], Conduct::Honest, "the honest one is blamed");
                    if std::mem::take(&mut self.connected[index]) {
                        self.node.handle(self.now, Input::Disconnected { peer });
                    }
                }
                Output::Halt { reason, .. } => panic!("{reason}"),
                _ => {}
            }
        }
    }

    fn judge(&self, kept: Option<Digest>, body: &bytes::Bytes) -> Result<AuthenticBlock, Rejection> {
        let genuine = self.blocks.iter().find(|block| block.encoded() == body);
        let block =
            genuine.ok_or_else(|| Rejection::Forged("no orderer of this channel signed it".into()))?;
        let (number, hash) = (block.number(), block.hash());
        if kept == Some(hash) || number <= self.committed.len() as u64 {
            return Err(Rejection::Known { number, hash });
        }
        Ok(block.clone())
    }

    fn hear(&mut self, peer: PkiId, frame: bytes::Bytes) {
        let Ok(FrameBody::Channel(ChannelFrame { body: Some(body), .. })) = Frame::parse(frame) else {
            return;
        };
        let index = self.index(peer);
        match body {
            ChannelBody::Request(request) => self.answer_blocks(index, &request.numbers),
            ChannelBody::HeadersRequest(request) => self.answer_headers(index, request.first, request.count),
            ChannelBody::State(state) if state.answer && self.conducts[index] != Conduct::Silent => {
                self.say_state(index);
            }
            _ => {}
        }
    }

    fn index(&self, of: PkiId) -> usize {
        (0..self.conducts.len()).find(|index| peer(*index) == of).unwrap()
    }

    /// Runs until every block is committed; the virtual time that took.
    fn run(&mut self) -> Duration {
        for _ in 0..200_000 {
            if self.committed.len() as u64 == BLOCKS {
                assert_eq!(self.committed[..], self.blocks[1..], "the chain and nothing else");
                return self.now.since(Time::ZERO);
            }
            let message = self.queue.first_key_value().map(|((at, _), _)| *at);
            let then = self.node.next_deadline().into_iter().chain(message).min().unwrap();
            self.now = self.now.max(then);
            if message.is_some_and(|at| at <= self.now) {
                let (_, (index, message)) = self.queue.pop_first().unwrap();
                self.take(index, message);
            }
            self.node.handle_timeout(self.now);
            self.settle();
        }
        panic!("no end: {} blocks at {}, {:?}", self.committed.len(), self.now, self.conducts);
    }
}

#[test]
fn whatever_three_of_four_do_the_fourth_is_enough() {
    let bad = [
        Conduct::Boaster,
        Conduct::Empty,
        Conduct::Silent,
        Conduct::OtherChannel,
        Conduct::OtherTag,
        Conduct::WrongRange,
        Conduct::OutOfOrder,
        Conduct::Duplicates,
        Conduct::Garbage,
        Conduct::Trickle,
    ];
    for conduct in bad {
        for honest in 0..4 {
            let mut conducts = [conduct; 4];
            conducts[honest] = Conduct::Honest;
            let took = Village::new(&conducts).run();
            assert!(took < Duration::from_secs(15), "{conduct:?}: {took:?}");
        }
    }
    let all: Vec<Conduct> = bad.into_iter().chain([Conduct::Honest]).collect();
    let took = Village::new(&all).run();
    assert!(took < Duration::from_secs(30), "all at once: {took:?}");
}

#[test]
fn a_source_may_disappear_at_every_point() {
    for after in 0..90 {
        let took = Village::new(&[Conduct::Leaves(after), Conduct::Honest]).run();
        assert!(took < Duration::from_secs(10), "after {after} messages: {took:?}");
    }
}

/// Who sends what no orderer of the channel signed is disconnected, who is only slow or poor is not.
#[test]
fn lies_cost_the_connection_and_poverty_does_not() {
    for (conduct, stays) in [
        (Conduct::OtherChannel, false),
        (Conduct::Garbage, false),
        (Conduct::Empty, true),
        (Conduct::Silent, true),
        (Conduct::Duplicates, true),
        (Conduct::OutOfOrder, true),
    ] {
        let mut village = Village::new(&[conduct, Conduct::Honest]);
        village.run();
        assert_eq!(village.connected, [stays, true], "{conduct:?}");
    }
}
