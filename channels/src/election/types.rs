//! Terms, standings, and what the election says of itself.

use std::cmp::Reverse;
use std::time::Duration;

use grapevine_crypto::PkiId;

use crate::time::Time;
use crate::wire::{Leadership, OrdererContact};

/// A leader's reign: who, and the how-manieth.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct Term {
    /// Grows with every election.
    pub counter: u64,
    /// The leader.
    pub leader: PkiId,
}

impl Term {
    /// Whether this term displaces `other`.
    pub fn outranks(&self, other: &Self) -> bool {
        self > other
    }
}

impl Ord for Term {
    /// The higher counter is greater, of equal counters the lower PKI-ID.
    fn cmp(&self, other: &Self) -> std::cmp::Ordering {
        (self.counter, Reverse(self.leader)).cmp(&(other.counter, Reverse(other.leader)))
    }
}

impl PartialOrd for Term {
    fn partial_cmp(&self, other: &Self) -> Option<std::cmp::Ordering> {
        Some(self.cmp(other))
    }
}

/// Why a peer leads.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
#[repr(u32)]
pub enum Reason {
    /// It came out first of an election.
    Elected = 1,
    /// The former leader stopped, or lost its orderers, and named it.
    HandedOver = 2,
    /// The former leader withheld blocks that the orderer has.
    Withholding = 3,
    /// The former leader had fallen behind.
    Behind = 4,
    /// The configuration says so (`orgLeader`).
    Static = 5,
}

impl Reason {
    /// The reason of this number.
    pub fn from_number(number: u32) -> Option<Self> {
        [Self::Elected, Self::HandedOver, Self::Withholding, Self::Behind, Self::Static]
            .into_iter()
            .find(|reason| *reason as u32 == number)
    }

    /// In words, for operators.
    pub fn words(self) -> &'static str {
        match self {
            Self::Elected => "elected: first by contact with an orderer, height, tenure and id",
            Self::HandedOver => "the former leader handed over to it",
            Self::Withholding => "the former leader withheld blocks that the orderer has",
            Self::Behind => "the former leader had fallen behind",
            Self::Static => "by configuration: peer.gossip.orgLeader",
        }
    }
}

/// Who leads, and why: what an operator wants to know.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct Account {
    /// The term.
    pub term: Term,
    /// Since when, as this peer sees it.
    pub since: Time,
    /// Why, as the leader says.
    pub reason: Option<Reason>,
    /// The leader's ledger height, as it said last.
    pub height: u64,
    /// Round trip between the leader and its orderer, as it said last.
    pub orderer_round_trip: Option<Duration>,
    /// The leader itself is not heard, but followers of it are.
    pub hearsay: bool,
}

/// What the election wants done.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub enum ElectionOutput {
    /// Send to one own-organisation member of the channel. The sender's tip hash is to be filled in.
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
    /// Ask an orderer for its newest header and answer with `handle_probe`, within one lease.
    ProbeOrderer,
    /// A leader withheld blocks and is deposed.
    Deposed(PkiId),
}

/// What counts in the comparison of two candidates; the greater leads.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub(super) struct Standing {
    pub(super) contact: Rank,
    pub(super) height: u64,
    pub(super) tenure: u32,
    pub(super) id: Reverse<PkiId>,
}

/// Contact with an orderer as candidates rank by it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub(super) enum Rank {
    Failed,
    Unknown,
    Reached,
}

impl From<OrdererContact> for Rank {
    fn from(contact: OrdererContact) -> Self {
        match contact {
            OrdererContact::Failed => Self::Failed,
            OrdererContact::Unknown => Self::Unknown,
            OrdererContact::Reached => Self::Reached,
        }
    }
}

/// What a member said of itself last.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub(super) struct Member {
    pub(super) contact: OrdererContact,
    /// When it said so; the claim is believed for one lease.
    pub(super) contact_at: Time,
    pub(super) height: u64,
    pub(super) tenure: u32,
}

impl Member {
    pub(super) fn new(now: Time) -> Self {
        Self { contact: OrdererContact::Unknown, contact_at: now, height: 0, tenure: 0 }
    }
}

/// This peer's own dealings with the orderers.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub(super) struct OwnContact {
    pub(super) state: OrdererContact,
    pub(super) at: Time,
    pub(super) round_trip: Option<Duration>,
}

/// A height now and one lease ago at least: what somebody should have reached by now.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub(super) struct Marks {
    older: (Time, u64),
    newer: (Time, u64),
}

impl Marks {
    pub(super) fn new(now: Time, height: u64) -> Self {
        Self { older: (now, 0), newer: (now, height) }
    }

    /// Takes a new sample if the last one is old enough.
    pub(super) fn sample(&mut self, now: Time, height: u64, lease: Duration) {
        if now.since(self.newer.0) >= lease {
            self.older = self.newer;
            self.newer = (now, height);
        }
    }

    /// The height that was reached a lease ago or earlier.
    pub(super) fn reached(&self, now: Time, lease: Duration) -> u64 {
        if now.since(self.newer.0) >= lease { self.newer.1 } else { self.older.1 }
    }

    #[cfg(test)]
    pub(super) fn map_times(&mut self, map: &dyn Fn(Time) -> Time) {
        (self.older.0, self.newer.0) = (map(self.older.0), map(self.newer.0));
    }
}

/// The binary logarithm of the seconds, rounded down, plus one; 0 in the first second.
pub(super) fn tenure_class(time: Duration) -> u32 {
    u64::BITS - time.as_secs().leading_zeros()
}
