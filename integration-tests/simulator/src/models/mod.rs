//! Protocols that others use, as models over the same links: the baselines.
//!
//! | model | what it is |
//! |---|---|
//! | [`star`] | everybody gets every block from its source: Fabric's default |
//! | [`gossipsub`] | libp2p's, v1.2: a mesh of 8, IDONTWANT, IHAVE every second |
//! | [`plumtree`] | an eager tree over a random graph of degree 5 that has converged, lazy announcements, grafts |
//!
//! A model says what is sent when; links, per-hop verification and books are the same as those of the real nodes, so that with one seed
//! all protocols meet the same places, latencies and silent peers. The source is site 0 and holds a block at t = 0.
//! Every body is verified before it is passed on; silent peers send nothing.

mod gossipsub;
mod graph;
mod plumtree;
mod star;
#[cfg(test)]
mod tests;

use std::cmp::Ordering;
use std::collections::{BTreeSet, BinaryHeap};
use std::time::Duration;

use grapevine_channels::time::Time;
use rand::SeedableRng;
use rand::rngs::ChaCha8Rng;
use sha2::{Digest as _, Sha256};

use crate::links::{Class, Delivery, FRAME_BYTES_MIN, Latency, LinkSettings, Wire};
use crate::measured::{Bytes, Measured};
use crate::scoreboard::Scoreboard;
use crate::simulation::cost_of;
use crate::truth::Site;

pub(crate) use gossipsub::Gossipsub;
pub(crate) use plumtree::Plumtree;
pub(crate) use star::Star;

/// Where blocks come from.
pub(crate) const SOURCE: Site = 0;
/// How long frames that follow the last block are still counted.
const DRAIN: Duration = Duration::from_millis(200);

/// What a model runs in.
#[derive(Debug, Clone)]
pub(crate) struct Stage {
    pub(crate) peers: usize,
    pub(crate) latency: Latency,
    pub(crate) links: LinkSettings,
    pub(crate) blocks: u64,
    pub(crate) block_bytes: usize,
    pub(crate) interval: Duration,
    pub(crate) silent: BTreeSet<Site>,
    pub(crate) verify_cost: Duration,
    pub(crate) verify_cost_per_mb: Duration,
    pub(crate) patience: Duration,
    pub(crate) seed: u64,
}

/// A small frame of a model: what it means is the model's.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Note {
    pub(crate) kind: u8,
    pub(crate) number: u64,
}

/// What a protocol does. Site by site it knows only what that site has been told.
pub(crate) trait Protocol {
    /// Blocks that are spread before the books open and anybody falls silent.
    fn warm_up_blocks(&self) -> u64 {
        0
    }
    /// Once, at the start.
    fn begin(&mut self, _air: &mut Air) {}
    /// A site holds a block verified: the source by itself, others `from` somebody.
    fn holds(&mut self, air: &mut Air, site: Site, from: Option<Site>, number: u64);
    /// A body has come, not verified yet; `first`: the site did not have it.
    fn body(&mut self, _air: &mut Air, _site: Site, _from: Site, _number: u64, _first: bool) {}
    /// A note has come.
    fn note(&mut self, _air: &mut Air, _site: Site, _from: Site, _note: Note) {}
    /// A timer of a site is due.
    fn timer(&mut self, _air: &mut Air, _site: Site, _name: u64) {}
}

#[derive(Debug, Clone, Copy)]
enum Parcel {
    Body(u64),
    Note(Note),
}

#[derive(Debug, PartialEq, Eq)]
enum Happening {
    Publish(u64),
    Verified { site: Site, from: Site, number: u64, on_request: bool },
    Timer { site: Site, name: u64 },
}

#[derive(Debug, PartialEq, Eq)]
struct Entry {
    at: Time,
    order: u64,
    what: Happening,
}

impl PartialOrd for Entry {
    fn partial_cmp(&self, other: &Self) -> Option<Ordering> {
        Some(self.cmp(other))
    }
}

impl Ord for Entry {
    fn cmp(&self, other: &Self) -> Ordering {
        (other.at, other.order).cmp(&(self.at, self.order))
    }
}

/// What a protocol sees of the world, and does to it.
#[derive(Debug)]
pub(crate) struct Air {
    pub(crate) stage: Stage,
    pub(crate) rng: ChaCha8Rng,
    wire: Wire<Parcel>,
    queue: BinaryHeap<Entry>,
    added: u64,
    now: Time,
    board: Scoreboard,
    bytes: Bytes,
    /// Blocks a site holds verified, and those that have come at all.
    held: Vec<BTreeSet<u64>>,
    come: Vec<BTreeSet<u64>>,
    /// What a site has asked for.
    asked: BTreeSet<(Site, u64)>,
    verifier_free_at: Vec<Time>,
    warm_up: u64,
    trace: Sha256,
    events: u64,
}

impl Air {
    fn new(stage: Stage, warm_up: u64) -> Self {
        let peers = stage.peers;
        Self {
            rng: ChaCha8Rng::seed_from_u64(stage.seed),
            wire: Wire::new(stage.links.clone(), stage.latency.clone(), peers, stage.seed),
            queue: BinaryHeap::new(),
            added: 0,
            now: Time::ZERO,
            board: Scoreboard::default(),
            bytes: Bytes::default(),
            held: vec![BTreeSet::new(); peers],
            come: vec![BTreeSet::new(); peers],
            asked: BTreeSet::new(),
            verifier_free_at: vec![Time::ZERO; peers],
            warm_up,
            trace: Sha256::new(),
            events: 0,
            stage,
        }
    }

    pub(crate) fn peers(&self) -> usize {
        self.stage.peers
    }

    pub(crate) fn holds(&self, site: Site, number: u64) -> bool {
        self.held[site].contains(&number)
    }

    /// Whether a body has come, verified or not.
    pub(crate) fn has_come(&self, site: Site, number: u64) -> bool {
        self.come[site].contains(&number)
    }

    fn is_silent(&self, site: Site) -> bool {
        self.is_scored_time() && self.stage.silent.contains(&site)
    }

    fn is_scored_time(&self) -> bool {
        self.board.rows() > 0
    }

    pub(crate) fn send_body(&mut self, from: Site, to: Site, number: u64) {
        if !self.is_silent(from) {
            self.wire.send(self.now, from, to, Class::Bulk, self.stage.block_bytes, Parcel::Body(number));
        }
    }

    /// A body that was asked for.
    pub(crate) fn send_answer(&mut self, from: Site, to: Site, number: u64) {
        self.asked.insert((to, number));
        self.send_body(from, to, number);
    }

    pub(crate) fn send_note(&mut self, from: Site, to: Site, kind: u8, number: u64) {
        if !self.is_silent(from) {
            let note = Parcel::Note(Note { kind, number });
            self.wire.send(self.now, from, to, Class::Control, FRAME_BYTES_MIN, note);
        }
    }

    /// Takes back a body that has not begun to leave.
    pub(crate) fn call_back(&mut self, from: Site, to: Site, number: u64) {
        self.wire.call_back(from, to, |parcel| matches!(parcel, Parcel::Body(of) if *of == number));
    }

    pub(crate) fn set_timer(&mut self, wait: Duration, site: Site, name: u64) {
        self.push(self.now + wait, Happening::Timer { site, name });
    }

    fn push(&mut self, at: Time, what: Happening) {
        self.queue.push(Entry { at, order: self.added, what });
        self.added += 1;
    }

    fn trace(&mut self, from: Site, to: Site, kind: u64, number: u64) {
        self.events += 1;
        for value in [self.now.as_nanos(), from as u64, to as u64, kind, number] {
            self.trace.update(value.to_le_bytes());
        }
    }

    fn open_row(&mut self, number: u64) {
        if number <= self.warm_up {
            return;
        }
        let stage = &self.stage;
        let send = stage.links.up.map_or(0.0, |bandwidth| stage.block_bytes as f64 / bandwidth as f64);
        let limit = Duration::from_secs_f64(send) + stage.latency.longest(SOURCE, 0..stage.peers);
        let receivers = (0..stage.peers).filter(|site| !stage.silent.contains(site));
        let key = (0, 0, number - self.warm_up);
        self.board.held(key, self.now, SOURCE, limit, stage.block_bytes, receivers);
    }

    /// A body is here: it goes to the verifier unless the site has it.
    fn body_came(&mut self, from: Site, to: Site, number: u64) -> bool {
        let stage = &self.stage;
        let counts = !stage.silent.contains(&to);
        if let Some(of) = number.checked_sub(self.warm_up).filter(|of| *of > 0) {
            self.bytes.bodies += if counts { stage.block_bytes as u64 } else { 0 };
            self.board.body((0, 0, of), from, stage.block_bytes, counts);
        }
        if !self.come[to].insert(number) {
            return false;
        }
        let cost = stage.verify_cost + cost_of(stage.verify_cost_per_mb, stage.block_bytes);
        let done = self.verifier_free_at[to].max(self.now) + cost;
        self.verifier_free_at[to] = done;
        let on_request = self.asked.contains(&(to, number));
        self.push(done, Happening::Verified { site: to, from, number, on_request });
        true
    }
}

/// Runs a model to the end.
pub(crate) fn run(stage: Stage, mut protocol: impl Protocol, mut progress: impl FnMut(u64)) -> Measured {
    let warm_up = protocol.warm_up_blocks();
    let (blocks, patience) = (stage.blocks + warm_up, stage.patience);
    let mut air = Air::new(stage, warm_up);
    protocol.begin(&mut air);
    air.push(Time::from_millis(1), Happening::Publish(1));
    let mut published = 0;
    let mut over_at: Option<Time> = None;
    let mut published_at = Time::ZERO;
    loop {
        let queue = air.queue.peek().map(|entry| entry.at);
        let Some(at) = [queue, air.wire.next()].into_iter().flatten().min() else { break };
        air.now = at;
        let all = published == blocks;
        if all && air.board.is_complete() {
            over_at.get_or_insert(at);
        }
        if all && (over_at.is_some_and(|over| at.since(over) >= DRAIN) || at.since(published_at) >= patience)
        {
            break;
        }
        if air.wire.next() == Some(at) {
            if let Some(delivery) = air.wire.step() {
                deliver(&mut air, &mut protocol, delivery);
            }
        } else if let Some(Entry { what, .. }) = air.queue.pop() {
            match what {
                Happening::Publish(number) => {
                    published = number;
                    published_at = at;
                    progress(number.saturating_sub(warm_up));
                    air.come[SOURCE].insert(number);
                    air.held[SOURCE].insert(number);
                    air.open_row(number);
                    protocol.holds(&mut air, SOURCE, None, number);
                    if number < blocks {
                        // Blocks of the warm-up are far apart: each finds the tree that the one before has left.
                        let wait = if number <= warm_up { patience } else { air.stage.interval };
                        air.push(at + wait, Happening::Publish(number + 1));
                    }
                }
                Happening::Verified { site, from, number, on_request } => {
                    air.held[site].insert(number);
                    air.trace(from, site, 0, number);
                    if number > warm_up {
                        air.board.got((0, 0, number - warm_up), at, site, on_request);
                    }
                    protocol.holds(&mut air, site, Some(from), number);
                }
                Happening::Timer { site, name } => protocol.timer(&mut air, site, name),
            }
        }
    }
    let (rows, latencies) = air.board.finish();
    Measured {
        rows,
        latencies,
        control_bytes: air.bytes.control,
        body_bytes: air.bytes.bodies,
        events: air.events,
        ended_at: air.now,
        trace_hash: hex(&air.trace.finalize()),
    }
}

fn deliver(air: &mut Air, protocol: &mut impl Protocol, delivery: Delivery<Parcel>) {
    // A broken connection is another way to lose a message here: models have no reconnection.
    let Delivery::Message { from, to, payload } = delivery else { return };
    match payload {
        Parcel::Body(number) => {
            air.trace(from, to, 1, number);
            let first = air.body_came(from, to, number);
            protocol.body(air, to, from, number, first);
        }
        Parcel::Note(note) => {
            air.trace(from, to, 2 + u64::from(note.kind), note.number);
            if air.is_scored_time() && !air.stage.silent.contains(&to) {
                air.bytes.control += FRAME_BYTES_MIN as u64;
            }
            protocol.note(air, to, from, note);
        }
    }
}

pub(crate) fn hex(bytes: &[u8]) -> String {
    bytes.iter().map(|byte| format!("{byte:02x}")).collect()
}
