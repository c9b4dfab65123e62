//! Membership: who is in the network, where they can be reached, and who is alive.
//!
//! # Promise
//! * Every peer of the own organisation, and every peer of an organisation that shares a channel and has an external
//!   endpoint, becomes known, by digests within one and a half round trips of a new member's first connection.
//! * Who is silent is *suspect*, may refute, and is *dead* for those who did not hear it themselves (`detector.rs`). Dead
//!   members are dialled and pinged on; a newer record, a connection or a frame over one brings them back. After
//!   `alive_expiration` × [`PURGE_FACTOR`] they are forgotten, save those at bootstrap and anchor endpoints.
//! * Nothing changes for a record that is forged, replayed, stale or of an organisation that shares no channel.
//!
//! # Messages
//! A [`SignedAlive`] is signed by its subject over [`ALIVE_TAG`] ‖ payload; the payload names the network, the
//! SHA-256 of the subject's identity, its libp2p PeerId and external endpoint, and an incarnation and sequence. Records
//! of a member order by (certificate NotBefore, serial, incarnation, sequence): a renewed certificate keeps the member
//! (the PKI-ID does not depend on it) and outdates everything signed with the older one. Whoever stores a record as new
//! passes it on once to `fanout` random connected peers, to more when it brings news ([`Membership`]'s `spread`). Own
//! records are signed anew when something changes, to refute an accusation, after standing still, and every
//! `alive_interval` × [`SPREAD_FACTOR`] × members: what they cost a peer so does not grow with the network. Between, pings
//! (`detector.rs`) and digests (`view.rs`) do the work. On connecting, each side sends its own record and what it
//! knows of the other. Heartbeats leave out the identity; who lacks it asks the sender.
//!
//! # Disclosure
//! Own-organisation peers get everything. A foreign peer gets records of its own organisation and of ours, only with an
//! external endpoint, and never an internal endpoint (Fabric's disclosure policy).
//!
//! # Bounds
//! At most [`MEMBERS_MAX`] members: a record of one more is dropped and counted. At most [`UNKNOWN_MAX`] identity
//! questions open, [`TOMBSTONES_MAX`] purged members remembered so that replays don't bring them back (oldest go). News are
//! passed on widely [`NEWS_MAX`] times a second, more narrowly; digests close the gaps.
//!
//! # Attacks
//! Forgery: honest peers pass on only what they have verified, so who sends a malformed record or one with a bad signature is
//! penalised, whoever made it. Replay: ordering and tombstones. Moving a valid internal endpoint to another record: its signature covers the
//! record. Another process with our identity: a record of our own that outbids ours makes us adopt its incarnation + 1,
//! at once, and raises [`MembershipOutput::Alarm`], except soon after a start, when it is a former self. False
//! accusations make others look, no more. A list of a view makes us send what its sender may know anyway.

mod connections;
mod detector;
mod dialer;
mod intake;
mod liveness;
mod own;
mod record;
mod spread;
#[cfg(test)]
mod tests;
mod types;
mod view;

use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::time::Duration;

use bytes::Bytes;
use grapevine_crypto::{MspId, PkiId};
use rand::rngs::ChaCha8Rng;
use rand::{Rng, RngExt, SeedableRng};

use crate::authority::{Authority, CertificateOrder, Credential};
use crate::certificates::{CertificateClock, ClockNews};
use crate::time::{Time, earliest};
use crate::wire::SignedAlive;
use connections::Connections;
use detector::{Detector, DetectorConfig};
use dialer::Dialer;
pub use record::{ALIVE_TAG, INTERNAL_TAG, Order, RecordError};
pub use types::{Member, MemberState, MembershipConfig, MembershipCounters, MembershipOutput, Probe};
use view::ROOT_INTERVAL_FACTOR;

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
/// How long the status shows an alarm.
const ALARM_SHOWN: Duration = Duration::from_secs(600);
/// An identity is asked for at most once in this time.
const ASK_AGAIN: Duration = Duration::from_secs(1);
/// Own records are spread every so many alive intervals for each member.
pub const SPREAD_FACTOR: u32 = 3;
/// News passed on widely in one second.
pub const NEWS_MAX: u32 = 32;
/// A refutation is signed at most once in this time.
const REFUTE_AGAIN: Duration = Duration::from_millis(200);
/// Time between two looks for records that are too old, members to purge, and the dead to ping.
const SWEEP_INTERVAL: Duration = Duration::from_secs(1);
/// Dead members with a connection that are pinged in one sweep.
const DEAD_PINGED_MAX: usize = 8;
/// Failed dials of a live member's endpoint after which an operator hears of it.
const FAILURES_BEFORE_NOTICE: u32 = 3;

/// What is remembered of a member that was forgotten.
#[derive(Debug)]
struct Tombstone {
    order: Order,
    record: SignedAlive,
    last_seen: Time,
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
    /// What the operator was told last, and when.
    alarm: Option<(Time, String)>,
    clock: CertificateClock,
    members: BTreeMap<PkiId, Member>,
    by_identity: BTreeMap<Vec<u8>, PkiId>,
    tombstones: BTreeMap<PkiId, Tombstone>,
    unknown: BTreeMap<Vec<u8>, Time>,
    connected: Connections,
    /// Connected peers that have not introduced themselves yet; each is sent the root of the view when it does.
    unintroduced: BTreeSet<PkiId>,
    dialer: Dialer,
    detector: Detector,
    /// The own record as it was signed last, without identity.
    current: Option<SignedAlive>,
    next_alive: Time,
    next_sweep: Time,
    next_root: Time,
    next_list: Time,
    list_wanted: Option<PkiId>,
    /// Exclusive or of the entries of all living members; see `view.rs`.
    root: [u8; 32],
    refuted_at: Option<Time>,
    /// News passed on widely in the second that began then.
    news: (Time, u32),
    /// When this peer said it would wake; later means that it stood still.
    promised: Option<Time>,
    rng: ChaCha8Rng,
    outputs: VecDeque<MembershipOutput>,
    counters: MembershipCounters,
}

impl Membership {
    /// A node that starts at `now`, with nobody known. `incarnation` is higher than in any former start.
    pub fn new(
        config: MembershipConfig,
        own: Credential,
        own_peer_id: Vec<u8>,
        incarnation: u64,
        clock: CertificateClock,
        now: Time,
        mut rng: ChaCha8Rng,
    ) -> Self {
        let own_endpoints = [config.internal_endpoint.clone(), config.external_endpoint.clone()];
        let mut dialer = Dialer::new(config.reconnect_interval, own_endpoints.into_iter().collect());
        dialer.set_permanent("bootstrap", config.bootstrap.iter().cloned().collect(), now);
        let detector_config = DetectorConfig {
            interval: config.alive_interval,
            timeout: config.alive_interval * 2 / 5,
            suspicion: config.alive_interval * 4 / 5,
        };
        let detector_rng = ChaCha8Rng::seed_from_u64(rng.next_u64());
        // So that peers that start together do not look at the same moment.
        let phase = config.alive_interval.mul_f64(rng.random_range(0.0..1.0));
        Self {
            detector: Detector::new(own.pki_id, detector_config, now + phase, detector_rng),
            unintroduced: BTreeSet::new(),
            current: None,
            next_sweep: now + SWEEP_INTERVAL,
            next_root: now + config.alive_interval * ROOT_INTERVAL_FACTOR,
            next_list: now,
            list_wanted: None,
            root: [0; 32],
            refuted_at: None,
            news: (now, 0),
            promised: None,
            own,
            own_peer_id,
            incarnation,
            sequence: 0,
            started: now,
            adopted: false,
            alarm: None,
            clock,
            members: BTreeMap::new(),
            by_identity: BTreeMap::new(),
            tombstones: BTreeMap::new(),
            unknown: BTreeMap::new(),
            connected: Connections::default(),
            dialer,
            next_alive: now,
            rng,
            outputs: VecDeque::new(),
            counters: MembershipCounters::default(),
            config,
        }
    }

    /// An admitted peer is connected: it is sent our own record and what we know of it.
    /// `endpoint` is what was dialled, if this side did.
    pub fn handle_connected(
        &mut self,
        now: Time,
        peer: PkiId,
        organization: MspId,
        endpoint: Option<&str>,
        authority: &dyn Authority,
    ) {
        self.wake(now, authority);
        if let Some(endpoint) = endpoint {
            self.dialer.reached(endpoint, peer);
        }
        self.connected.insert(peer, organization.clone());
        self.unintroduced.insert(peer);
        if let Some(member) = self.members.get_mut(&peer) {
            // Also if it dialled: then nobody need dial it, and whether that would work is not known.
            member.unreachable = false;
        }
        self.detector.connected(now, peer);
        self.revive(now, peer);
        let own = self.own_entry(authority).1;
        let mut records = Vec::new();
        records.extend(self.disclose(&own, &self.own.msp_id, &organization));
        // The peer's own newest record, too: if its disk is lost and its counter of starts began anew, it learns here
        // what it has to outbid, or it would be refused as stale for ever.
        if let Some(member) = self.members.get(&peer) {
            let full = with_identity(&member.record, &member.credential.serialized);
            records.extend(self.disclose(&full, &organization, &organization));
        } else if let Some(tombstone) = self.tombstones.get(&peer) {
            records.extend(self.disclose(&tombstone.record, &organization, &organization));
        }
        if !records.is_empty() {
            self.outputs.push_back(MembershipOutput::SendView { peer, records });
        }
        self.settle_dials(now, &peer);
        self.rest(now);
    }

    /// A connection ended: its peer is suspected, and dialled again.
    pub fn handle_disconnected(&mut self, now: Time, peer: PkiId) {
        self.connected.remove(&peer);
        self.unintroduced.remove(&peer);
        self.detector.disconnected(now, peer);
        self.dialer.lost(peer, now);
        self.settle_dials(now, &peer);
        self.rest(now);
    }

    /// A frame of whatever kind came from a connected peer: it lives.
    pub fn handle_frame(&mut self, now: Time, peer: PkiId, authority: &dyn Authority) {
        self.wake(now, authority);
        self.detector.heard(now, peer);
        self.revive(now, peer);
        self.rest(now);
    }

    /// A connected peer says or asks something about who is silent.
    pub fn handle_probe(&mut self, now: Time, from: PkiId, probe: Probe, authority: &dyn Authority) {
        match probe {
            Probe::Ping => {}
            Probe::Ask(subject) if self.same_organization(&from) => self.detector.asked(now, from, subject),
            Probe::Answer(subject) if self.same_organization(&from) => self.detector.answered(now, subject),
            Probe::Accuse(subject) if subject == self.own.pki_id => self.refute(now, authority),
            Probe::Accuse(subject) => self.detector.accused(now, from, subject),
            Probe::Ask(_) | Probe::Answer(_) => {}
        }
        self.rest(now);
    }

    /// A dial failed. If it was to a member that lives all the same, its advertised endpoint is wrong.
    pub fn handle_dial_failed(&mut self, now: Time, endpoint: &str) {
        let Some((Some(member), failures)) = self.dialer.failed(endpoint, now) else { return };
        let Some(known) = self.members.get_mut(&member) else { return };
        if failures >= FAILURES_BEFORE_NOTICE && known.state == MemberState::Alive && !known.unreachable {
            known.unreachable = true;
            let endpoint = endpoint.to_owned();
            self.outputs.push_back(MembershipOutput::Unreachable { member, endpoint });
        }
    }

    /// Anchor peers of the joined channels other than this node; replaces the former list.
    pub fn set_anchors(&mut self, now: Time, endpoints: BTreeSet<String>) {
        self.dialer.set_permanent("anchor", endpoints, now);
    }

    /// Organisations or their certificate authorities changed: members nobody vouches for any more are forgotten.
    pub fn handle_trust_changed(&mut self, now: Time, authority: &dyn Authority) {
        let unix_seconds = self.unix_seconds(now);
        self.forget_where(|member| authority.identify(&member.credential.serialized, unix_seconds).is_err());
    }

    /// Does what is due: own record, probes, sweeps, digests, dials.
    pub fn handle_timeout(&mut self, now: Time, authority: &dyn Authority) {
        self.wake(now, authority);
        if now >= self.next_alive {
            self.next_alive = now + self.jittered(self.config.alive_interval * self.scale());
            // Fabric FAB-18208: a lone peer signs nothing.
            if !self.connected.is_empty() {
                let record = self.renew(authority);
                let own = self.own.clone();
                self.spread(&record, &own, None, self.config.fanout);
            }
        }
        self.detector.handle_timeout(now);
        if now >= self.next_sweep {
            self.next_sweep = now + SWEEP_INTERVAL;
            self.sweep(now);
        }
        if now >= self.next_root {
            self.next_root = now + self.jittered(self.config.alive_interval * ROOT_INTERVAL_FACTOR);
            let peer = self.connected.sample(&mut self.rng, 1, |_, _| true);
            peer.into_iter().for_each(|peer| self.send_root(peer, authority));
        }
        self.send_list_if_due(now, authority);
        for endpoint in self.dialer.due(now) {
            self.outputs.push_back(MembershipOutput::Dial { endpoint });
        }
        self.rest(now);
    }

    /// When [`Membership::handle_timeout`] is due next.
    pub fn next_deadline(&self) -> Option<Time> {
        let own = self.next_alive.min(self.next_sweep).min(self.next_root);
        let list = self.list_wanted.map(|_| self.next_list);
        let others = earliest(self.detector.next_deadline(), self.dialer.next_deadline());
        earliest(Some(own), earliest(list, others))
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
        self.connected.contains(pki_id)
    }

    /// Whether a bootstrap or anchor peer may still turn up: nobody has answered there yet, nor has dialling failed again.
    pub fn is_seeking(&self) -> bool {
        self.dialer.is_seeking()
    }

    /// Who says that a suspect is silent.
    pub fn accusers(&self, pki_id: &PkiId) -> Vec<PkiId> {
        self.detector.accusers(pki_id).copied().collect()
    }

    /// What the operator was told in the last minutes: another process with this identity, or a newer certificate of it.
    pub fn alarm(&self, now: Time) -> Option<&str> {
        let alarm = self.alarm.as_ref().filter(|(at, _)| now.since(*at) < ALARM_SHOWN);
        alarm.map(|(_, text)| text.as_str())
    }

    /// How far this peer distrusts its own judgement of others: 0, not at all, to 8.
    pub fn local_health(&self) -> u32 {
        self.detector.health()
    }

    /// Counts of what was dropped.
    pub fn counters(&self) -> &MembershipCounters {
        &self.counters
    }

    /// Certificate time.
    pub fn clock(&self) -> &CertificateClock {
        &self.clock
    }

    /// The wall clock shows `wall_ms` Unix milliseconds.
    pub fn handle_wall(&mut self, now: Time, wall_ms: i64) -> Option<ClockNews> {
        self.clock.handle_wall(now, wall_ms)
    }

    /// The newest certificate known of a member, forgotten or not.
    pub fn newest_certificate(&self, pki_id: &PkiId) -> Option<&CertificateOrder> {
        let known = self.members.get(pki_id).map(|member| &member.order);
        let order = known.or_else(|| self.tombstones.get(pki_id).map(|tombstone| &tombstone.order))?;
        Some(&order.certificate)
    }

    #[cfg(test)]
    pub(crate) fn reset_clock(&mut self, clock: CertificateClock) {
        self.clock = clock;
    }

    pub(super) fn unix_seconds(&self, now: Time) -> i64 {
        self.clock.unix_seconds(now)
    }

    /// Forgets members that are none any more, and says that they are dead.
    pub(super) fn forget_where(&mut self, is_gone: impl Fn(&Member) -> bool) {
        let gone: Vec<PkiId> =
            self.members.iter().filter(|(_, member)| is_gone(member)).map(|(pki_id, _)| *pki_id).collect();
        for pki_id in gone {
            self.forget(pki_id);
            self.outputs.push_back(MembershipOutput::Dead(pki_id));
        }
    }

    pub(super) fn forget(&mut self, pki_id: PkiId) {
        if let Some(member) = self.members.remove(&pki_id) {
            if member.state != MemberState::Dead {
                view::toggle(&mut self.root, &member.entry());
            }
            self.detector.untrack(&pki_id);
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
        if self.connected.contains(pki_id) {
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
