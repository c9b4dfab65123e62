//! Settings, members and outputs of membership.

use std::time::Duration;

use grapevine_crypto::PkiId;

use super::record::{Order, RecordError};
use crate::authority::Credential;
use crate::time::Time;
use crate::wire::{SignedAlive, ViewList};

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
    /// Time between two looks at a watched member; own records are spread in multiples of it that grow with the number of
    /// members (`aliveTimeInterval`).
    pub alive_interval: Duration,
    /// Age of the newest record after which a member that nobody watches counts as dead; grows alike
    /// (`aliveExpirationTimeout`).
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
    /// It was heard of.
    Alive,
    /// It is silent, and may yet refute that it is dead.
    Suspect,
    /// It did not.
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
    /// It lives, but nobody answers this node at the endpoint it advertises.
    pub unreachable: bool,
    /// When its newest record or connection came.
    pub(super) last_seen: Time,
    pub(super) identity_digest: Vec<u8>,
    pub(super) record: SignedAlive,
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
    /// Send many records (at most [`RECORDS_PER_VIEW_MAX`](crate::wire::RECORDS_PER_VIEW_MAX)).
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
    /// A member is silent; who says so is in [`super::Membership::accusers`].
    Suspect(PkiId),
    /// A member has a new certificate.
    Renewed(PkiId),
    /// Nobody answers at the endpoint a live member advertises.
    Unreachable {
        /// The member.
        member: PkiId,
        /// The endpoint.
        endpoint: String,
    },
    /// Send the digest of the own view.
    SendViewRoot {
        /// To this connected peer.
        peer: PkiId,
        /// The digest.
        root: [u8; 32],
    },
    /// Send what is in the own view.
    SendViewList {
        /// To this connected peer.
        peer: PkiId,
        /// One part of it.
        list: ViewList,
    },
    /// Send a question or answer of the failure detector.
    SendProbe {
        /// To this connected peer.
        peer: PkiId,
        /// What it says.
        probe: Probe,
    },
    /// A connected peer sent a record that it must have seen to be forged.
    Misbehaved {
        /// Who.
        peer: PkiId,
        /// What is wrong with the record.
        error: RecordError,
    },
    /// Something an operator must hear of, in plain words.
    Alarm(String),
}

/// What the failure detector says to a connected peer.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Probe {
    /// Answer at once.
    Ping,
    /// Look for this member.
    Ask(PkiId),
    /// This member was heard.
    Answer(PkiId),
    /// This member is silent.
    Accuse(PkiId),
}

/// Counts of what was dropped and why.
#[derive(Debug, Default, Clone, PartialEq, Eq)]
pub struct MembershipCounters {
    /// Records with a bad signature, of another network, of an unknown organisation, or malformed.
    pub records_rejected: u64,
    /// Records not newer than what was known.
    pub records_stale: u64,
    /// Records of new members beyond [`MEMBERS_MAX`](super::MEMBERS_MAX).
    pub members_over_bound: u64,
    /// Accusations against this peer that it refuted.
    pub refutations: u64,
    /// Members that were suspected and turned out alive.
    pub suspects_cleared: u64,
    /// Identity questions not asked because [`UNKNOWN_MAX`](super::UNKNOWN_MAX) were open.
    pub unknown_over_bound: u64,
}
