//! Leader election: which peer of an organisation pulls a channel's blocks from the ordering service.
//!
//! # Promise
//! Among the live own-organisation peers that have joined the channel and hear each other, directly or through a third,
//! exactly one leads within three leases once faults stop; two for a moment are harmless, since both pull the same
//! verified chain. A peer follows one leader and never returns to a lower term. (`model.rs` explores both for small
//! networks, this very machine in it.) A running leader is not displaced by a better candidate, only when it is gone,
//! behind or withholding.
//!
//! # Terms and leases
//! A [`Term`] is (counter, PKI-ID), totally ordered: the higher counter wins, of equal counters the lower PKI-ID. A
//! candidate takes the highest counter it has heard plus one. A declaration is believed for one *lease*
//! (`leader_alive_threshold`) and comes [`DECLARATIONS_PER_LEASE`] times in it.
//!
//! # Rank of candidates
//! Contact with an orderer (a claim, believed for one lease), then height, then tenure (in classes of doubling length),
//! then PKI-ID. A height counts only as far as the receiver has verified blocks itself, and not at all if its
//! tip hash contradicts them (`counted`, worked out by the node); a claim to have less is believed. So nobody leads by
//! claiming a height. Who should go first, as far as a peer knows, waits for nothing, the others a
//! slot longer each: mostly there is one candidate. A candidate probes an orderer while it waits
//! `leader_election_duration` for better ones, twice that if it has never known a leader. It makes way for each better one once; if that one does not lead then, it
//! is passed over.
//!
//! # Start
//! Peers that start together must not each lead alone, all pulling from the orderers, before they have met. A peer that knows no
//! member yet stands only when its bootstrap and anchor peers have answered or failed twice; after that, and with members,
//! when the membership did not change for `membership_sample_interval`; after `startup_grace_period` in any case. A leader
//! declares itself to each new member at once.
//!
//! # Messages ([`LeadershipKind`])
//! *Declaration* from the leader. *Proposal* from a candidate: a follower asks its leader with a *query*, the leader
//! declares itself, the follower gives the candidate *notice* of the term, and the candidate follows by hearsay: a
//! broken connection to a leader that lives moves no leadership. *Resignation* on shutdown names the successor, which leads
//! at once. *Vacancy*: a leader without an orderer for one lease asks who reaches one, and hands over to the first
//! that does; if nobody does it stays and asks again. Messages come over connections whose peer is authenticated and count
//! from live own-organisation members of the channel only; they are never relayed.
//!
//! # Behind, withholding
//! A declaration from somebody who lacks what the receiver had a lease ago is not followed; if it is the own leader, the
//! receiver stands against it. Nothing verified for two leases: one random member (drawn alike by all from a hash) asks the
//! orderer for its newest header; if that block has not come a lease later, the leader is deposed: not followed for
//! [`DEPOSED_FOR`] by whoever was without blocks as well.
//!
//! # Modes
//! `use_leader_election`: as above. `org_leader`: this peer leads, always, whoever else does (Fabric's static
//! leader). Neither: it never leads and lives from gossip and reconciliation.
//!
//! # Bounds
//! State is bounded by the members the node feeds (its connections); at most [`DEPOSED_MAX`] deposed leaders are
//! remembered, the one whose time ends first goes early.
//!
//! # Attacks
//! The election is inside one organisation, among peers its CA vouches for; a lying member can lead, and then withhold
//! until it is deposed. A counter near its maximum cannot lock others out: a term whose counter jumps more than
//! [`COUNTER_JUMP_MAX`] ahead is not heard. Who is told of a leader by a liar follows it for one lease at a time, and the watch
//! on withholding runs meanwhile.

#[cfg(test)]
mod model;
mod protocol;
mod stance;
#[cfg(test)]
mod tests;
mod types;
mod watch;

use std::cmp::Reverse;
use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::time::Duration;

use grapevine_crypto::PkiId;

use crate::time::{Time, earliest};
use crate::wire::{Leadership, LeadershipKind, OrdererContact};
pub use types::{Account, ElectionOutput, Reason, Term};
use types::{Marks, Member, OwnContact, Standing, tenure_class};
use watch::Watch;

/// Declarations per lease.
pub const DECLARATIONS_PER_LEASE: u32 = 5;
/// How long a leader that withheld blocks is not followed.
pub const DEPOSED_FOR: Duration = Duration::from_secs(60);
/// Most deposed leaders remembered.
pub const DEPOSED_MAX: usize = 16;
/// Furthest a term's counter may be ahead of the highest one known.
pub const COUNTER_JUMP_MAX: u64 = 1 << 32;
/// Slots in one `leader_election_duration`: candidates speak up one slot after another, best first.
const SLOTS_PER_ELECTION: u32 = 6;
/// Nobody waits for more slots than this.
const SLOTS_MAX: u32 = 8;

/// How the election behaves; the names are peer.yaml's under `peer.gossip`.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub struct ElectionConfig {
    /// Elect a leader (`useLeaderElection`). Excludes `org_leader`.
    pub use_leader_election: bool,
    /// Lead always (`orgLeader`).
    pub org_leader: bool,
    /// Longest wait after joining for bootstrap and anchor peers to answer and for the membership to settle
    /// (`election.startupGracePeriod`).
    pub startup_grace_period: Duration,
    /// The membership has settled when it did not change for this long (`election.membershipSampleInterval`).
    pub membership_sample_interval: Duration,
    /// The lease: silence of the leader after which it is replaced (`election.leaderAliveThreshold`).
    pub leader_alive_threshold: Duration,
    /// How long a candidate waits for better ones (`election.leaderElectionDuration`).
    pub leader_election_duration: Duration,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
enum Stance {
    /// Waiting until the membership stops changing, or a leader is heard. `seeking`: bootstrap or anchor peers may still turn
    /// up; who knows nobody waits for them.
    Settling { since: Time, changed: Time, seeking: bool },
    /// Living under a leader until the lease ends.
    Following { account: Account, lease_ends: Time },
    /// Without a leader; speaks up at `proposes`, unless somebody leads by then.
    Leaderless { proposes: Time },
    /// Wants to lead at `decides`, unless somebody better speaks up.
    Candidate { counter: u64, decides: Time },
    /// Leads. `vacancy`: when it asks who else reaches an orderer, unless it reaches one itself.
    Leading { account: Account, declared: Time, declares: Time, vacancy: Time },
    /// Never takes part: `org_leader` or neither, or stopped.
    Static,
}

/// A probe of an orderer on behalf of the leader.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
enum Errand {
    Due(Time),
    UnderWay,
}

/// The election machine of one channel. See the module's header.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub struct Election {
    config: ElectionConfig,
    own: PkiId,
    joined: Time,
    members: BTreeMap<PkiId, Member>,
    stance: Stance,
    /// The highest term ever followed or led; a lower one is not followed.
    floor: Option<Term>,
    /// The highest counter heard, or led with.
    counter_highest: u64,
    /// The highest counter of a declaration that was not followed.
    counter_contested: u64,
    height: u64,
    marks: Marks,
    contact: OwnContact,
    /// Candidates that this one made way for, and leaders that went, since there was a leader.
    passed_over: BTreeSet<PkiId>,
    /// Leaders not to follow, and until when.
    deposed: BTreeMap<PkiId, Time>,
    /// Members that want to know when the leader is heard next.
    doubters: BTreeSet<PkiId>,
    /// When the leader was asked last to declare itself.
    queried: Option<Time>,
    /// Why this peer stands, and against whom.
    cause: (Reason, Option<PkiId>),
    watch: Watch,
    /// The probe of an orderer for a leader that lost it.
    errand: Option<Errand>,
    outputs: VecDeque<ElectionOutput>,
}

impl Election {
    /// Joins the election of a channel at `now` with a ledger of `height` blocks.
    pub fn new(config: ElectionConfig, own: PkiId, height: u64, now: Time) -> Self {
        let mut outputs = VecDeque::new();
        let stance = if config.use_leader_election {
            Stance::Settling { since: now, changed: now, seeking: false }
        } else {
            if config.org_leader {
                outputs.push_back(ElectionOutput::Lead(Term { counter: 0, leader: own }));
            }
            Stance::Static
        };
        Self {
            own,
            joined: now,
            members: BTreeMap::new(),
            stance,
            floor: None,
            counter_highest: 0,
            counter_contested: 0,
            height,
            marks: Marks::new(now, height),
            contact: OwnContact { state: OrdererContact::Unknown, at: now, round_trip: None },
            passed_over: BTreeSet::new(),
            deposed: BTreeMap::new(),
            doubters: BTreeSet::new(),
            queried: None,
            cause: (Reason::Elected, None),
            watch: Watch::new(now, height),
            errand: None,
            outputs,
            config,
        }
    }

    /// A live own-organisation peer has joined the channel and is connected.
    pub fn handle_member(&mut self, now: Time, peer: PkiId) {
        self.members.entry(peer).or_insert_with(|| Member::new(now));
        match self.stance {
            Stance::Settling { since, seeking, .. } => {
                self.stance = Stance::Settling { since, changed: now, seeking };
            }
            Stance::Leading { .. } => self.send(now, peer, LeadershipKind::Declaration),
            _ => {}
        }
    }

    /// A member left, died, or its connection broke. If it led, the election starts.
    pub fn handle_member_gone(&mut self, now: Time, peer: PkiId) {
        self.members.remove(&peer);
        self.doubters.remove(&peer);
        match self.stance {
            Stance::Settling { since, seeking, .. } => {
                self.stance = Stance::Settling { since, changed: now, seeking };
            }
            Stance::Following { account, .. } if account.term.leader == peer && !account.hearsay => {
                self.leaderless(now, self.turn(now));
            }
            _ => {}
        }
    }

    /// Whether bootstrap or anchor peers may still turn up.
    pub fn handle_seeking(&mut self, now: Time, seeking: bool) {
        if let Stance::Settling { since, changed, seeking: was } = self.stance {
            let changed = if seeking == was { changed } else { now };
            self.stance = Stance::Settling { since, changed, seeking };
        }
    }

    /// Whether this peer waits for the membership to settle after joining.
    pub fn is_settling(&self) -> bool {
        matches!(self.stance, Stance::Settling { .. })
    }

    /// A member says how many blocks it has; `counted` as in [`Election::handle_message`].
    pub fn handle_claim(&mut self, peer: &PkiId, counted: u64) {
        if let Some(member) = self.members.get_mut(peer) {
            member.height = counted;
        }
    }

    /// The own ledger grew.
    pub fn handle_height(&mut self, now: Time, height: u64) {
        self.height = self.height.max(height);
        self.handle_verified(now, height);
    }

    /// Blocks below `height` are known to exist: one was verified that did not come from a probe.
    pub fn handle_verified(&mut self, now: Time, height: u64) {
        self.watch.progress(now, height);
    }

    /// Blocks below this are known to exist; greater claims of others don't count.
    pub fn verified(&self) -> u64 {
        self.watch.verified().max(self.height)
    }

    /// The deliver client reached an orderer after `round_trip`, or lost the last one.
    pub fn handle_orderer_contact(&mut self, now: Time, reached: Option<Option<Duration>>) {
        let was_lost = self.contact.state == OrdererContact::Failed;
        self.note_contact(now, reached);
        // Further failures do not put off the question who else reaches one.
        if let Stance::Leading { account, declared, declares, .. } = self.stance
            && !(was_lost && reached.is_none())
        {
            let vacancy = now + self.lease();
            self.stance = Stance::Leading { account, declared, declares, vacancy };
        }
    }

    /// What an [`ElectionOutput::ProbeOrderer`] found: the round trip, or `None` if no orderer answered.
    pub fn handle_probe(&mut self, now: Time, round_trip: Option<Duration>) {
        if matches!(self.stance, Stance::Leading { .. }) {
            // A leader's contact is its stream.
            self.contact.round_trip = round_trip.or(self.contact.round_trip);
            return;
        }
        self.note_contact(now, round_trip.map(Some));
        match self.stance {
            Stance::Candidate { .. } => self.send_all(now, LeadershipKind::Proposal),
            Stance::Following { account, .. } if round_trip.is_some() && self.errand.is_some() => {
                self.errand = None;
                self.send(now, account.term.leader, LeadershipKind::Proposal);
            }
            _ => {}
        }
    }

    /// The newest header a probe found is authentic, and there are `height` blocks with it.
    pub fn handle_newest(&mut self, now: Time, height: u64) {
        if matches!(self.stance, Stance::Following { .. }) && height > self.verified() {
            self.watch.suspect(height, now + self.lease());
        }
    }

    /// A message from an own-organisation member of the channel. `counted`: its height, as far as this node has
    /// verified blocks itself; 0 if its tip contradicts them.
    pub fn handle_message(&mut self, now: Time, from: PkiId, message: &Leadership, counted: u64) {
        if self.stance == Stance::Static {
            return;
        }
        if message.counter > self.counter_highest.saturating_add(COUNTER_JUMP_MAX) {
            return;
        }
        let Some(member) = self.members.get_mut(&from) else { return };
        let (contact, tenure) = (message.contact(), message.tenure);
        *member = Member { contact, contact_at: now, height: counted, tenure };
        self.counter_highest = self.counter_highest.max(message.counter);
        self.dispatch(now, from, message, counted);
    }

    /// Leases, candidacies and declarations that are due.
    pub fn handle_timeout(&mut self, now: Time) {
        self.marks.sample(now, self.height, self.lease());
        self.deposed.retain(|_, until| *until > now);
        if matches!(self.errand, Some(Errand::Due(at)) if at <= now) {
            self.errand = Some(Errand::UnderWay);
            self.outputs.push_back(ElectionOutput::ProbeOrderer);
        }
        if matches!(self.stance, Stance::Following { .. }) && self.watch.deadline(self.lease()) <= now {
            self.look_for_withholding(now);
        }
        if self.stance_deadline().is_some_and(|deadline| deadline <= now) {
            self.stance_due(now);
        }
    }

    /// Makes room at once: others hear of it before this peer stops.
    pub fn handle_shutdown(&mut self, now: Time) {
        if matches!(self.stance, Stance::Leading { .. }) {
            self.resign(now, self.successor(now), true);
        }
        self.stance = Stance::Static;
    }

    /// When [`Election::handle_timeout`] is due next.
    pub fn next_deadline(&self) -> Option<Time> {
        let watch =
            matches!(self.stance, Stance::Following { .. }).then(|| self.watch.deadline(self.lease()));
        let errand = match self.errand {
            Some(Errand::Due(at)) => Some(at),
            _ => None,
        };
        earliest(self.stance_deadline(), earliest(watch, errand))
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
        self.account().map(|account| account.term)
    }

    /// Who leads, and why.
    pub fn account(&self) -> Option<Account> {
        match self.stance {
            Stance::Leading { account, .. } => {
                Some(Account { height: self.height, orderer_round_trip: self.contact.round_trip, ..account })
            }
            Stance::Following { account, .. } => Some(account),
            Stance::Static if self.config.org_leader => Some(Account {
                term: Term { counter: 0, leader: self.own },
                since: self.joined,
                reason: Some(Reason::Static),
                height: self.height,
                orderer_round_trip: self.contact.round_trip,
                hearsay: false,
            }),
            _ => None,
        }
    }

    /// Whether this peer pulls from the orderer.
    pub fn is_leader(&self) -> bool {
        self.leader().is_some_and(|term| term.leader == self.own)
    }

    fn lease(&self) -> Duration {
        self.config.leader_alive_threshold
    }

    fn note_contact(&mut self, now: Time, reached: Option<Option<Duration>>) {
        let state = if reached.is_some() { OrdererContact::Reached } else { OrdererContact::Failed };
        let round_trip = reached.flatten().or_else(|| self.contact.round_trip.filter(|_| reached.is_some()));
        self.contact = OwnContact { state, at: now, round_trip };
    }

    /// Own contact as told to others. A leader's stream stands until it is reported broken; other claims
    /// grow old.
    fn own_contact(&self, now: Time) -> OrdererContact {
        let stands = matches!(self.stance, Stance::Leading { .. });
        let fresh = now.since(self.contact.at) < self.lease();
        if stands || fresh { self.contact.state } else { OrdererContact::Unknown }
    }

    fn own_standing(&self, now: Time) -> Standing {
        Standing {
            contact: self.own_contact(now).into(),
            height: self.height,
            tenure: tenure_class(now.since(self.joined)),
            id: Reverse(self.own),
        }
    }

    fn standing(&self, now: Time, peer: PkiId, member: &Member) -> Standing {
        let fresh = now.since(member.contact_at) < self.lease();
        let contact = if fresh { member.contact } else { OrdererContact::Unknown };
        Standing { contact: contact.into(), height: member.height, tenure: member.tenure, id: Reverse(peer) }
    }

    /// Whether another candidate should lead rather than this peer.
    fn is_better(&self, now: Time, other: PkiId) -> bool {
        let member = self.members.get(&other);
        member.is_some_and(|member| self.standing(now, other, member) > self.own_standing(now))
    }

    fn may_lead(&self, peer: &PkiId) -> bool {
        !self.passed_over.contains(peer) && !self.deposed.contains_key(peer)
    }

    /// How long this peer lets those who should go first.
    fn turn(&self, now: Time) -> Duration {
        let own = self.own_standing(now);
        let before = self
            .members
            .iter()
            .filter(|(peer, member)| self.may_lead(peer) && self.standing(now, **peer, member) > own)
            .count();
        let slots = u32::try_from(before).unwrap_or(SLOTS_MAX).min(SLOTS_MAX);
        self.config.leader_election_duration / SLOTS_PER_ELECTION * slots
    }

    /// The best of the others, to hand over to.
    fn successor(&self, now: Time) -> Option<PkiId> {
        let able = self.members.iter().filter(|(peer, _)| self.may_lead(peer));
        able.max_by_key(|(peer, member)| self.standing(now, **peer, member)).map(|(peer, _)| *peer)
    }
}
