//! What a node takes in and puts out, and what both speak of.

use std::time::Duration;

use bytes::Bytes;
use grapevine_crypto::{Digest, PkiId};

use super::{Anchors, Event, Penalty};
use crate::ChannelId;
use crate::authority::Credential;
use crate::block::AuthenticBlock;
use crate::chain::Held;
use crate::isolation::Scope;
use crate::verify::VerifiedHeader;
use crate::wire::{BulkKind, Headers};

/// A channel this node has joined.
#[derive(Debug, Clone)]
pub struct ChannelSetup {
    /// The channel.
    pub channel: ChannelId,
    /// Who it is open to.
    pub scope: Scope,
    /// The anchor peers of its config.
    pub anchors: Anchors,
    /// Number of blocks in the own ledger.
    pub height: u64,
    /// Header hash of the highest.
    pub tip: Digest,
}

/// Names one block that is being verified.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Ticket(pub u64);

/// What a sender says a block is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Claim {
    /// Its number.
    pub number: u64,
    /// Its header hash; left out when it comes from the sender's ledger unread.
    pub hash: Option<Digest>,
}

impl Claim {
    pub(super) fn fits(&self, number: u64, hash: Digest) -> bool {
        self.number == number && self.hash.is_none_or(|claimed| claimed == hash)
    }
}

/// Why a block is dropped after verification.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum Rejection {
    /// It is not authentic; who sent it is to blame.
    #[error("{0}")]
    Forged(String),
    /// Its header hash is that of the block this peer has at its number; it was not looked at any further.
    #[error("it is known")]
    Known {
        /// Its number.
        number: u64,
        /// Its header hash.
        hash: Digest,
    },
    /// It cannot be judged now: it belongs under a config that is not known yet, or no longer in force. Nobody is to
    /// blame; it comes again by reconciliation.
    #[error("{0}")]
    Untimely(String),
}

/// What an orderer answers to a probe.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct OrdererAnswer {
    /// From the attempt to connect to the answer.
    pub round_trip: Duration,
    /// The header of its newest block, not verified.
    pub newest: Headers,
}

/// Something that happened.
#[derive(Debug)]
pub enum Input {
    /// An admitted peer is connected.
    Connected {
        /// Who, by the certificate it showed.
        credential: Credential,
        /// The value both ends derived from the nonces of their handshake.
        session: [u8; 32],
        /// What this side dialled, if it did.
        endpoint: Option<String>,
    },
    /// A connection ended.
    Disconnected {
        /// Whose.
        peer: PkiId,
    },
    /// A dial failed.
    DialFailed {
        /// What was dialled.
        endpoint: String,
        /// Why, for the operator.
        reason: String,
    },
    /// The wall clock shows this: every few seconds, so that certificate time can follow.
    Wall {
        /// Unix milliseconds.
        unix_ms: i64,
    },
    /// This node has a new certificate, and its authority signs with the key of it.
    Renewed(Credential),
    /// What [`crate::authority::Authority::identify`] says has changed in another way than by a channel's config.
    TrustChanged,
    /// A control frame.
    Control {
        /// From.
        peer: PkiId,
        /// The frame.
        frame: Bytes,
    },
    /// A bulk message.
    Bulk {
        /// From.
        peer: PkiId,
        /// The marshalled [`crate::wire::BulkHeader`].
        header: Bytes,
        /// The block.
        body: Bytes,
    },
    /// The header of a bulk message has come, its body not yet: what it names need not be asked for.
    BulkStarted {
        /// From.
        peer: PkiId,
        /// The marshalled [`crate::wire::BulkHeader`].
        header: Bytes,
    },
    /// More bytes of the body have come.
    BulkProgress {
        /// From.
        peer: PkiId,
        /// The marshalled [`crate::wire::BulkHeader`].
        header: Bytes,
    },
    /// The round trip to a peer, measured outside, as by the transport. Without it the node measures by pings.
    RoundTrip {
        /// To.
        peer: PkiId,
        /// How long.
        round_trip: Duration,
    },
    /// The orderer delivered a block.
    OrdererBlock {
        /// The channel.
        channel: ChannelId,
        /// The marshalled block.
        body: Bytes,
    },
    /// The deliver client reached an orderer or failed to.
    OrdererContact {
        /// The channel.
        channel: ChannelId,
        /// Whether an orderer answers.
        in_contact: bool,
        /// How long it took to answer, if that is known.
        round_trip: Option<Duration>,
    },
    /// The answer to [`Output::ProbeOrderer`].
    OrdererProbe {
        /// The channel.
        channel: ChannelId,
        /// What an orderer answered; `None`: none did in time.
        found: Option<OrdererAnswer>,
    },
    /// A block was verified.
    Verified {
        /// Which.
        ticket: Ticket,
        /// The authentic block, or why it is none.
        result: Result<AuthenticBlock, Rejection>,
    },
    /// Blocks are on disk.
    Committed {
        /// The channel.
        channel: ChannelId,
        /// Number of blocks on disk.
        height: u64,
        /// Header hash of the highest.
        tip: Digest,
    },
    /// Blocks of the own ledger, below its height, cannot be read any more.
    Lost {
        /// The channel.
        channel: ChannelId,
        /// The blocks.
        numbers: Vec<u64>,
    },
    /// What became of [`Output::Restore`].
    Restored {
        /// The channel.
        channel: ChannelId,
        /// The block.
        number: u64,
        /// Who sent it.
        peer: PkiId,
        /// In its place, or why not.
        result: Result<(), Rejection>,
    },
    /// The answer to [`Output::Compare`].
    Compared {
        /// The channel.
        channel: ChannelId,
        /// The block that was compared.
        block: AuthenticBlock,
        /// Header hash of the committed block of its number; `None` if it could not be read.
        kept: Option<Digest>,
    },
    /// The answer to [`Output::LookUp`].
    LookedUp {
        /// The channel.
        channel: ChannelId,
        /// The block.
        number: u64,
        /// Whose tip it is.
        peer: PkiId,
        /// Header hash of the committed block; `None` if it could not be read.
        hash: Option<Digest>,
    },
    /// A block of [`Output::SendBlock`] could not be sent: the peer's queue is full, or the ledger failed.
    NotSent {
        /// To.
        peer: PkiId,
        /// The channel.
        channel: ChannelId,
        /// The block.
        number: u64,
    },
    /// The headers of [`Output::ReadHeaders`], as many as there are.
    HeadersRead {
        /// For.
        peer: PkiId,
        /// The channel.
        channel: ChannelId,
        /// The answer.
        headers: Headers,
    },
    /// The headers of [`Output::VerifyHeaders`] were verified.
    HeadersVerified {
        /// Which.
        ticket: Ticket,
        /// Those that hold, from the first on and without a gap: fewer, or none, where the config that decides is not in force here.
        /// Or why the first that can be judged does not hold.
        result: Result<Vec<VerifiedHeader>, Rejection>,
    },
    /// Fetch the genesis block of this hash from the peer at this endpoint, or another one that has it; answered by
    /// [`Output::Introduced`].
    Introduce {
        /// The channel's name, as far as the operator knows.
        channel: ChannelId,
        /// Header hash of its genesis block.
        genesis_hash: Digest,
        /// `host:port`.
        endpoint: String,
    },
    /// A dial reached a peer that is connected already.
    AlreadyConnected {
        /// What was dialled.
        endpoint: String,
    },
    /// The operator joined a channel.
    Join(ChannelSetup),
    /// The operator left a channel, or it was stopped.
    Leave(ChannelId),
    /// A config block changed who a channel is open to, or its anchors.
    Reconfigured {
        /// The channel.
        channel: ChannelId,
        /// Who it is open to now.
        scope: Scope,
        /// Its anchor peers now.
        anchors: Anchors,
    },
    /// The node is about to stop: make room for others.
    Shutdown,
}

/// Something to do.
#[derive(Debug, PartialEq)]
pub enum Output {
    /// Send a control frame.
    SendControl {
        /// To.
        peer: PkiId,
        /// The frame.
        frame: Bytes,
    },
    /// Send a block.
    SendBlock {
        /// To.
        peer: PkiId,
        /// The channel, for reading the block.
        channel: ChannelId,
        /// Its number.
        number: u64,
        /// Whether it was asked for: pushes go first when there is too much to send.
        kind: BulkKind,
        /// The marshalled header that stands before it.
        header: Bytes,
        /// The block.
        block: Held,
    },
    /// Connect to `host:port`.
    Dial {
        /// The endpoint.
        endpoint: String,
    },
    /// Verify a block in the worker pool and answer with [`Input::Verified`]. One whose header hash is `kept`, or is that of the
    /// committed block of its number, is [`Rejection::Known`] before any other check.
    Verify {
        /// Names it.
        ticket: Ticket,
        /// The channel whose config decides.
        channel: ChannelId,
        /// What the sender says it is; `None` from the orderer.
        claim: Option<Claim>,
        /// The verified header at the number that the sender names, if there is one: a block that fits it needs no signature checked.
        verified: Option<VerifiedHeader>,
        /// Header hash of the block held at the number that the sender names, if it is known here.
        kept: Option<Digest>,
        /// The block.
        body: Bytes,
    },
    /// Look up the header hash that the ledger has at the number of this authentic block, and answer with [`Input::Compared`].
    Compare {
        /// The channel.
        channel: ChannelId,
        /// The block.
        block: AuthenticBlock,
    },
    /// Look up the header hash of a committed block, and answer with [`Input::LookedUp`].
    LookUp {
        /// The channel.
        channel: ChannelId,
        /// The block.
        number: u64,
        /// Whose tip it is.
        peer: PkiId,
    },
    /// Verify the signatures of headers in the worker pool and answer with [`Input::HeadersVerified`].
    VerifyHeaders {
        /// Names the range.
        ticket: Ticket,
        /// The channel whose config decides.
        channel: ChannelId,
        /// The headers.
        headers: Headers,
    },
    /// Read headers from the ledger and answer with [`Input::HeadersRead`].
    ReadHeaders {
        /// For.
        peer: PkiId,
        /// The channel.
        channel: ChannelId,
        /// Number of the first.
        first: u64,
        /// How many, all of them committed.
        count: u64,
    },
    /// Write a block. In order and linked.
    Commit {
        /// The channel.
        channel: ChannelId,
        /// The block.
        block: AuthenticBlock,
    },
    /// A lost block has come: check that it is the one the chain demands, and its signatures, put it in its place, and answer
    /// with [`Input::Restored`].
    Restore {
        /// The channel.
        channel: ChannelId,
        /// Its number.
        number: u64,
        /// Who sent it.
        peer: PkiId,
        /// The block.
        body: Bytes,
    },
    /// Pull the channel from the orderer, starting at this number; this peer leads. If it is pulled already, begin
    /// again there.
    StartDeliver {
        /// The channel.
        channel: ChannelId,
        /// First block to ask for.
        next: u64,
    },
    /// Stop pulling. The leader, too, stops for a moment when it had to drop a block of the stream.
    StopDeliver {
        /// The channel.
        channel: ChannelId,
    },
    /// Ask an orderer of the channel for its newest header and answer with [`Input::OrdererProbe`], within a lease at
    /// most. At most one is under way for each channel.
    ProbeOrderer {
        /// The channel.
        channel: ChannelId,
    },
    /// Write the incarnation to disk.
    PersistIncarnation(u64),
    /// Bulk messages of this tag from this peer may come, for the channel's body limit.
    LinkOpened {
        /// The peer.
        peer: PkiId,
        /// The channel.
        channel: ChannelId,
        /// The tag in its bulk headers.
        tag: [u8; crate::isolation::TAG_SIZE],
    },
    /// They may no longer.
    LinkClosed {
        /// The peer.
        peer: PkiId,
        /// The channel.
        channel: ChannelId,
    },
    /// A peer misbehaved; the driver disconnects it.
    Penalise {
        /// Who.
        peer: PkiId,
        /// How.
        why: Penalty,
    },
    /// What became of [`Input::Introduce`].
    Introduced {
        /// The channel's name, as the operator gave it.
        channel: ChannelId,
        /// The marshalled genesis block, whose hash is the right one; or why there is none, for the operator.
        result: Result<Bytes, String>,
    },
    /// Disconnect a peer that has done nothing wrong.
    Disconnect {
        /// Who.
        peer: PkiId,
        /// Why, in plain words.
        reason: String,
    },
    /// Keep an authentic block that contradicts the own chain: proof that the orderers signed two histories.
    KeepEvidence {
        /// The channel.
        channel: ChannelId,
        /// The block that is not followed.
        block: AuthenticBlock,
    },
    /// Stop the channel where it is; its blocks stay.
    Halt {
        /// The channel.
        channel: ChannelId,
        /// Why, in plain words.
        reason: String,
    },
    /// Something for logs and operators.
    Event(Event),
}
