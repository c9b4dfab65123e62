//! Dissemination of new blocks inside the organisation: one machine a channel, in one of three modes.
//!
//! | [`DisseminationMode`] | how a new block travels | where |
//! |---|---|---|
//! | `Grapevine` | the leader's delivery plan, announcements, requests from the promised arrival on | `grapevine` |
//! | `Classic` | Fabric's gossip: push to a few random members, periodic pull | [`classic`] |
//! | `Direct` | not at all: every peer pulls from the orderer | here |
//!
//! # Contract
//! Only own-organisation members of the channel are ever told to this machine ([`Dissemination::handle_peer`]), so nothing it
//! wants sent leaves the organisation. Each `handle_*` takes what happened; [`Dissemination::poll_output`] is called
//! until it is `None`; [`Dissemination::handle_timeout`] no later than [`Dissemination::next_deadline`]. Bodies are never
//! seen here: blocks are numbers, hashes and sizes. A block is told to [`Dissemination::handle_block`] only when it is authentic
//! and new; nothing else makes a push.
//!
//! # Boundary
//! Dissemination pursues recent blocks that somebody told it of. What it is pursuing ([`Dissemination::is_pursuing`])
//! [`crate::reconciliation`] leaves alone; what it gives up, and what nobody told it of, is reconciliation's.

mod blame;
pub mod classic;
mod delegation;
mod estimate;
mod grapevine;
mod known;
mod outbox;
mod plan;
mod pursuit;
mod slack;

use std::collections::VecDeque;
use std::time::Duration;

use grapevine_crypto::{Digest, PkiId};
use rand::rngs::ChaCha8Rng;

use crate::chain::Chain;
use crate::time::Time;
use crate::wire::{BulkHeader, ChannelBody, Delegation};
use classic::Classic;
use grapevine::Grapevine;

/// How new blocks travel in a channel (`peer.gossip.dissemination`).
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub enum DisseminationMode {
    /// By the leader's plan, with announcements and repair.
    #[default]
    Grapevine,
    /// As Fabric's gossip does.
    Classic,
    /// Not at all: every peer pulls from the orderer.
    Direct,
}

/// How dissemination behaves; the names are peer.yaml's under `peer.gossip`.
#[derive(Debug, Clone)]
pub struct DisseminationConfig {
    /// The mode.
    pub mode: DisseminationMode,
    /// Peers a new block is pushed to (`propagatePeerNum`).
    pub propagate_peer_num: usize,
    /// Time between digests (`pullInterval`).
    pub pull_interval: Duration,
    /// Peers a digest is sent to (`pullPeerNum`).
    pub pull_peer_num: usize,
    /// Speed of the peers' links in bits per second, as far as the operator knows (`linkMbit`); plans reckon with it.
    pub link_bits_per_second: u64,
}

/// An authentic block that this peer did not have.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct NewBlock {
    /// Its number.
    pub number: u64,
    /// Its header hash.
    pub hash: Digest,
    /// Bytes of its encoding.
    pub size: usize,
    /// How it came.
    pub source: BlockSource,
    /// How long it took to verify, the wait for a worker included.
    pub verified_in: Duration,
}

/// How a block came.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum BlockSource {
    /// From the orderer: this peer leads.
    Orderer,
    /// Pushed by a member of the own organisation.
    Push(PkiId),
    /// Sent on request, or by a member of another organisation.
    Reply(PkiId),
}

impl BlockSource {
    /// The peer that sent it.
    pub fn peer(self) -> Option<PkiId> {
        match self {
            Self::Orderer => None,
            Self::Push(peer) | Self::Reply(peer) => Some(peer),
        }
    }
}

/// What dissemination wants done.
#[derive(Debug, Clone, PartialEq)]
pub enum DisseminationOutput {
    /// Push a block that this peer holds.
    Push {
        /// To.
        peer: PkiId,
        /// The block.
        number: u64,
        /// Whom the receiver is to push it to in turn.
        delegation: Delegation,
    },
    /// Send a control frame of the channel.
    Send {
        /// To.
        peer: PkiId,
        /// The frame.
        body: ChannelBody,
    },
}

/// Counts of what happened.
#[derive(Debug, Default, Clone, PartialEq, Eq)]
pub struct DisseminationCounters {
    /// Announcements and other control frames sent.
    pub frames: u64,
    /// Blocks asked for.
    pub requested: u64,
    /// Blocks that came on such a request.
    pub repaired: u64,
    /// Orders to forward, blocks to pursue and sources of them that were dropped, since too many were remembered.
    pub over_bound: u64,
    /// Orders to forward that contradict themselves; nothing was forwarded.
    pub bad_plans: u64,
    /// Blocks given up and left to reconciliation, or that came by it without having been heard of.
    pub missed: u64,
}

/// The machine of one channel. See the module's header.
#[derive(Debug)]
pub struct Dissemination {
    machine: Machine,
    outputs: VecDeque<DisseminationOutput>,
    counters: DisseminationCounters,
}

#[derive(Debug)]
enum Machine {
    Grapevine(Box<Grapevine>),
    Classic(Box<Classic>),
    Direct,
}

impl Dissemination {
    /// A channel joined at `now`.
    pub fn new(config: DisseminationConfig, now: Time, rng: ChaCha8Rng) -> Self {
        let machine = match config.mode {
            DisseminationMode::Grapevine => Machine::Grapevine(Box::new(Grapevine::new(config, rng))),
            DisseminationMode::Classic => Machine::Classic(Box::new(Classic::new(config, now, rng))),
            DisseminationMode::Direct => Machine::Direct,
        };
        Self { machine, outputs: VecDeque::new(), counters: DisseminationCounters::default() }
    }

    /// An own-organisation member of the channel is connected.
    pub fn handle_peer(&mut self, _now: Time, peer: PkiId) {
        match &mut self.machine {
            Machine::Grapevine(machine) => machine.handle_peer(peer),
            Machine::Classic(machine) => machine.handle_peer(peer),
            Machine::Direct => {}
        }
    }

    /// It no longer is.
    pub fn handle_peer_gone(&mut self, now: Time, peer: PkiId) {
        match &mut self.machine {
            Machine::Grapevine(machine) => machine.handle_peer_gone(now, peer),
            Machine::Classic(machine) => machine.handle_peer_gone(peer),
            Machine::Direct => {}
        }
    }

    /// The smoothed round trip to a peer.
    pub fn handle_round_trip(&mut self, peer: PkiId, round_trip: Duration) {
        if let Machine::Grapevine(machine) = &mut self.machine {
            machine.handle_round_trip(peer, round_trip);
        }
    }

    /// Who leads the channel in the own organisation, as far as this peer knows; it may be this peer.
    pub fn handle_leader(&mut self, leader: Option<PkiId>) {
        if let Machine::Grapevine(machine) = &mut self.machine {
            machine.handle_leader(leader);
        }
    }

    /// A peer says its ledger has `height` blocks.
    pub fn handle_height(&mut self, peer: PkiId, height: u64) {
        match &mut self.machine {
            Machine::Grapevine(machine) => machine.handle_height(peer, height),
            Machine::Classic(_) | Machine::Direct => {}
        }
    }

    /// The first bytes of a body, or more of them, arrive from a peer. Nothing of it is verified.
    pub fn handle_bulk_started(&mut self, now: Time, header: &BulkHeader, chain: &Chain) {
        if let Machine::Grapevine(machine) = &mut self.machine {
            machine.handle_bulk_started(now, header, chain);
        }
    }

    /// A body has arrived from a peer. Nothing of it is verified.
    pub fn handle_bulk(&mut self, now: Time, peer: PkiId, header: &BulkHeader, chain: &Chain) {
        match &mut self.machine {
            Machine::Grapevine(machine) => {
                machine.handle_bulk(now, peer, header, chain, &mut self.outputs, &mut self.counters);
            }
            Machine::Classic(_) | Machine::Direct => {}
        }
    }

    /// A body from this peer did not verify, or was dropped unverified.
    pub fn handle_rejected(&mut self, now: Time, peer: PkiId, number: u64) {
        if let Machine::Grapevine(machine) = &mut self.machine {
            machine.handle_rejected(now, peer, number);
        }
    }

    /// A peer will not send these blocks.
    pub fn handle_refusal(&mut self, now: Time, peer: PkiId, numbers: &[u64]) {
        if let Machine::Grapevine(machine) = &mut self.machine {
            machine.handle_refusal(now, peer, numbers);
        }
    }

    /// An authentic block that is new here.
    pub fn handle_block(&mut self, now: Time, block: &NewBlock, _chain: &Chain) {
        match &mut self.machine {
            Machine::Grapevine(machine) => {
                machine.handle_block(now, block, &mut self.outputs, &mut self.counters);
            }
            Machine::Classic(machine) => {
                machine.handle_block(now, block, &mut self.outputs, &mut self.counters);
            }
            Machine::Direct => {}
        }
    }

    /// A frame of dissemination from an own-organisation member of the channel.
    pub fn handle_frame(&mut self, now: Time, peer: PkiId, frame: &ChannelBody, chain: &Chain) {
        match &mut self.machine {
            Machine::Grapevine(machine) => {
                machine.handle_frame(now, peer, frame, chain, &mut self.outputs, &mut self.counters);
            }
            Machine::Classic(machine) => machine.handle_frame(peer, frame, chain, &mut self.outputs),
            Machine::Direct => {}
        }
    }

    /// Whether every member pulls from the orderer.
    pub fn is_direct(&self) -> bool {
        matches!(self.machine, Machine::Direct)
    }

    /// Whether digests are this machine's, and not reconciliation's.
    pub fn takes_digests(&self) -> bool {
        matches!(self.machine, Machine::Classic(_))
    }

    /// Does what is due.
    pub fn handle_timeout(&mut self, now: Time, chain: &Chain) {
        match &mut self.machine {
            Machine::Grapevine(machine) => {
                machine.handle_timeout(now, chain, &mut self.outputs, &mut self.counters);
            }
            Machine::Classic(machine) => {
                machine.handle_timeout(now, chain, &mut self.outputs, &mut self.counters);
            }
            Machine::Direct => {}
        }
    }

    /// When [`Dissemination::handle_timeout`] is due next.
    pub fn next_deadline(&self) -> Option<Time> {
        match &self.machine {
            Machine::Grapevine(machine) => machine.next_deadline(),
            Machine::Classic(machine) => machine.next_deadline(),
            Machine::Direct => None,
        }
    }

    /// The next thing to do.
    pub fn poll_output(&mut self) -> Option<DisseminationOutput> {
        let output = self.outputs.pop_front();
        self.counters.frames += u64::from(matches!(output, Some(DisseminationOutput::Send { .. })));
        output
    }

    /// Whether this machine sees to it that the block comes.
    pub fn is_pursuing(&self, number: u64) -> bool {
        matches!(&self.machine, Machine::Grapevine(machine) if machine.is_pursuing(number))
    }

    /// Counts of what happened.
    pub fn counters(&self) -> &DisseminationCounters {
        &self.counters
    }
}
