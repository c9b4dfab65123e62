//! The node: membership and, for each joined channel, election, dissemination, reconciliation and the chain, composed.
//!
//! # Contract
//! The driver calls [`Node::handle`] with what happened and the present time, then [`Node::poll_output`] until it is
//! `None`, and calls [`Node::handle_timeout`] no later than [`Node::next_deadline`]. Time never runs backwards. The node
//! reads no clock, opens no socket, writes no disk and draws all randomness from the seed it was given: the same
//! inputs at the same times give the same outputs, which is what the simulator lives from.
//!
//! # The way of a block
//! A bulk message (or a block from the orderer) becomes [`Output::Verify`]; the driver's worker pool answers with
//! [`Input::Verified`]. An authentic block is offered to the chain; if it is new and came by push or from the
//! orderer dissemination decides who gets it next; in order and linked it becomes [`Output::Commit`], and the ledger answers with
//! [`Input::Committed`]. Unverified bytes touch no state but the list of what is being verified.
//!
//! # Equivocation
//! Two authentic blocks of different header hash at one number mean that orderers signed two histories. The first stays, the
//! other is kept as evidence and an alarm raised; only blocks that link to the own tip are followed. If the next authentic block links
//! elsewhere the channel stops, since the orderers go on without us; with `halt_on_equivocation` it stops at once. This holds for every
//! height: a block at a number that is held already is verified unless its sender names our hash, under the config that was in force at that
//! height; whether it is the very block that was committed long ago says the ledger ([`Rejection::Known`] before verification,
//! [`Output::Compare`] after it).
//!
//! # Isolation
//! Every frame of a channel is encoded through a [`crate::isolation::ChannelLink`]; there is no other way. Frames that
//! arrive are matched against the sender's links first. Push, digests and election go to own-organisation members
//! only; heights and requests to all members. Peers of an organisation that was removed are guests: see `guests`.
//!
//! # Bounds
//! Blocks being verified: [`VERIFYING_PER_PEER_MAX`] a peer that were not asked of it, and [`VERIFYING_BYTES_MAX`] together (a block over it is dropped
//! and counted; it comes again by reconciliation); what was asked for is bounded by the asking; orderer blocks are bounded by the driver, which takes the next only when
//! one is settled. Blocks are asked for while all channels together have less than [`ASKED_BYTES_MAX`] on the way. Headers being read: [`HEADER_READS_PER_PEER_MAX`] requests a peer; one more is dropped and counted.
//! Authentic blocks being compared with the ledger: [`COMPARING_MAX`]; one more is dropped and counted. A request is answered up to [`REPLY_BYTES_MAX`] and [`REPLY_BLOCKS_MAX`], the
//! rest is refused.

mod anchors;
#[cfg(test)]
mod bad_sources_tests;
mod catch_up;
#[cfg(test)]
mod catch_up_tests;
mod certificates;
#[cfg(test)]
mod certificates_tests;
mod channel;
mod equivocation;
mod events;
mod guests;
mod heights;
mod introduction;
#[cfg(test)]
mod introduction_tests;
mod io;
#[cfg(test)]
mod leadership_tests;
mod peers;
mod restore;
#[cfg(test)]
mod tests;

use std::collections::{BTreeMap, VecDeque};
use std::time::Duration;

use grapevine_crypto::{Digest, PkiId};
use rand::rngs::ChaCha8Rng;
use rand::{Rng, SeedableRng};

use crate::ChannelId;
use crate::authority::{Authority, Credential};
use crate::certificates::CertificateClock;
use crate::dissemination::{BlockSource, DisseminationConfig, DisseminationCounters, DisseminationMode};
use crate::election::{Account, ElectionConfig, Term};
use crate::isolation::Scope;
use crate::membership::{Membership, MembershipConfig};
use crate::reconciliation::ReconciliationConfig;
use crate::round_trip::{Ping, RoundTrips};
use crate::time::{Time, earliest};
use crate::wire::{FrameBody, Nonce};
pub use anchors::{ANCHOR_SILENCE_MAX, AnchorTrouble, Anchors};
use catch_up::VerifyingHeaders;
pub use catch_up::{ASKED_BYTES_MAX, HEADER_READS_PER_PEER_MAX};
use certificates::Certificates;
pub use certificates::{REMOVAL_GRACE, renewal_message};
use channel::Channel;
pub use equivocation::COMPARING_MAX;
pub use events::{Event, Penalty};
pub use guests::{GUEST_IDLE, GUESTS_MAX};
use introduction::Introduction;
pub use introduction::{INTRODUCTION_TIMEOUT, INTRODUCTIONS_MAX};
pub use io::{ChannelSetup, Claim, Input, OrdererAnswer, Output, Rejection, Ticket};
use peers::Peer;

/// Most blocks being verified at a time that one peer sent without being asked.
pub const VERIFYING_PER_PEER_MAX: usize = 64;
/// Bytes being verified, of all peers together, after which further blocks of peers are dropped.
pub const VERIFYING_BYTES_MAX: usize = 64 << 20;
/// Most bytes sent from memory for one request.
pub const REPLY_BYTES_MAX: usize = 16 << 20;
/// Most blocks sent for one request.
pub const REPLY_BLOCKS_MAX: usize = 64;
/// How long the orderer's stream rests, at least, after a block of it had to be dropped.
pub const ORDERER_REST: Duration = Duration::from_millis(200);

/// How a node behaves.
#[derive(Debug, Clone)]
pub struct NodeConfig {
    /// Membership.
    pub membership: MembershipConfig,
    /// Election of every channel.
    pub election: ElectionConfig,
    /// Dissemination of every channel, but for its mode where `dissemination_modes` names another.
    pub dissemination: DisseminationConfig,
    /// Channels with a mode of their own.
    pub dissemination_modes: BTreeMap<ChannelId, DisseminationMode>,
    /// Requests of every channel.
    pub reconciliation: ReconciliationConfig,
    /// Blocks above the committed height that are kept (`state.blockBufferSize`).
    pub block_buffer_size: u64,
    /// Committed blocks kept in memory for others (`maxBlockCountToStore`).
    pub max_block_count_to_store: usize,
    /// Stop a channel as soon as its orderers have signed two blocks at one number (`onEquivocation: halt`), not only
    /// when they follow the other one.
    pub halt_on_equivocation: bool,
    /// A changed height is told at most this often (`publishStateInfoInterval`); see `heights.rs`.
    pub publish_state_info_interval: Duration,
}

/// Counts of what the node dropped or saw; membership, chain and reconciliation keep their own.
#[derive(Debug, Default, Clone, PartialEq, Eq)]
pub struct NodeCounters {
    /// Undecodable frames and headers.
    pub malformed: u64,
    /// Frames and blocks of channels without a link to the sender.
    pub unlinked_frames: u64,
    /// Blocks received that were known or being verified.
    pub duplicate_blocks: u64,
    /// Blocks dropped because too many of the peer's, or too many bytes, were being verified.
    pub verifying_over_bound: u64,
    /// Authentic blocks of committed numbers that were dropped because too many were being compared with the ledger.
    pub comparing_over_bound: u64,
    /// Guests that were sent away because there were too many.
    pub guests_over_bound: u64,
    /// Blocks that did not verify.
    pub blocks_rejected: u64,
    /// Requests for headers dropped because the peer had others open.
    pub headers_over_bound: u64,
    /// Proofs of new certificates that nobody here vouches for.
    pub renewals_refused: u64,
    /// Blocks pushed to others.
    pub blocks_pushed: u64,
    /// Blocks sent on request.
    pub blocks_served: u64,
}

#[derive(Debug)]
struct Verifying {
    channel: ChannelId,
    claim: Option<Claim>,
    source: BlockSource,
    /// It was asked for.
    asked: bool,
    since: Time,
    size: usize,
}

/// The node. See the module's header.
#[derive(Debug)]
pub struct Node {
    config: NodeConfig,
    own: Credential,
    certificates: Certificates,
    authority: Box<dyn Authority>,
    membership: Membership,
    round_trips: RoundTrips,
    channels: BTreeMap<ChannelId, Channel>,
    scopes: BTreeMap<ChannelId, Scope>,
    introductions: BTreeMap<ChannelId, Introduction>,
    peers: BTreeMap<PkiId, Peer>,
    /// How many of them are guests.
    guests: usize,
    verifying: BTreeMap<Ticket, Verifying>,
    verifying_bytes: usize,
    verifying_by_peer: BTreeMap<PkiId, usize>,
    verifying_headers: BTreeMap<Ticket, VerifyingHeaders>,
    reading_headers: BTreeMap<PkiId, usize>,
    comparing: usize,
    next_ticket: u64,
    rng: ChaCha8Rng,
    outputs: VecDeque<Output>,
    counters: NodeCounters,
}

/// What a node is when it starts.
#[derive(Debug)]
pub struct Start {
    /// Its own credential.
    pub own: Credential,
    /// Its libp2p PeerId.
    pub peer_id: Vec<u8>,
    /// Higher than in any former start.
    pub incarnation: u64,
    /// What the wall clock shows, Unix milliseconds.
    pub wall_ms: i64,
    /// Seed of all its randomness.
    pub seed: u64,
}

impl Node {
    /// A node that has joined nothing and knows nobody.
    pub fn new(config: NodeConfig, start: Start, authority: Box<dyn Authority>, now: Time) -> Self {
        let mut rng = ChaCha8Rng::seed_from_u64(start.seed);
        let membership = Membership::new(
            config.membership.clone(),
            start.own.clone(),
            start.peer_id,
            start.incarnation,
            CertificateClock::new(now, start.wall_ms),
            now,
            fork(&mut rng),
        );
        let round_trips = RoundTrips::new(fork(&mut rng));
        Self {
            config,
            certificates: Certificates::new(&start.own),
            own: start.own,
            authority,
            membership,
            round_trips,
            channels: BTreeMap::new(),
            scopes: BTreeMap::new(),
            introductions: BTreeMap::new(),
            peers: BTreeMap::new(),
            guests: 0,
            verifying: BTreeMap::new(),
            verifying_bytes: 0,
            verifying_by_peer: BTreeMap::new(),
            verifying_headers: BTreeMap::new(),
            reading_headers: BTreeMap::new(),
            comparing: 0,
            next_ticket: 0,
            rng,
            outputs: VecDeque::new(),
            counters: NodeCounters::default(),
        }
    }

    /// Takes one input.
    pub fn handle(&mut self, now: Time, input: Input) {
        match input {
            Input::Connected { credential, session, endpoint } => {
                self.handle_connected(now, credential, session, endpoint.as_deref());
            }
            Input::Wall { unix_ms } => self.handle_wall(now, unix_ms),
            Input::Renewed(own) => self.handle_renewed(now, own),
            Input::TrustChanged => self.trust_changed(now),
            Input::Disconnected { peer } => self.handle_disconnected(now, peer),
            Input::DialFailed { endpoint, reason } => {
                self.membership.handle_dial_failed(now, &endpoint);
                self.handle_introducer(now, &endpoint, Some(reason));
            }
            Input::AlreadyConnected { endpoint } => {
                self.membership.handle_dial_failed(now, &endpoint);
                self.handle_introducer(now, &endpoint, None);
            }
            Input::Introduce { channel, genesis_hash, endpoint } => {
                self.handle_introduce(now, channel, genesis_hash, endpoint);
            }
            Input::Control { peer, frame } => self.handle_control(now, peer, frame),
            Input::Bulk { peer, header, body } => self.handle_bulk(now, peer, header, body),
            Input::BulkStarted { peer, header } | Input::BulkProgress { peer, header } => {
                self.handle_bulk_started(now, peer, header);
            }
            Input::RoundTrip { peer, round_trip } => {
                self.round_trips.handle_measured(now, peer, round_trip);
                self.tell_round_trip(peer);
            }
            Input::OrdererBlock { channel, body } => self.verify_orderer_block(now, channel, body),
            Input::OrdererContact { channel, in_contact, round_trip } => {
                if let Some(channel) = self.channels.get_mut(&channel) {
                    channel.orderer_contact = in_contact;
                    channel.election.handle_orderer_contact(now, in_contact.then_some(round_trip));
                }
            }
            Input::OrdererProbe { channel, found } => self.handle_probe(now, &channel, found),
            Input::Verified { ticket, result } => self.handle_verified(now, ticket, result),
            Input::Compared { channel, block, kept } => self.handle_compared(&channel, block, kept),
            Input::LookedUp { channel, number, peer, hash } => {
                self.handle_looked_up(now, &channel, number, peer, hash);
            }
            Input::Committed { channel, height, tip } => self.handle_committed(now, &channel, height, tip),
            Input::Lost { channel, numbers } => self.handle_lost(now, &channel, &numbers),
            Input::Restored { channel, number, peer, result } => {
                self.handle_restored(now, &channel, number, peer, result);
            }
            Input::NotSent { peer, channel, number } => self.handle_not_sent(peer, &channel, number),
            Input::HeadersRead { peer, channel, headers } => {
                self.handle_headers_read(peer, &channel, headers)
            }
            Input::HeadersVerified { ticket, result } => self.handle_headers_verified(now, ticket, result),
            Input::Join(setup) => self.handle_join(now, setup),
            Input::Leave(channel) => self.handle_leave(now, &channel),
            Input::Reconfigured { channel, scope, anchors } => {
                self.handle_reconfigured(now, channel, scope, anchors);
            }
            Input::Shutdown => {
                for channel in self.channels.values_mut() {
                    channel.election.handle_shutdown(now);
                }
            }
        }
        self.settle(now);
    }

    /// Collects what the machines want done.
    fn settle(&mut self, now: Time) {
        // First, since a member's death makes elections speak.
        self.drain_membership(now);
        if self.channels.values().any(|channel| channel.election.is_settling()) {
            let seeking = self.membership.is_seeking();
            self.channels.values_mut().for_each(|channel| channel.election.handle_seeking(now, seeking));
        }
        let ids = self.channels.iter().filter(|(_, channel)| channel.election.has_output());
        let ids: Vec<ChannelId> = ids.map(|(id, _)| id.clone()).collect();
        for id in ids {
            self.drain_election(&id);
        }
        while let Some(Ping { peer, nonce }) = self.round_trips.poll_ping() {
            self.send_frame(peer, FrameBody::Ping(Nonce { value: nonce }));
        }
    }

    /// Does what is due.
    pub fn handle_timeout(&mut self, now: Time) {
        if self.membership.next_deadline().is_some_and(|deadline| deadline <= now) {
            self.membership.handle_timeout(now, self.authority.as_ref());
        }
        self.round_trips.handle_timeout(now);
        self.dismiss_idle_guests(now);
        self.certificates_timeout(now);
        self.introductions_timeout(now);
        let ids: Vec<ChannelId> = self
            .channels
            .iter()
            .filter(|(_, channel)| channel.next_deadline().is_some_and(|deadline| deadline <= now))
            .map(|(id, _)| id.clone())
            .collect();
        for id in ids {
            self.channel_timeout(now, &id);
        }
        self.settle(now);
    }

    /// When [`Node::handle_timeout`] is due next.
    pub fn next_deadline(&self) -> Option<Time> {
        let channels = self.channels.values().filter_map(Channel::next_deadline).min();
        let others = earliest(self.membership.next_deadline(), self.round_trips.next_deadline());
        let others = earliest(others, earliest(self.certificates_deadline(), self.introductions_deadline()));
        earliest(earliest(others, self.guests_deadline()), channels)
    }

    /// The next thing to do.
    pub fn poll_output(&mut self) -> Option<Output> {
        self.outputs.pop_front()
    }

    /// Membership, for status.
    pub fn membership(&self) -> &Membership {
        &self.membership
    }

    /// The joined channels.
    pub fn channels(&self) -> impl Iterator<Item = &ChannelId> {
        self.channels.keys()
    }

    /// The leader this node follows, or is, in a channel.
    pub fn leader(&self, channel: &ChannelId) -> Option<Term> {
        self.channels.get(channel)?.election.leader()
    }

    /// The leader of a channel, and why it leads.
    pub fn leader_account(&self, channel: &ChannelId) -> Option<Account> {
        self.channels.get(channel)?.election.account()
    }

    /// Whether this node pulls the channel from the orderer.
    pub fn is_leader(&self, channel: &ChannelId) -> bool {
        self.channels.get(channel).is_some_and(|channel| channel.election.is_leader())
    }

    /// Blocks committed and the header hash of the highest.
    pub fn height(&self, channel: &ChannelId) -> Option<(u64, Digest)> {
        self.channels.get(channel).map(|channel| (channel.chain.height(), channel.tip))
    }

    /// The greatest height a connected member of the channel claims, and who claims it.
    pub fn height_claimed(&self, channel: &ChannelId) -> Option<(u64, PkiId)> {
        self.channels.get(channel)?.reconciliation.height_claimed()
    }

    /// Connected members of a channel; guests are none.
    pub fn channel_members(&self, channel: &ChannelId) -> Vec<PkiId> {
        self.peers
            .iter()
            .filter(|(_, peer)| peer.links.link(channel).is_some_and(|link| !link.is_limited()))
            .map(|(pki_id, _)| *pki_id)
            .collect()
    }

    /// Blocks of a channel kept in memory, in bytes.
    pub fn bytes_held(&self) -> usize {
        self.channels.values().map(|channel| channel.chain.bytes_held()).sum()
    }

    /// The smoothed round trip to a connected peer, once one is known.
    pub fn round_trip(&self, peer: &PkiId) -> Option<Duration> {
        self.round_trips.round_trip(peer)
    }

    /// Counts of the dissemination of one channel.
    pub fn dissemination_counters(&self, channel: &ChannelId) -> Option<&DisseminationCounters> {
        Some(self.channels.get(channel)?.dissemination.counters())
    }

    /// Counts of what was dropped or seen.
    pub fn counters(&self) -> &NodeCounters {
        &self.counters
    }

    /// Blocks of a channel that its ledger has lost and that are being fetched, and how many have been restored.
    pub fn restoration(&self, channel: &ChannelId) -> Option<(usize, u64)> {
        let machine = &self.channels.get(channel)?.restoration;
        Some((machine.waiting(), machine.restored()))
    }

    /// Counts of one channel: what its chain dropped, and its requests.
    pub fn channel_counters(
        &self,
        channel: &ChannelId,
    ) -> Option<(&crate::chain::ChainCounters, &crate::reconciliation::ReconciliationCounters)> {
        let channel = self.channels.get(channel)?;
        Some((channel.chain.counters(), channel.reconciliation.counters()))
    }

    fn event(&mut self, event: Event) {
        self.outputs.push_back(Output::Event(event));
    }

    fn penalise(&mut self, peer: PkiId, why: Penalty) {
        self.outputs.push_back(Output::Penalise { peer, why });
    }
}

fn fork(rng: &mut ChaCha8Rng) -> ChaCha8Rng {
    ChaCha8Rng::seed_from_u64(rng.next_u64())
}
