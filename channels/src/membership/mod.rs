//! Membership: who is in the network, where they can be reached, and who is alive.
//!
//! # Promise
//! * Every peer of the own organisation, and every peer of an organisation that shares a channel and has an external
//!   endpoint, becomes known; while its records arrive it is *alive*, after `alive_expiration` without a newer one
//!   *dead*, and with the next newer one alive again. Dead members are dialled on; after
//!   `alive_expiration` × [`PURGE_FACTOR`] they are forgotten, save those at bootstrap and anchor endpoints.
//! * Nothing changes for a record that is forged, replayed, stale or of an organisation that shares no channel.
//!
//! # Messages
//! A [`SignedAlive`] is signed by its subject over [`ALIVE_TAG`] ‖ payload; the payload names the network, the
//! SHA-256 of the subject's identity, its libp2p PeerId and external endpoint, and an incarnation and sequence. Records
//! of a member order by (certificate NotBefore, serial, incarnation, sequence): a renewed certificate keeps the member
//! (the PKI-ID does not depend on it) and outdates everything signed with the older one. Each `alive_interval` a
//! node signs a record and sends it to `fanout` random connected peers; whoever stores it as new passes it on once.
//! On connecting, both sides send what the other may know, its own newest record included. Heartbeats leave out the identity; who lacks it asks
//! the sender.
//!
//! # Disclosure
//! Own-organisation peers get everything. A foreign peer gets records of its own organisation and of ours, only with an
//! external endpoint, and never an internal endpoint (Fabric's disclosure policy).
//!
//! # Bounds
//! At most [`MEMBERS_MAX`] members: a record of one more is dropped and counted. At most [`UNKNOWN_MAX`] identity
//! questions open, [`TOMBSTONES_MAX`] purged members remembered so that replays don't bring them back (oldest go).
//!
//! # Attacks
//! Replay: ordering and tombstones. Moving a valid internal endpoint to another record: its signature covers the
//! record. Another process with our identity: a record of our own that outbids ours makes us adopt its incarnation + 1,
//! at our next record, and raises [`MembershipOutput::Alarm`], except soon after a start, when it is a former self.

mod dialer;
mod record;
#[cfg(test)]
mod tests;

use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::time::Duration;

use bytes::Bytes;
use grapevine_crypto::{MspId, PkiId};
use rand::RngExt;
use rand::rngs::ChaCha8Rng;
use rand::seq::IteratorRandom;

use crate::authority::{Authority, Credential};
use crate::time::{Time, earliest};
use crate::wire::{Alive, RECORDS_PER_VIEW_MAX, SignedAlive};
use dialer::Dialer;
pub use record::{ALIVE_TAG, INTERNAL_TAG, Order, RecordError};
use record::{Checked, check, sign};

/// Most members known at a time, self not counted.
pub const MEMBERS_MAX: usize = 10_000;
/// Most identities asked for at a time.
pub const UNKNOWN_MAX: usize = 256;
/// Most purged members whose last record is remembered.
pub const TOMBSTONES_MAX: usize = 10_000;
/// A dead member is forgotten after this many expirations (Fabric: msgExpirationFactor 20).
pub const PURGE_FACTOR: u32 = 20;
/// Records of our own identity that outbid ours in the first so many expirations after a start are those of former selves
/// (after a lost disk there may be several, known to different peers); later they are those of a twin.
const FORMER_SELF_FACTOR: u32 = 2;
/// The alarm about a twin is raised at most once in this time.
const ALARM_INTERVAL: Duration = Duration::from_secs(60);
/// An identity is asked for at most once in this time.
const ASK_AGAIN: Duration = Duration::from_secs(1);

/// How membership behaves; the names in brackets are peer.yaml's.
#[derive(Debug, Clone)]
pub struct MembershipConfig {
    /// The network's name (`network.id`).
    pub network_id: String,
    /// Endpoint for the own organisation (`peer.gossip.endpoint`, else `peer.listenAddress`).
    pub internal_endpoint: String,
    /// Endpoint for other organisations (`peer.gossip.externalEndpoint`); empty: invisible to them.
    pub external_endpoint: String,
    /// Own-organisation endpoints dialled until connected (`peer.gossip.bootstrap`).
    pub bootstrap: Vec<String>,
    /// Time between own records (`aliveTimeInterval`).
    pub alive_interval: Duration,
    /// Silence after which a member counts as dead (`aliveExpirationTimeout`).
    pub alive_expiration: Duration,
    /// Time between dials of one endpoint (`reconnectInterval`).
    pub reconnect_interval: Duration,
    /// Peers a record is sent or passed on to (`propagatePeerNum`).
    pub fanout: usize,
    /// Connections after which foreign members are no longer dialled.
    pub connections_max: usize,
}

/// Whether a member is alive.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum MemberState {
    /// A record newer than any before came within the expiration.
    Alive,
    /// None did.
    Dead,
}

/// What is known of one other member.
#[derive(Debug, Clone)]
pub struct Member {
    /// Its identity.
    pub credential: Credential,
    /// Alive or dead.
    pub state: MemberState,
    /// Order of its newest record.
    pub order: Order,
    /// Its libp2p PeerId.
    pub peer_id: Vec<u8>,
    /// Endpoint for other organisations, empty if none.
    pub external_endpoint: String,
    /// Endpoint for its own organisation, if it was told to us.
    pub internal_endpoint: Option<String>,
    last_seen: Time,
    identity_digest: Vec<u8>,
    record: SignedAlive,
}

impl Member {
    /// The endpoint this node should dial, if it may know one.
    pub fn endpoint(&self) -> Option<&str> {
        let internal = self.internal_endpoint.as_deref().filter(|endpoint| !endpoint.is_empty());
        internal.or_else(|| Some(self.external_endpoint.as_str()).filter(|endpoint| !endpoint.is_empty()))
    }
}

/// What membership wants done.
#[derive(Debug, Clone, PartialEq)]
pub enum MembershipOutput {
    /// Send one record.
    SendAlive {
        /// To this connected peer.
        peer: PkiId,
        /// The record, fit for it.
        record: SignedAlive,
    },
    /// Send many records (at most [`RECORDS_PER_VIEW_MAX`]).
    SendView {
        /// To this connected peer.
        peer: PkiId,
        /// The records, fit for it.
        records: Vec<SignedAlive>,
    },
    /// Ask for identities.
    AskIdentities {
        /// This connected peer, who sent records of them.
        peer: PkiId,
        /// SHA-256 of the marshalled identities.
        digests: Vec<Vec<u8>>,
    },
    /// Connect to an endpoint.
    Dial {
        /// `host:port`.
        endpoint: String,
    },
    /// Remember the incarnation across restarts before the next record is sent.
    PersistIncarnation(u64),
    /// A member is alive for the first time or again.
    Alive(PkiId),
    /// A member is dead.
    Dead(PkiId),
    /// Something an operator must hear of, in plain words.
    Alarm(String),
}

/// What is remembered of a member that was forgotten.
#[derive(Debug)]
struct Tombstone {
    order: Order,
    record: SignedAlive,
    last_seen: Time,
}

/// Counts of what was dropped and why.
#[derive(Debug, Default, Clone, PartialEq, Eq)]
pub struct MembershipCounters {
    /// Records with a bad signature, of another network, of an unknown organisation, or malformed.
    pub records_rejected: u64,
    /// Records not newer than what was known.
    pub records_stale: u64,
    /// Records of new members beyond [`MEMBERS_MAX`].
    pub members_over_bound: u64,
    /// Identity questions not asked because [`UNKNOWN_MAX`] were open.
    pub unknown_over_bound: u64,
}

/// The membership machine. See the module's header.
///
/// `handle_*` methods take what happened, [`Membership::poll_output`] gives what to do until it is `None`,
/// [`Membership::next_deadline`] says when [`Membership::handle_timeout`] is due.
#[derive(Debug)]
pub struct Membership {
    config: MembershipConfig,
    own: Credential,
    own_peer_id: Vec<u8>,
    incarnation: u64,
    sequence: u64,
    started: Time,
    /// A former self was outbid since the start.
    adopted: bool,
    alarmed_at: Option<Time>,
    wall_start: i64,
    members: BTreeMap<PkiId, Member>,
    by_identity: BTreeMap<Vec<u8>, PkiId>,
    tombstones: BTreeMap<PkiId, Tombstone>,
    unknown: BTreeMap<Vec<u8>, Time>,
    connected: BTreeMap<PkiId, MspId>,
    dialer: Dialer,
    next_alive: Time,
    rng: ChaCha8Rng,
    outputs: VecDeque<MembershipOutput>,
    counters: MembershipCounters,
}

impl Membership {
    /// A node that starts at `now`, with nobody known. `incarnation` is higher than in any former start;
    /// `wall_start` is the Unix time in seconds at `Time::ZERO`.
    pub fn new(
        config: MembershipConfig,
        own: Credential,
        own_peer_id: Vec<u8>,
        incarnation: u64,
        wall_start: i64,
        now: Time,
        rng: ChaCha8Rng,
    ) -> Self {
        let own_endpoints = [config.internal_endpoint.clone(), config.external_endpoint.clone()];
        let mut dialer = Dialer::new(config.reconnect_interval, own_endpoints.into_iter().collect());
        dialer.set_permanent("bootstrap", config.bootstrap.iter().cloned().collect(), now);
        Self {
            own,
            own_peer_id,
            incarnation,
            sequence: 0,
            started: now,
            adopted: false,
            alarmed_at: None,
            wall_start,
            members: BTreeMap::new(),
            by_identity: BTreeMap::new(),
            tombstones: BTreeMap::new(),
            unknown: BTreeMap::new(),
            connected: BTreeMap::new(),
            dialer,
            next_alive: now,
            rng,
            outputs: VecDeque::new(),
            counters: MembershipCounters::default(),
            config,
        }
    }

    /// An admitted peer is connected: it is sent everything it may know, our own record first.
    /// `endpoint` is what was dialled, if this side did.
    pub fn handle_connected(
        &mut self,
        now: Time,
        peer: PkiId,
        organization: MspId,
        endpoint: Option<&str>,
        authority: &dyn Authority,
    ) {
        if let Some(endpoint) = endpoint {
            self.dialer.reached(endpoint, peer);
        }
        self.connected.insert(peer, organization.clone());
        let own = self.own_record(authority, true);
        let mut records = Vec::new();
        records.extend(self.disclose(&own, &self.own.msp_id, &organization));
        // The peer's own newest record, too: if its disk is lost and its counter of starts began anew, it learns here
        // what it has to outbid, or it would be refused as stale for ever.
        let told = |member: &&Member| member.state == MemberState::Alive || member.credential.pki_id == peer;
        for member in self.members.values().filter(told) {
            let full = with_identity(&member.record, &member.credential.serialized);
            records.extend(self.disclose(&full, &member.credential.msp_id, &organization));
        }
        if let Some(tombstone) = self.tombstones.get(&peer) {
            records.extend(self.disclose(&tombstone.record, &organization, &organization));
        }
        for chunk in records.chunks(RECORDS_PER_VIEW_MAX) {
            self.outputs.push_back(MembershipOutput::SendView { peer, records: chunk.to_vec() });
        }
        self.settle_dials(now, &peer);
    }

    /// A connection ended. The member stays alive until its records stop.
    pub fn handle_disconnected(&mut self, now: Time, peer: PkiId) {
        self.connected.remove(&peer);
        self.dialer.lost(peer, now);
        self.settle_dials(now, &peer);
    }

    /// A dial failed.
    pub fn handle_dial_failed(&mut self, now: Time, endpoint: &str) {
        self.dialer.failed(endpoint, now);
    }

    /// Anchor peers of the joined channels other than this node; replaces the former list.
    pub fn set_anchors(&mut self, now: Time, endpoints: BTreeSet<String>) {
        self.dialer.set_permanent("anchor", endpoints, now);
    }

    /// Records arrived from a connected peer, one relayed or many in a view.
    pub fn handle_records(
        &mut self,
        now: Time,
        from: PkiId,
        records: Vec<SignedAlive>,
        authority: &dyn Authority,
    ) {
        let mut unknown = Vec::new();
        for record in records {
            match self.handle_record(now, from, &record, authority) {
                Ok(()) => {}
                Err(RecordError::UnknownIdentity(digest)) => unknown.push(digest),
                Err(RecordError::Stale) => self.counters.records_stale += 1,
                Err(_) => self.counters.records_rejected += 1,
            }
        }
        let digests: Vec<_> = unknown
            .into_iter()
            .filter(|digest| self.may_ask(now, digest))
            .take(RECORDS_PER_VIEW_MAX)
            .collect();
        if !digests.is_empty() {
            self.outputs.push_back(MembershipOutput::AskIdentities { peer: from, digests });
        }
    }

    /// A connected peer asks who is behind records we sent.
    pub fn handle_identity_request(&mut self, from: PkiId, digests: &[Vec<u8>], authority: &dyn Authority) {
        let Some(organization) = self.connected.get(&from).cloned() else { return };
        let asked: BTreeSet<&[u8]> = digests.iter().map(Vec::as_slice).collect();
        let mut records = Vec::new();
        if asked.contains(record::identity_digest(&self.own.serialized).as_slice()) {
            let own = self.own_record(authority, true);
            records.extend(self.disclose(&own, &self.own.msp_id, &organization));
        }
        for member in self.members.values() {
            if asked.contains(member.identity_digest.as_slice()) {
                let full = with_identity(&member.record, &member.credential.serialized);
                records.extend(self.disclose(&full, &member.credential.msp_id, &organization));
            }
        }
        records.truncate(RECORDS_PER_VIEW_MAX);
        if !records.is_empty() {
            self.outputs.push_back(MembershipOutput::SendView { peer: from, records });
        }
    }

    /// Organisations or their certificate authorities changed: members nobody vouches for any more are forgotten.
    pub fn handle_trust_changed(&mut self, now: Time, authority: &dyn Authority) {
        let unix_seconds = self.unix_seconds(now);
        let gone: Vec<PkiId> = self
            .members
            .iter()
            .filter(|(_, member)| authority.identify(&member.credential.serialized, unix_seconds).is_err())
            .map(|(pki_id, _)| *pki_id)
            .collect();
        for pki_id in gone {
            self.forget(pki_id);
            self.outputs.push_back(MembershipOutput::Dead(pki_id));
        }
    }

    /// Signs and spreads the own record when due, declares the silent dead, dials who should be dialled.
    pub fn handle_timeout(&mut self, now: Time, authority: &dyn Authority) {
        if now >= self.next_alive {
            self.next_alive = now + self.jittered(self.config.alive_interval);
            if !self.connected.is_empty() {
                // Fabric FAB-18208: a lone peer signs nothing.
                let record = self.own_record(authority, false);
                let own = self.own.clone();
                self.spread(&record, &own, None);
            }
        }
        self.expire(now);
        for endpoint in self.dialer.due(now) {
            self.outputs.push_back(MembershipOutput::Dial { endpoint });
        }
    }

    /// When [`Membership::handle_timeout`] is due next.
    pub fn next_deadline(&self) -> Option<Time> {
        let expiry = self
            .members
            .values()
            .filter(|member| member.state == MemberState::Alive)
            .map(|member| member.last_seen + self.config.alive_expiration)
            .min();
        earliest(Some(self.next_alive), earliest(expiry, self.dialer.next_deadline()))
    }

    /// The next thing to do.
    pub fn poll_output(&mut self) -> Option<MembershipOutput> {
        self.outputs.pop_front()
    }

    /// Everybody known but this node.
    pub fn members(&self) -> &BTreeMap<PkiId, Member> {
        &self.members
    }

    /// One member.
    pub fn member(&self, pki_id: &PkiId) -> Option<&Member> {
        self.members.get(pki_id)
    }

    /// Whether the peer is connected.
    pub fn is_connected(&self, pki_id: &PkiId) -> bool {
        self.connected.contains_key(pki_id)
    }

    /// Counts of what was dropped.
    pub fn counters(&self) -> &MembershipCounters {
        &self.counters
    }

    /// Certificate time: the wall clock at the start plus monotonic time since, so that a step of the wall clock
    /// changes nothing.
    pub fn unix_seconds(&self, now: Time) -> i64 {
        self.wall_start.saturating_add(i64::try_from(now.as_secs()).unwrap_or(i64::MAX))
    }

    fn handle_record(
        &mut self,
        now: Time,
        from: PkiId,
        record: &SignedAlive,
        authority: &dyn Authority,
    ) -> Result<(), RecordError> {
        let alive = record::decode(record, &self.config.network_id)?;
        let credential = self.credential_of(now, record, &alive, authority)?;
        if credential.pki_id == self.own.pki_id {
            return self.handle_own(now, &alive, &credential, record, authority);
        }
        let order = Order::new(&credential, &alive);
        let known = self.members.get(&credential.pki_id);
        let newest = known
            .map(|member| &member.order)
            .or_else(|| self.tombstones.get(&credential.pki_id).map(|tombstone| &tombstone.order));
        if newest.is_some_and(|newest| order <= *newest) {
            return Err(RecordError::Stale);
        }
        let Checked { internal_endpoint } = check(record, &credential, authority)?;
        if known.is_none() && self.members.len() >= MEMBERS_MAX {
            self.counters.members_over_bound += 1;
            return Ok(());
        }
        // An own-organisation record may reach us with its internal endpoint cut off by a foreign relay.
        let internal_endpoint =
            internal_endpoint.or_else(|| known.and_then(|member| member.internal_endpoint.clone()));
        let revived = known.is_none_or(|member| member.state == MemberState::Dead);
        let introduced = known.is_none_or(|member| {
            member.credential != credential || member.external_endpoint != alive.external_endpoint
        });
        let member = Member {
            state: MemberState::Alive,
            order,
            peer_id: alive.peer_id,
            external_endpoint: alive.external_endpoint,
            internal_endpoint,
            last_seen: now,
            identity_digest: alive.identity_digest.clone(),
            record: SignedAlive { identity: Bytes::new(), ..record.clone() },
            credential: credential.clone(),
        };
        self.unknown.remove(&alive.identity_digest);
        self.tombstones.remove(&credential.pki_id);
        self.by_identity.insert(alive.identity_digest, credential.pki_id);
        if let Some(former) = self.members.insert(credential.pki_id, member)
            && former.credential != credential
        {
            self.by_identity.remove(&former.identity_digest);
        }
        if revived {
            self.outputs.push_back(MembershipOutput::Alive(credential.pki_id));
            self.dialer.forgive(&credential.pki_id);
        }
        let onward = if introduced {
            with_identity(record, &credential.serialized)
        } else {
            SignedAlive { identity: Bytes::new(), ..record.clone() }
        };
        self.spread(&onward, &credential, Some(from));
        self.settle_dials(now, &credential.pki_id);
        Ok(())
    }

    /// A record of our own identity: our former self, an echo, or somebody else with our key.
    fn handle_own(
        &mut self,
        now: Time,
        alive: &Alive,
        credential: &Credential,
        record: &SignedAlive,
        authority: &dyn Authority,
    ) -> Result<(), RecordError> {
        let ours = (self.incarnation, self.sequence);
        if (alive.incarnation, alive.sequence) <= ours && alive.peer_id == self.own_peer_id {
            return Err(RecordError::Stale);
        }
        if alive.incarnation < self.incarnation {
            return Err(RecordError::Stale);
        }
        check(record, credential, authority)?;
        // Outbid in any case: who knows the other record refuses ours as stale for ever.
        self.incarnation = alive.incarnation.saturating_add(1);
        self.sequence = 0;
        self.outputs.push_back(MembershipOutput::PersistIncarnation(self.incarnation));
        if now.since(self.started) < self.config.alive_expiration * FORMER_SELF_FACTOR {
            if !self.adopted {
                self.adopted = true;
                self.next_alive = Time::ZERO;
            }
            return Ok(());
        }
        if self.alarmed_at.is_none_or(|at| now.since(at) >= ALARM_INTERVAL) {
            self.alarmed_at = Some(now);
            self.outputs.push_back(MembershipOutput::Alarm(format!(
                "another process uses this peer's identity {} (it advertises {:?}): stop one of the two",
                self.own.name, alive.external_endpoint
            )));
        }
        Ok(())
    }

    fn credential_of(
        &self,
        now: Time,
        record: &SignedAlive,
        alive: &Alive,
        authority: &dyn Authority,
    ) -> Result<Credential, RecordError> {
        if !record.identity.is_empty() {
            if record::identity_digest(&record.identity).as_slice() != alive.identity_digest {
                return Err(RecordError::Malformed("identity does not fit its digest"));
            }
            return authority
                .identify(&record.identity, self.unix_seconds(now))
                .map_err(RecordError::Untrusted);
        }
        let known = self.by_identity.get(&alive.identity_digest);
        match known.and_then(|pki_id| self.members.get(pki_id)) {
            Some(member) => Ok(member.credential.clone()),
            None if record::identity_digest(&self.own.serialized).as_slice() == alive.identity_digest => {
                Ok(self.own.clone())
            }
            None => Err(RecordError::UnknownIdentity(alive.identity_digest.clone())),
        }
    }

    fn may_ask(&mut self, now: Time, digest: &[u8]) -> bool {
        self.unknown.retain(|_, asked| now.since(*asked) < ASK_AGAIN);
        if self.unknown.contains_key(digest) {
            return false;
        }
        if self.unknown.len() >= UNKNOWN_MAX {
            self.counters.unknown_over_bound += 1;
            return false;
        }
        self.unknown.insert(digest.to_vec(), now);
        true
    }

    fn own_record(&mut self, authority: &dyn Authority, identity: bool) -> SignedAlive {
        self.sequence = self.sequence.saturating_add(1);
        let alive = Alive {
            network_id: self.config.network_id.clone(),
            identity_digest: record::identity_digest(&self.own.serialized).to_vec(),
            peer_id: self.own_peer_id.clone(),
            external_endpoint: self.config.external_endpoint.clone(),
            incarnation: self.incarnation,
            sequence: self.sequence,
        };
        let record = sign(&alive, &self.config.internal_endpoint, authority);
        if identity { with_identity(&record, &self.own.serialized) } else { record }
    }

    /// Sends a record of `subject` to random connected peers that may have it, never to its subject or sender.
    fn spread(&mut self, record: &SignedAlive, subject: &Credential, from: Option<PkiId>) {
        let candidates: Vec<(PkiId, SignedAlive)> = self
            .connected
            .iter()
            .filter(|(peer, _)| **peer != subject.pki_id && Some(**peer) != from)
            .filter_map(|(peer, organization)| {
                self.disclose(record, &subject.msp_id, organization).map(|record| (*peer, record))
            })
            .collect();
        for (peer, record) in candidates.into_iter().sample(&mut self.rng, self.config.fanout) {
            self.outputs.push_back(MembershipOutput::SendAlive { peer, record });
        }
    }

    /// The record of a member of `subject` as a peer of `receiver` may see it.
    fn disclose(&self, record: &SignedAlive, subject: &MspId, receiver: &MspId) -> Option<SignedAlive> {
        if *receiver == self.own.msp_id {
            return Some(record.clone());
        }
        let shared = subject == receiver || *subject == self.own.msp_id;
        let external = record::decode(record, &self.config.network_id).ok()?.external_endpoint;
        (shared && !external.is_empty()).then(|| SignedAlive { internal: None, ..record.clone() })
    }

    fn expire(&mut self, now: Time) {
        let mut purged = Vec::new();
        for (pki_id, member) in &mut self.members {
            let silent = now.since(member.last_seen);
            if member.state == MemberState::Alive && silent >= self.config.alive_expiration {
                member.state = MemberState::Dead;
                self.outputs.push_back(MembershipOutput::Dead(*pki_id));
            }
            let permanent = member.endpoint().is_some_and(|endpoint| self.dialer.is_permanent(endpoint));
            if silent >= self.config.alive_expiration * PURGE_FACTOR && !permanent {
                purged.push(*pki_id);
            }
        }
        for pki_id in purged {
            self.forget(pki_id);
        }
    }

    fn forget(&mut self, pki_id: PkiId) {
        if let Some(member) = self.members.remove(&pki_id) {
            if self.tombstones.len() >= TOMBSTONES_MAX {
                let oldest = self.tombstones.iter().min_by_key(|(_, tombstone)| tombstone.last_seen);
                if let Some(oldest) = oldest.map(|(pki_id, _)| *pki_id) {
                    self.tombstones.remove(&oldest);
                }
            }
            let Member { order, record, last_seen, .. } = member;
            self.tombstones.insert(pki_id, Tombstone { order, record, last_seen });
            self.by_identity.remove(&member.identity_digest);
            self.dialer.forget(&pki_id);
        }
    }

    /// A member that is known but not connected should be dialled: at once by the smaller PKI-ID, one interval later by
    /// the larger, so that two who learn of each other do not dial at the same moment. One that is connected
    /// should not.
    fn settle_dials(&mut self, now: Time, pki_id: &PkiId) {
        let Some(member) = self.members.get(pki_id) else { return };
        if self.connected.contains_key(pki_id) {
            let external = Some(&member.external_endpoint).filter(|endpoint| !endpoint.is_empty());
            for endpoint in external.into_iter().chain(&member.internal_endpoint) {
                self.dialer.reached(endpoint, *pki_id);
            }
            return;
        }
        let crowded = self.connected.len() >= self.config.connections_max;
        if crowded && member.credential.msp_id != self.own.msp_id {
            return;
        }
        if let Some(endpoint) = member.endpoint() {
            self.dialer.want(*pki_id, endpoint, self.own.pki_id < *pki_id, now);
        }
    }

    fn jittered(&mut self, interval: Duration) -> Duration {
        interval.mul_f64(self.rng.random_range(0.9..1.1))
    }
}

fn with_identity(record: &SignedAlive, serialized: &Bytes) -> SignedAlive {
    SignedAlive { identity: serialized.clone(), ..record.clone() }
}
