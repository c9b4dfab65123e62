//! What a node tells operators, and what it holds against peers.

use grapevine_crypto::{Digest, MspId, PkiId};

use super::AnchorTrouble;
use crate::ChannelId;
use crate::certificates::{ClockNews, ExpiryNotice};
use crate::election::Term;
use crate::membership::RecordError;

/// Something worth a log line.
#[derive(Debug, Clone, PartialEq)]
pub enum Event {
    /// A member is alive for the first time or again.
    MemberAlive(PkiId),
    /// A member seems silent, and may refute that.
    MemberSuspect {
        /// The member.
        member: PkiId,
        /// Who says so; this peer alone at first.
        by: Vec<PkiId>,
    },
    /// A member is silent and did not refute it.
    MemberDead(PkiId),
    /// A member has a new certificate; it is the same member.
    MemberRenewed(PkiId),
    /// This node's own certificate lasts only so long.
    OwnCertificate(ExpiryNotice),
    /// The wall clock was stepped, or agrees again; certificate time goes on.
    WallClock(ClockNews),
    /// A member lives, but nobody answers at the endpoint it advertises.
    Unreachable {
        /// The member.
        member: PkiId,
        /// `host:port`.
        endpoint: String,
    },
    /// Something is wrong with the anchor peers that an organisation lists.
    Anchor {
        /// The channel.
        channel: ChannelId,
        /// The organisation.
        organization: MspId,
        /// What.
        trouble: AnchorTrouble,
    },
    /// The leader of a channel in the own organisation changed.
    Leader {
        /// The channel.
        channel: ChannelId,
        /// Who leads; `None`: nobody known.
        term: Option<Term>,
    },
    /// The leader kept back blocks that the orderer has, and is deposed for a while.
    Withholding {
        /// The channel.
        channel: ChannelId,
        /// The leader.
        leader: PkiId,
    },
    /// Orderers signed two histories: an authentic block does not link to the own chain, or shares a number with
    /// another. The own chain stays as it is.
    Fork {
        /// The channel.
        channel: ChannelId,
        /// The block number.
        number: u64,
        /// Header hash of the block that was dropped.
        dropped: Digest,
    },
    /// A member's history differs from the own one.
    Diverged {
        /// The channel.
        channel: ChannelId,
        /// Whose.
        peer: PkiId,
        /// The first differing block, or the lowest that could be compared.
        number: u64,
        /// Header hash of the own one.
        own: Digest,
        /// Header hash of the member's.
        theirs: Digest,
    },
    /// A block was dropped because it did not verify.
    BlockRejected {
        /// The channel.
        channel: ChannelId,
        /// Who sent it; `None`: the orderer.
        from: Option<PkiId>,
        /// Why.
        reason: String,
    },
    /// Something an operator must act on, in plain words.
    Alarm(String),
}

/// How a peer misbehaved, as far as its authenticated connection proves it.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum Penalty {
    /// It sent a frame or header that cannot be decoded.
    #[error("undecodable message: {0}")]
    Malformed(String),
    /// It sent a block that does not verify.
    #[error("block that does not verify: {0}")]
    BadBlock(String),
    /// It sent a header that does not verify.
    #[error("header that does not verify: {0}")]
    BadHeader(String),
    /// It sent a proof of a new certificate that does not hold.
    #[error("proof of a new certificate that does not hold: {0}")]
    BadRenewal(&'static str),
    /// It sent an alive record that no honest peer passes on.
    #[error("alive record: {0}")]
    BadRecord(RecordError),
    /// It sent a leadership message to another organisation.
    #[error("leadership message of another organisation")]
    ForeignLeadership,
    /// It sent a block that is not the one it named.
    #[error("block that is not the one it named")]
    WrongBlock,
}
