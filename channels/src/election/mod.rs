//! Leader election: which peer of an organisation pulls a channel's blocks from the ordering service.
//!
//! # Promise
//! Among the live own-organisation peers that have joined the channel and hear each other, one leads once messages
//! flow; two for a moment are harmless, since both pull the same verified chain, and short, since the lower term steps
//! down when it hears the higher. A peer never follows a lower term after a higher one it still hears.
//!
//! # Terms
//! A term is (counter, PKI-ID): the higher counter wins, of equal counters the lower PKI-ID (Fabric's order). A
//! candidate takes the highest counter it has heard plus one.
//!
//! # Messages
//! [`LeadershipKind::Declaration`] from the leader every third of `leader_alive_threshold`, and at once to whoever
//! proposes or declares a lower term. [`LeadershipKind::Proposal`] when no declaration came for
//! `leader_alive_threshold`, or the leader's connection broke, or it resigned. Of candidates who hear each other the
//! one that can reach an orderer wins, then the greater height, then the lower PKI-ID; after `leader_election_duration`
//! without a better proposal a candidate leads. [`LeadershipKind::Resignation`] on shutdown: the election starts at
//! once. Messages come over connections whose peer is authenticated, go to every own-organisation member of the
//! channel, and are never relayed.
//!
//! # Yielding
//! A leader that cannot reach any orderer for [`ORDERER_SILENCE_MAX`] resigns, once: it ranks last until it reaches one
//! or [`YIELD_DURATION`] has passed. If nobody can, the last one asked stays leader and keeps trying.
//!
//! # Modes
//! `use_leader_election`: as above. `org_leader`: this peer leads, always, whoever else does (Fabric's static
//! leader). Neither: it never leads and lives from gossip and reconciliation.
//!
//! # Attacks
//! The election is inside one organisation, among peers its CA vouches for; a lying member can lead and withhold. Then
//! heights of other organisations and their blocks still arrive by reconciliation. A counter near its maximum
//! cannot lock others out: a term whose counter jumps more than [`COUNTER_JUMP_MAX`] ahead is not followed.

#[cfg(test)]
mod tests;

use std::collections::{BTreeSet, VecDeque};
use std::time::Duration;

use grapevine_crypto::PkiId;
use rand::RngExt;
use rand::rngs::ChaCha8Rng;

use crate::time::Time;
use crate::wire::{Leadership, LeadershipKind};

/// A leader without an orderer for this long makes room for another.
pub const ORDERER_SILENCE_MAX: Duration = Duration::from_secs(5);
/// How long a peer that yielded ranks last, unless it reaches an orderer before.
pub const YIELD_DURATION: Duration = Duration::from_secs(60);
/// Furthest a term's counter may be ahead of the highest one known.
pub const COUNTER_JUMP_MAX: u64 = 1 << 32;
/// Declarations per `leader_alive_threshold`.
const DECLARATIONS_PER_THRESHOLD: u32 = 3;

/// How the election behaves; the names are peer.yaml's under `peer.gossip`.
#[derive(Debug, Clone)]
pub struct ElectionConfig {
    /// Elect a leader (`useLeaderElection`). Excludes `org_leader`.
    pub use_leader_election: bool,
    /// Lead always (`orgLeader`).
    pub org_leader: bool,
    /// Longest wait for the membership to settle after joining (`election.startupGracePeriod`).
    pub startup_grace_period: Duration,
    /// The membership has settled when it did not change for this long (`election.membershipSampleInterval`).
    pub membership_sample_interval: Duration,
    /// Silence of the leader after which it is replaced (`election.leaderAliveThreshold`).
    pub leader_alive_threshold: Duration,
    /// How long a candidate waits for better ones (`election.leaderElectionDuration`).
    pub leader_election_duration: Duration,
}

/// A leader's reign: who, and the how-manieth.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Term {
    /// Grows with every election.
    pub counter: u64,
    /// The leader.
    pub leader: PkiId,
}

impl Term {
    /// Whether this term displaces `other`.
    pub fn outranks(&self, other: &Self) -> bool {
        (self.counter, std::cmp::Reverse(self.leader)) > (other.counter, std::cmp::Reverse(other.leader))
    }
}

/// What the election wants done.
#[derive(Debug, Clone, PartialEq)]
pub enum ElectionOutput {
    /// Send to one own-organisation member of the channel.
    Send {
        /// The member.
        peer: PkiId,
        /// The message.
        message: Leadership,
    },
    /// This peer leads from now on: pull from the orderer.
    Lead(Term),
    /// This peer no longer leads: stop pulling.
    StepDown,
    /// This peer follows another leader now, or knows none.
    Follow(Option<Term>),
}

#[derive(Debug, Clone, Copy, PartialEq)]
enum Stance {
    /// Waiting until the membership stops changing, or a leader is heard.
    Settling { since: Time, changed: Time },
    /// Living under a leader, or waiting for one, until the lease ends.
    Following { leader: Option<Term>, lease_ends: Time },
    /// Wants to lead at `decides`, unless somebody better speaks up.
    Candidate { counter: u64, decides: Time },
    /// Leads.
    Leading { term: Term, next_declaration: Time },
    /// Never takes part: `org_leader` or neither.
    Static,
}

/// A member of the channel in the own organisation, as far as the election knows it.
#[derive(Debug, Clone, Copy)]
struct Candidacy {
    height: u64,
    yielding: bool,
}

/// The election machine of one channel. See the module's header.
#[derive(Debug)]
pub struct Election {
    config: ElectionConfig,
    own: PkiId,
    members: BTreeSet<PkiId>,
    stance: Stance,
    counter_highest: u64,
    height: u64,
    orderer_lost_at: Option<Time>,
    yielding_until: Option<Time>,
    rng: ChaCha8Rng,
    outputs: VecDeque<ElectionOutput>,
}

impl Election {
    /// Joins the election of a channel at `now` with a ledger of `height` blocks.
    pub fn new(config: ElectionConfig, own: PkiId, height: u64, now: Time, rng: ChaCha8Rng) -> Self {
        let mut outputs = VecDeque::new();
        let stance = if config.use_leader_election {
            Stance::Settling { since: now, changed: now }
        } else {
            if config.org_leader {
                outputs.push_back(ElectionOutput::Lead(Term { counter: 0, leader: own }));
            }
            Stance::Static
        };
        Self {
            config,
            own,
            members: BTreeSet::new(),
            stance,
            counter_highest: 0,
            height,
            orderer_lost_at: None,
            yielding_until: None,
            rng,
            outputs,
        }
    }

    /// A live own-organisation peer has joined the channel and is connected.
    pub fn handle_member(&mut self, now: Time, peer: PkiId) {
        self.members.insert(peer);
        match self.stance {
            Stance::Settling { since, .. } => self.stance = Stance::Settling { since, changed: now },
            Stance::Leading { term, .. } => self.send(peer, LeadershipKind::Declaration, term.counter),
            _ => {}
        }
    }

    /// A member left, died, or its connection broke. If it led, the election starts after a short random wait.
    pub fn handle_member_gone(&mut self, now: Time, peer: PkiId) {
        self.members.remove(&peer);
        match self.stance {
            Stance::Settling { since, .. } => self.stance = Stance::Settling { since, changed: now },
            Stance::Following { leader: Some(term), .. } if term.leader == peer => self.leaderless(now),
            _ => {}
        }
    }

    /// The own ledger grew.
    pub fn handle_height(&mut self, height: u64) {
        self.height = self.height.max(height);
    }

    /// The deliver client reached an orderer, or lost the last one.
    pub fn handle_orderer_contact(&mut self, now: Time, in_contact: bool) {
        if in_contact {
            self.orderer_lost_at = None;
            self.yielding_until = None;
        } else if self.orderer_lost_at.is_none() {
            self.orderer_lost_at = Some(now);
        }
    }

    /// A message from an own-organisation member of the channel.
    pub fn handle_message(&mut self, now: Time, from: PkiId, message: &Leadership) {
        if self.stance == Stance::Static || !self.members.contains(&from) {
            return;
        }
        if message.counter > self.counter_highest.saturating_add(COUNTER_JUMP_MAX) {
            return;
        }
        self.counter_highest = self.counter_highest.max(message.counter);
        let term = Term { counter: message.counter, leader: from };
        match message.kind() {
            LeadershipKind::Declaration => self.handle_declaration(now, term),
            LeadershipKind::Proposal => {
                self.handle_proposal(
                    now,
                    from,
                    Candidacy { height: message.height, yielding: message.yielding },
                );
            }
            LeadershipKind::Resignation => {
                if let Stance::Following { leader: Some(leader), .. } = self.stance
                    && leader.leader == from
                {
                    self.leaderless(now);
                }
            }
            LeadershipKind::Unspecified => {}
        }
    }

    /// Leases, candidacies and declarations that are due.
    pub fn handle_timeout(&mut self, now: Time) {
        if self.yielding_until.is_some_and(|until| until <= now) {
            self.yielding_until = None;
        }
        if self.next_deadline().is_none_or(|deadline| deadline > now) {
            return;
        }
        match self.stance {
            Stance::Settling { .. } => self.propose(now),
            Stance::Following { .. } => {
                self.follow(None, now);
                self.propose(now);
            }
            Stance::Candidate { counter, .. } => {
                let term = Term { counter, leader: self.own };
                self.stance = Stance::Leading { term, next_declaration: now };
                self.orderer_lost_at = None;
                self.outputs.push_back(ElectionOutput::Lead(term));
                self.declare(now, term);
            }
            Stance::Leading { term, next_declaration } => {
                let silent = self.orderer_lost_at.is_some_and(|at| now.since(at) >= ORDERER_SILENCE_MAX);
                if silent && self.yielding_until.is_none() && !self.members.is_empty() {
                    self.yielding_until = Some(now + YIELD_DURATION);
                    self.resign(now, term);
                } else if next_declaration <= now {
                    self.declare(now, term);
                }
            }
            Stance::Static => {}
        }
    }

    /// Makes room at once: others hear of it before this peer stops.
    pub fn handle_shutdown(&mut self, now: Time) {
        if let Stance::Leading { term, .. } = self.stance {
            self.resign(now, term);
        }
        self.stance = Stance::Static;
    }

    /// When [`Election::handle_timeout`] is due next.
    pub fn next_deadline(&self) -> Option<Time> {
        match self.stance {
            Stance::Settling { since, changed } => Some(
                (changed + self.config.membership_sample_interval)
                    .max(since + self.config.membership_sample_interval * 2)
                    .min(since + self.config.startup_grace_period),
            ),
            Stance::Following { lease_ends, .. } => Some(lease_ends),
            Stance::Candidate { decides, .. } => Some(decides),
            Stance::Leading { next_declaration, .. } => {
                let yields = self
                    .orderer_lost_at
                    .filter(|_| self.yielding_until.is_none() && !self.members.is_empty())
                    .map(|at| at + ORDERER_SILENCE_MAX);
                Some(yields.map_or(next_declaration, |at| at.min(next_declaration)))
            }
            Stance::Static => None,
        }
    }

    /// The next thing to do.
    pub fn poll_output(&mut self) -> Option<ElectionOutput> {
        self.outputs.pop_front()
    }

    /// Whether [`Election::poll_output`] has something.
    pub fn has_output(&self) -> bool {
        !self.outputs.is_empty()
    }

    /// The leader this peer follows or is.
    pub fn leader(&self) -> Option<Term> {
        match self.stance {
            Stance::Leading { term, .. } => Some(term),
            Stance::Following { leader, .. } => leader,
            Stance::Static if self.config.org_leader => Some(Term { counter: 0, leader: self.own }),
            _ => None,
        }
    }

    /// Whether this peer pulls from the orderer.
    pub fn is_leader(&self) -> bool {
        self.leader().is_some_and(|term| term.leader == self.own)
    }

    fn handle_declaration(&mut self, now: Time, term: Term) {
        match self.stance {
            Stance::Leading { term: own, .. } => {
                if term.outranks(&own) {
                    self.outputs.push_back(ElectionOutput::StepDown);
                    self.follow(Some(term), now);
                } else {
                    self.send(term.leader, LeadershipKind::Declaration, own.counter);
                }
            }
            Stance::Following { leader: Some(leader), .. } if leader != term && leader.outranks(&term) => {}
            // A candidate's counter is above every leader it heard: only who knows better is followed.
            Stance::Candidate { counter, .. } if term.counter < counter => {
                self.send(term.leader, LeadershipKind::Proposal, counter);
            }
            _ => self.follow(Some(term), now),
        }
    }

    fn handle_proposal(&mut self, now: Time, from: PkiId, theirs: Candidacy) {
        match self.stance {
            Stance::Leading { term, .. } => {
                // Someone did not hear us, or lives in a later term: outrank it and say so.
                let term = Term { counter: term.counter.max(self.counter_highest), leader: self.own };
                self.stance = Stance::Leading { term, next_declaration: now + self.declaration_interval() };
                self.send_all(LeadershipKind::Declaration, term.counter);
            }
            Stance::Candidate { counter, .. } => {
                if self.is_better(from, theirs) {
                    self.stance = Stance::Following { leader: None, lease_ends: now + self.patience() };
                } else {
                    self.send(from, LeadershipKind::Proposal, counter);
                }
            }
            Stance::Settling { .. } | Stance::Following { leader: None, .. } => {
                if self.is_better(from, theirs) {
                    self.stance = Stance::Following { leader: None, lease_ends: now + self.patience() };
                } else {
                    self.propose(now);
                }
            }
            Stance::Following { .. } | Stance::Static => {}
        }
    }

    /// Whether another candidate should lead rather than this peer.
    fn is_better(&self, other: PkiId, theirs: Candidacy) -> bool {
        let rank = |yielding: bool, height: u64, id: PkiId| (!yielding, height, std::cmp::Reverse(id));
        rank(theirs.yielding, theirs.height, other)
            > rank(self.yielding_until.is_some(), self.height, self.own)
    }

    fn propose(&mut self, now: Time) {
        let counter = self.counter_highest.saturating_add(1);
        let wait =
            if self.members.is_empty() { Duration::ZERO } else { self.config.leader_election_duration };
        self.stance = Stance::Candidate { counter, decides: now + wait };
        self.send_all(LeadershipKind::Proposal, counter);
    }

    fn declare(&mut self, now: Time, term: Term) {
        self.counter_highest = self.counter_highest.max(term.counter);
        self.stance = Stance::Leading { term, next_declaration: now + self.declaration_interval() };
        self.send_all(LeadershipKind::Declaration, term.counter);
    }

    fn resign(&mut self, now: Time, term: Term) {
        self.send_all(LeadershipKind::Resignation, term.counter);
        self.outputs.push_back(ElectionOutput::StepDown);
        self.stance = Stance::Following { leader: None, lease_ends: now + self.patience() };
        self.outputs.push_back(ElectionOutput::Follow(None));
    }

    /// The leader is gone: candidates speak up after a random moment, so that seldom all do at once.
    fn leaderless(&mut self, now: Time) {
        let spread = self.config.leader_election_duration / 4;
        let wait = spread.mul_f64(self.rng.random_range(0.0..1.0));
        self.follow(None, now);
        self.stance = Stance::Following { leader: None, lease_ends: now + wait };
    }

    fn follow(&mut self, leader: Option<Term>, now: Time) {
        let former = self.leader();
        self.stance = Stance::Following { leader, lease_ends: now + self.config.leader_alive_threshold };
        if former != leader {
            self.outputs.push_back(ElectionOutput::Follow(leader));
        }
    }

    /// How long to wait for the declaration of somebody better before proposing again.
    fn patience(&self) -> Duration {
        self.config.leader_election_duration * 2
    }

    fn declaration_interval(&self) -> Duration {
        self.config.leader_alive_threshold / DECLARATIONS_PER_THRESHOLD
    }

    fn send_all(&mut self, kind: LeadershipKind, counter: u64) {
        let members: Vec<PkiId> = self.members.iter().copied().collect();
        for peer in members {
            self.send(peer, kind, counter);
        }
    }

    fn send(&mut self, peer: PkiId, kind: LeadershipKind, counter: u64) {
        let message = Leadership {
            kind: kind.into(),
            counter,
            height: self.height,
            yielding: self.yielding_until.is_some(),
        };
        self.outputs.push_back(ElectionOutput::Send { peer, message });
    }
}
