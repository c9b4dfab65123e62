//! Certificates of this node and of connected peers: how long they last, and what follows when they are renewed or revoked.
//!
//! # Promise
//! * A connection ends with the last second of the certificate that its peer showed, members and guests alike.
//! * When trust changes (a config block, a new revocation list), peers nobody vouches for any more are disconnected
//!   [`REMOVAL_GRACE`] later: the block that says so is on its way to them.
//! * A renewed certificate keeps the member, and its connections: whoever gets one proves it on each of them
//!   ([`Renewal`]), and from then on the connection lasts as long as the new certificate.
//! * Who connects with an older certificate than it is known to have is refused.
//! * The own certificate is warned of in time ([`crate::certificates::ExpiryWatch`]), and a stepped wall clock once.
//!
//! # Attacks
//! A proof is bound to the connection's nonces and both ends, so it shows nothing on any other. One that does not verify, or is
//! of another member, is misbehaviour; an identity nobody here vouches for (yet) is ignored.
//!
//! # Bounds
//! One entry for each connected peer.

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use grapevine_crypto::{PkiId, sha256};

use super::{Event, Node, Output, Penalty};
use crate::authority::Credential;
use crate::certificates::{CertificateClock, ExpiryNotice, ExpiryWatch};
use crate::time::{Time, earliest};
use crate::wire::{FrameBody, Renewal};

/// A peer whose organisation was removed, or whose certificate was revoked, is disconnected after this long.
pub const REMOVAL_GRACE: Duration = Duration::from_millis(500);
/// Stands before what is signed to prove a new certificate.
const RENEWAL_TAG: &[u8] = b"grapevine/renewal/1";
/// Handshakes that began before a renewal are over this long after it.
const HANDSHAKES_OVER: Duration = Duration::from_secs(30);

/// What `signer` signs to prove to `receiver`, on the connection of this session, that it has the certificate of this marshalled
/// SerializedIdentity.
pub fn renewal_message(session: &[u8; 32], signer: &PkiId, receiver: &PkiId, identity: &[u8]) -> Vec<u8> {
    [RENEWAL_TAG, session, signer.0.as_ref(), receiver.0.as_ref(), &sha256(identity).0].concat()
}

#[derive(Debug)]
pub(super) struct Certificates {
    own: ExpiryWatch,
    renewed_at: Option<Time>,
    /// Last seconds of the certificates of connected peers.
    ends: BTreeSet<(i64, PkiId)>,
    /// Peers that are no longer members, when to disconnect them, and why.
    dismissals: BTreeMap<PkiId, (Time, String)>,
}

impl Certificates {
    pub(super) fn new(own: &Credential) -> Self {
        Self {
            own: ExpiryWatch::new(own.not_after),
            renewed_at: None,
            ends: BTreeSet::new(),
            dismissals: BTreeMap::new(),
        }
    }

    pub(super) fn shown(&mut self, credential: &Credential) {
        self.ends.insert((credential.not_after, credential.pki_id));
    }

    pub(super) fn gone(&mut self, credential: &Credential) {
        self.ends.remove(&(credential.not_after, credential.pki_id));
        self.dismissals.remove(&credential.pki_id);
    }
}

impl Node {
    /// What is to be said of the own certificate now: how long it lasts, from [`crate::certificates::WARNING_DAYS`] on.
    pub fn own_certificate(&self, now: Time) -> Option<ExpiryNotice> {
        self.certificates.own.notice(self.clock().unix_seconds(now))
    }

    /// Certificate time.
    pub fn clock(&self) -> &CertificateClock {
        self.membership.clock()
    }

    pub(super) fn handle_wall(&mut self, now: Time, unix_ms: i64) {
        if let Some(news) = self.membership.handle_wall(now, unix_ms) {
            self.event(Event::WallClock(news));
        }
    }

    pub(super) fn handle_renewed(&mut self, now: Time, own: Credential) {
        self.certificates.own = ExpiryWatch::new(own.not_after);
        self.certificates.renewed_at = Some(now);
        self.own = own.clone();
        self.membership.handle_renewed(now, own, self.authority.as_ref());
        let peers: Vec<PkiId> = self.peers.keys().copied().collect();
        for peer in peers {
            self.prove_renewal(peer);
        }
    }

    /// A handshake that was under way during a renewal may have shown the older certificate.
    pub(super) fn prove_renewal_if_recent(&mut self, now: Time, peer: PkiId) {
        if self.certificates.renewed_at.is_some_and(|at| now.since(at) < HANDSHAKES_OVER) {
            self.prove_renewal(peer);
        }
    }

    fn prove_renewal(&mut self, peer: PkiId) {
        let Some(remote) = self.peers.get(&peer) else { return };
        let identity = self.own.serialized.clone();
        let message = renewal_message(remote.links.session(), &self.own.pki_id, &peer, &identity);
        let signature = self.authority.sign(&message).into();
        self.send_frame(peer, FrameBody::Renewal(Renewal { identity, signature }));
    }

    pub(super) fn handle_renewal(&mut self, now: Time, peer: PkiId, renewal: &Renewal) {
        let Some(remote) = self.peers.get_mut(&peer) else { return };
        let unix_seconds = self.membership.clock().unix_seconds(now);
        let Ok(credential) = self.authority.identify(&renewal.identity, unix_seconds) else {
            self.counters.renewals_refused += 1;
            return;
        };
        if credential.pki_id != peer {
            return self.penalise(peer, Penalty::BadRenewal("another member's"));
        }
        if credential.order() <= remote.credential.order() {
            return;
        }
        let session = remote.links.session();
        let message = renewal_message(session, &peer, &self.own.pki_id, &renewal.identity);
        if !self.authority.verify(&credential, &message, &renewal.signature) {
            return self.penalise(peer, Penalty::BadRenewal("bad signature"));
        }
        self.certificates.gone(&remote.credential);
        self.certificates.shown(&credential);
        remote.credential = credential;
    }

    /// Refuses a peer that shows an older certificate than it is known to have.
    pub(super) fn refuse_outdated(&mut self, credential: &Credential) -> bool {
        let newest = self.membership.newest_certificate(&credential.pki_id);
        let is_outdated = newest.is_some_and(|newest| credential.order() < *newest);
        if is_outdated {
            let reason = "it shows an older certificate than it had before".to_owned();
            self.outputs.push_back(Output::Disconnect { peer: credential.pki_id, reason });
        }
        is_outdated
    }

    /// Trust changed: members nobody vouches for are forgotten, and their connections end. Guests are judged by the config that
    /// removed them, which stays.
    pub(super) fn trust_changed(&mut self, now: Time) {
        self.membership.handle_trust_changed(now, self.authority.as_ref());
        let unix_seconds = self.clock().unix_seconds(now);
        for (peer, remote) in self.peers.iter().filter(|(_, remote)| remote.guest.is_none()) {
            match self.authority.identify(&remote.credential.serialized, unix_seconds) {
                Ok(_) => drop(self.certificates.dismissals.remove(peer)),
                Err(reason) => {
                    let at = now + REMOVAL_GRACE;
                    self.certificates.dismissals.entry(*peer).or_insert((at, reason));
                }
            }
        }
    }

    pub(super) fn certificates_deadline(&self) -> Option<Time> {
        let clock = self.clock();
        let end = self.certificates.ends.first().and_then(|(not_after, _)| clock.expiry(*not_after));
        let warning = self.certificates.own.next().and_then(|second| clock.expiry(second.saturating_sub(1)));
        let dismissal = self.certificates.dismissals.values().map(|(at, _)| *at).min();
        earliest(earliest(end, warning), dismissal)
    }

    pub(super) fn certificates_timeout(&mut self, now: Time) {
        let unix_seconds = self.clock().unix_seconds(now);
        if let Some(notice) = self.certificates.own.poll(unix_seconds) {
            self.event(Event::OwnCertificate(notice));
        }
        while let Some((not_after, peer)) = self.certificates.ends.first().copied()
            && not_after < unix_seconds
        {
            self.certificates.ends.pop_first();
            let reason = "its certificate has expired".to_owned();
            self.outputs.push_back(Output::Disconnect { peer, reason });
        }
        let due = self.certificates.dismissals.extract_if(.., |_, (at, _)| *at <= now);
        for (peer, (_, reason)) in due {
            let reason = format!("no longer a member: {reason}");
            self.outputs.push_back(Output::Disconnect { peer, reason });
        }
    }
}
