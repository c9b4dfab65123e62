//! The machine among sources that answer, lie, go silent or leave, in virtual time: it always ends with every block.

use super::*;

/// One way of a message.
const LATENCY: Duration = Duration::from_millis(10);
/// Bytes a second of a source's link.
const RATE: f64 = 50e6;

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Conduct {
    Honest,
    /// Takes requests and never answers.
    Silent,
    /// Claims 2^64 - 1 blocks and has none.
    Boaster,
    /// Refuses all, shows no headers.
    Empty,
    /// Answers with other headers than those asked for, and other blocks.
    WrongRange,
    /// Each answer thrice, the last block first.
    Repeats,
    /// Headers of another history, which no orderer signed.
    Forger,
    /// Leaves after so many messages.
    Leaves(usize),
    /// Takes a minute for a block.
    Trickles,
}

#[derive(Debug)]
enum Message {
    State(u64),
    Block(u64),
    Refusal(Vec<u64>),
    Headers(wire::Headers),
    Gone,
}

struct World {
    machine: Reconciliation,
    chain: Chain,
    blocks: Vec<AuthenticBlock>,
    conducts: Vec<Conduct>,
    sent: Vec<usize>,
    link_free: Vec<Time>,
    queue: BTreeMap<(Time, u64), (usize, Message)>,
    queued: u64,
    now: Time,
    received: usize,
}

impl World {
    fn new(conducts: &[Conduct], count: u64, size: usize) -> Self {
        let mut world = Self {
            machine: new(&vec![true; conducts.len()]),
            chain: chain(),
            blocks: blocks(count, size),
            conducts: conducts.to_vec(),
            sent: vec![0; conducts.len()],
            link_free: vec![Time::ZERO; conducts.len()],
            queue: BTreeMap::new(),
            queued: 0,
            now: Time::ZERO,
            received: 0,
        };
        for (index, conduct) in conducts.iter().enumerate() {
            let boasts = *conduct == Conduct::Boaster;
            world.send(index, LATENCY, Message::State(if boasts { u64::MAX } else { count + 1 }));
        }
        world
    }

    fn send(&mut self, index: usize, wait: Duration, message: Message) {
        if let Conduct::Leaves(after) = self.conducts[index] {
            self.sent[index] += 1;
            if self.sent[index] == after + 1 {
                self.queue.insert((self.now + LATENCY, self.queued), (index, Message::Gone));
                self.queued += 1;
            }
            if self.sent[index] > after {
                return;
            }
        }
        self.queue.insert((self.now + wait, self.queued), (index, message));
        self.queued += 1;
    }

    fn send_block(&mut self, index: usize, number: u64) {
        let size = self.blocks[number as usize].size();
        let free = self.link_free[index].max(self.now) + Duration::from_secs_f64(size as f64 / RATE);
        self.link_free[index] = free;
        let wait = free.since(self.now) + LATENCY * 2;
        self.send(index, wait, Message::Block(number));
    }

    fn answer_blocks(&mut self, index: usize, numbers: Vec<u64>) {
        match self.conducts[index] {
            Conduct::Silent => {}
            Conduct::Boaster | Conduct::Empty => self.send(index, LATENCY * 2, Message::Refusal(numbers)),
            Conduct::WrongRange => {
                for number in numbers {
                    self.send_block(index, (number + 7) % self.blocks.len() as u64);
                }
            }
            Conduct::Repeats => {
                for number in numbers.iter().rev().flat_map(|number| [*number; 3]) {
                    self.send_block(index, number);
                }
            }
            Conduct::Trickles => {
                for number in numbers {
                    self.send(index, Duration::from_secs(60), Message::Block(number));
                }
            }
            Conduct::Honest | Conduct::Forger | Conduct::Leaves(_) => {
                for number in numbers {
                    self.send_block(index, number);
                }
            }
        }
    }

    fn answer_headers(&mut self, index: usize, first: u64, count: u64) {
        let empty = wire::Headers { first, ..wire::Headers::default() };
        let headers = match self.conducts[index] {
            Conduct::Silent => return,
            Conduct::Boaster | Conduct::Empty => empty,
            Conduct::WrongRange => answer(&self.blocks, first + 1, count),
            Conduct::Forger => {
                let mut headers = answer(&self.blocks, first, count);
                headers.entries.iter_mut().for_each(|entry| entry.data_hash = vec![9; 32].into());
                headers
            }
            _ => answer(&self.blocks, first, count),
        };
        self.send(index, LATENCY * 2, Message::Headers(headers));
    }

    fn carry_out(&mut self) {
        // Whole rounds, until nothing is due.
        for ask in self.machine.handle_timeout(self.now, &self.chain, 8 << 20, nowhere) {
            match ask {
                Ask::Blocks { peer, numbers } => {
                    let index = self.index(peer);
                    self.answer_blocks(index, numbers);
                }
                Ask::Headers { peer, first, count } => {
                    let index = self.index(peer);
                    self.answer_headers(index, first, count);
                }
                Ask::State { peer } => {
                    let index = self.index(peer);
                    let boasts = self.conducts[index] == Conduct::Boaster;
                    let height = if boasts { u64::MAX } else { self.blocks.len() as u64 };
                    if self.conducts[index] != Conduct::Silent {
                        self.send(index, LATENCY * 2, Message::State(height));
                    }
                }
                // Without an orderer nothing comes of it.
                Ask::Orderer { .. } => {}
                Ask::OwnHash { .. } => {}
                Ask::Diverged { .. } => panic!("nobody diverges"),
            }
        }
    }

    fn index(&self, of: PkiId) -> usize {
        (0..self.conducts.len()).find(|index| peer(*index) == of).unwrap()
    }

    fn take(&mut self, index: usize, message: Message) {
        let (now, from) = (self.now, peer(index));
        match message {
            Message::State(height) => self.machine.handle_state(now, from, height, None, &self.chain),
            Message::Gone => self.machine.handle_peer_gone(now, from),
            Message::Refusal(numbers) => self.machine.handle_refusal(now, from, &numbers),
            Message::Headers(headers) => {
                if self.machine.handle_headers(now, from, &headers, &self.chain) {
                    let signed = headers.headers().all(|(header, _)| {
                        self.blocks
                            .get(header.number as usize)
                            .is_some_and(|block| block.block().header() == &header)
                    });
                    let result = signed.then(|| verified(&headers));
                    self.machine.handle_verified_headers(now, from, headers.first, result, &self.chain);
                }
            }
            Message::Block(number) => {
                self.received += 1;
                self.machine.handle_arrival(now, from, number);
                let block = self.blocks[number as usize].clone();
                self.machine.handle_authentic(now, Some(from), number, block.size());
                if self.chain.offer(block) == crate::chain::Offer::TooFar {
                    self.machine.handle_dropped(now, number);
                }
                while let Some(block) = self.chain.poll_commit() {
                    let (blocks, bytes) = self.chain.handle_committed(block.unwrap().number() + 1);
                    self.machine.handle_committed(now, blocks, bytes, &self.chain);
                }
            }
        }
    }

    /// Runs until every block is here; the virtual time that took.
    fn run(&mut self) -> Duration {
        let mut events = 0u64;
        let mut at_this_moment = 0;
        while self.chain.height() < self.blocks.len() as u64 {
            events += 1;
            assert!(
                events < 2_000_000,
                "no end: height {}, {:?}",
                self.chain.height(),
                self.machine.counters()
            );
            let deadline = self.machine.next_deadline().unwrap();
            let message = self.queue.first_key_value().map(|((at, _), _)| *at);
            let then = message.map_or(deadline, |at| at.min(deadline)).max(self.now);
            at_this_moment = if then == self.now { at_this_moment + 1 } else { 0 };
            assert!(at_this_moment < 10_000, "timers for the past without end at {then}");
            self.now = then;
            if message == Some(then) {
                let (_, (index, message)) = self.queue.pop_first().unwrap();
                self.take(index, message);
            }
            self.carry_out();
        }
        self.now.since(Time::ZERO)
    }
}

#[test]
fn four_honest_sources_fill_their_links() {
    let (count, size) = (2_000, 100_000);
    let took = World::new(&[Conduct::Honest; 4], count, size).run();
    let least = count as f64 * size as f64 / (4.0 * RATE);
    assert!(took.as_secs_f64() < 1.3 * least + 0.1, "{took:?}, {least} s at full rate");
}

/// The goal is a loss of a tenth, against what the other three do alone.
#[test]
fn one_silent_source_of_four_costs_little() {
    for (count, size) in [(4_000, 100_000), (20_000, 10_000)] {
        let three = World::new(&[Conduct::Honest; 3], count, size).run().as_secs_f64();
        let conducts = [Conduct::Honest, Conduct::Silent, Conduct::Honest, Conduct::Honest];
        let mut world = World::new(&conducts, count, size);
        let took = world.run().as_secs_f64();
        assert!(
            took <= 1.1 * three,
            "{took} s with a silent one, {three} s without: {:?}",
            world.machine.counters()
        );
        assert!(world.received as u64 <= count + count / 50, "{} blocks for {count}", world.received);
    }
}

#[test]
fn any_company_but_one_honest_source_is_enough() {
    let bad = [
        Conduct::Silent,
        Conduct::Boaster,
        Conduct::Empty,
        Conduct::WrongRange,
        Conduct::Repeats,
        Conduct::Forger,
        Conduct::Trickles,
    ];
    for conduct in bad {
        let took = World::new(&[conduct, conduct, Conduct::Honest, conduct], 300, 20_000).run();
        assert!(took < Duration::from_secs(20), "{conduct:?}: {took:?}");
    }
    let mut all = bad.to_vec();
    all.push(Conduct::Honest);
    let took = World::new(&all, 300, 20_000).run();
    assert!(took < Duration::from_secs(20), "{took:?}");
}

#[test]
fn a_source_may_leave_at_every_point() {
    for after in 0..80 {
        let took = World::new(&[Conduct::Leaves(after), Conduct::Honest], 60, 20_000).run();
        assert!(took < Duration::from_secs(10), "after {after} messages: {took:?}");
    }
}
