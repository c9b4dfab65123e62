//! Counters of the transport, and the reasons for which a handshake is refused.
//!
//! Everything here only ever grows; a reader takes a [`NetCounters::snapshot`]. Counting is relaxed:
//! the numbers are for people and monitoring, no decision hangs on them.

use std::sync::atomic::{AtomicU64, Ordering};

/// Why a member handshake came to nothing. The discriminant is the one-byte code on the wire.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
#[repr(u8)]
pub enum RefusalKind {
    /// The handshake did not finish in time.
    Timeout = 1,
    /// The connection ended in the middle of the handshake.
    Closed = 2,
    /// Noise failed: another `network.id`, or not a peer of this kind at all.
    SecureChannel = 3,
    /// The other side speaks another version of the member handshake.
    Version = 4,
    /// A message of the handshake was not well formed or too large.
    Malformed = 5,
    /// The admission rule knows no such member.
    NotAMember = 6,
    /// The signature does not prove possession of the certificate's key.
    BadSignature = 7,
    /// This peer reached its own endpoint.
    SelfDial = 8,
    /// Another process uses this peer's own certificate.
    OwnIdentity = 9,
    /// A connection between the two peers exists or is being made.
    AlreadyConnected = 10,
    /// Too many connections or handshakes.
    Busy = 11,
    /// The other side refused this peer.
    ByRemote = 12,
}

impl RefusalKind {
    /// Every kind, in the order of the codes.
    pub const ALL: [Self; 12] = [
        Self::Timeout,
        Self::Closed,
        Self::SecureChannel,
        Self::Version,
        Self::Malformed,
        Self::NotAMember,
        Self::BadSignature,
        Self::SelfDial,
        Self::OwnIdentity,
        Self::AlreadyConnected,
        Self::Busy,
        Self::ByRemote,
    ];

    /// The code on the wire.
    pub fn code(self) -> u8 {
        self as u8
    }

    /// The kind behind a code from the wire, if it is a known one.
    pub fn from_code(code: u8) -> Option<Self> {
        Self::ALL.into_iter().find(|kind| kind.code() == code)
    }

    /// A short name for metrics, in snake case.
    pub fn label(self) -> &'static str {
        match self {
            Self::Timeout => "timeout",
            Self::Closed => "closed",
            Self::SecureChannel => "secure_channel",
            Self::Version => "version",
            Self::Malformed => "malformed",
            Self::NotAMember => "not_a_member",
            Self::BadSignature => "bad_signature",
            Self::SelfDial => "self",
            Self::OwnIdentity => "own_identity",
            Self::AlreadyConnected => "already_connected",
            Self::Busy => "busy",
            Self::ByRemote => "by_remote",
        }
    }
}

/// What the transport has done since it was started.
#[derive(Debug, Default)]
pub struct NetCounters {
    /// Bytes read from sockets, handshakes and encryption included.
    pub bytes_in: AtomicU64,
    /// Bytes written to sockets, handshakes and encryption included.
    pub bytes_out: AtomicU64,
    /// Control frames received, keep-alives not counted.
    pub control_in: AtomicU64,
    /// Control frames written, keep-alives not counted.
    pub control_out: AtomicU64,
    /// Bulk messages received and handed on.
    pub bulk_in: AtomicU64,
    /// Bulk messages written.
    pub bulk_out: AtomicU64,
    /// Control frames not sent because the queue to the peer was full.
    pub control_dropped: AtomicU64,
    /// Bulk messages not sent because the queue to the peer, or the budget of all queues, was full.
    pub bulk_dropped: AtomicU64,
    /// Pushes thrown out of a full queue for a message that was asked for.
    pub bulk_thrown_out: AtomicU64,
    /// Bulk messages read past and thrown away because the body limit did not allow them.
    pub bulk_refused: AtomicU64,
    /// Streams a peer opened beyond the two it is entitled to.
    pub streams_refused: AtomicU64,
    /// Handshakes that ended with both sides admitted.
    pub handshakes_completed: AtomicU64,
    /// Connections denied after a handshake because no admission was on record.
    pub gate_denied: AtomicU64,
    /// Dials not even begun because too many were under way.
    pub dials_dropped: AtomicU64,
    refused: [AtomicU64; RefusalKind::ALL.len()],
}

impl NetCounters {
    /// How many handshakes were refused for this reason, by either side's decision.
    pub fn refused(&self, kind: RefusalKind) -> u64 {
        self.refused_slot(kind).map_or(0, |slot| slot.load(Ordering::Relaxed))
    }

    /// All counters by name.
    pub fn snapshot(&self) -> Vec<(String, u64)> {
        let plain = [
            ("net_bytes_in", &self.bytes_in),
            ("net_bytes_out", &self.bytes_out),
            ("net_control_in", &self.control_in),
            ("net_control_out", &self.control_out),
            ("net_bulk_in", &self.bulk_in),
            ("net_bulk_out", &self.bulk_out),
            ("net_control_dropped", &self.control_dropped),
            ("net_bulk_dropped", &self.bulk_dropped),
            ("net_bulk_thrown_out", &self.bulk_thrown_out),
            ("net_bulk_refused", &self.bulk_refused),
            ("net_streams_refused", &self.streams_refused),
            ("net_handshakes_completed", &self.handshakes_completed),
            ("net_gate_denied", &self.gate_denied),
            ("net_dials_dropped", &self.dials_dropped),
        ];
        let plain = plain.into_iter().map(|(name, value)| (name.to_owned(), value.load(Ordering::Relaxed)));
        let refused = RefusalKind::ALL
            .into_iter()
            .map(|kind| (format!("net_handshakes_refused_{}", kind.label()), self.refused(kind)));
        plain.chain(refused).collect()
    }

    pub(crate) fn count_refused(&self, kind: RefusalKind) {
        if let Some(slot) = self.refused_slot(kind) {
            slot.fetch_add(1, Ordering::Relaxed);
        }
    }

    fn refused_slot(&self, kind: RefusalKind) -> Option<&AtomicU64> {
        self.refused.get(usize::from(kind.code()).saturating_sub(1))
    }
}

/// Adds one to a counter.
pub(crate) fn count(counter: &AtomicU64) {
    counter.fetch_add(1, Ordering::Relaxed);
}
