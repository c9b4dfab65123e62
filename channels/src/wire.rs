//! The gossip wire schema: what two admitted peers say to each other.
//!
//! Two kinds of bytes travel. *Control frames* ([`Frame`]) are small protobuf messages on the control stream;
//! *bulk messages* are a [`BulkHeader`] and one block in its canonical encoding on the bulk stream.
//! Both streams are length-prefixed by the transport, which refuses a frame over [`FRAME_SIZE_MAX`] and a body over
//! the channel's limit before it allocates anything.
//!
//! Frames of a channel are wrapped in [`ChannelFrame`] and named by a *tag* that only the two ends of this one
//! connection can compute (see [`crate::isolation`]); an outsider on the path, or a peer that has not joined,
//! learns no channel names. There is exactly one way to make such a frame: [`crate::isolation::ChannelLink`].
//!
//! Decoding is total: any bytes give a message or an error. Unknown fields are ignored, so a newer peer may add some.

mod parse;

use bytes::Bytes;
use prost::Message;

use crate::block::{Block, BlockHeader};
pub use parse::WireError;

/// Largest control frame, in bytes. A membership view is split to fit.
pub const FRAME_SIZE_MAX: usize = 256 * 1024;

/// Largest bulk header, in bytes.
pub const BULK_HEADER_SIZE_MAX: usize = 64 * 1024;

/// Most block numbers one request may name, and most ranges one digest may list.
pub const NUMBERS_PER_FRAME_MAX: usize = 1_024;

/// Most manifests in one announcement.
pub const MANIFESTS_PER_FRAME_MAX: usize = 256;

/// Bytes of a PKI-ID that name a member in a [`Delegation`]. Two members that share them would get each other's
/// place in a plan and repair the difference; nobody can be made to share another's without 2^64 tries.
pub const MEMBER_PREFIX_SIZE: usize = 8;

/// Most members in a delegation. One of this size fills most of [`BULK_HEADER_SIZE_MAX`].
pub const DELEGATION_MEMBERS_MAX: usize = 5_000;

/// Most headers one request may ask for, and one answer hold.
pub const HEADERS_PER_RANGE_MAX: usize = 128;

/// Bytes of headers after which an answer holds no further one: so that it fits into a frame.
pub const HEADERS_BYTES_MAX: usize = FRAME_SIZE_MAX / 2;

/// Most records one membership view frame may carry.
pub const RECORDS_PER_VIEW_MAX: usize = 100;

/// Bytes of one entry of a [`ViewList`].
pub const VIEW_ENTRY_SIZE: usize = 28;

/// Most entries of one [`ViewList`]; one of this size fills half of [`FRAME_SIZE_MAX`].
pub const VIEW_ENTRIES_MAX: usize = 4_096;

/// A control frame.
#[derive(Clone, PartialEq, Message)]
pub struct Frame {
    /// What the frame says.
    #[prost(oneof = "FrameBody", tags = "1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 12, 13")]
    pub body: Option<FrameBody>,
}

/// The kinds of control frames.
#[derive(Clone, PartialEq, prost::Oneof)]
pub enum FrameBody {
    /// One member's newest alive record, sent by its subject or relayed.
    #[prost(message, tag = "1")]
    Alive(SignedAlive),
    /// What the sender knows of the members the receiver may know of; sent once on connecting.
    #[prost(message, tag = "2")]
    View(View),
    /// Asks for the identity behind alive records the sender could not check.
    #[prost(message, tag = "3")]
    IdentityRequest(IdentityRequest),
    /// Proofs that the sender has joined channels; see [`crate::isolation`].
    #[prost(message, tag = "4")]
    Joined(Joined),
    /// A frame of one channel.
    #[prost(message, tag = "5")]
    Channel(ChannelFrame),
    /// Measures the round trip; see [`crate::round_trip`].
    #[prost(message, tag = "6")]
    Ping(Nonce),
    /// Answers a ping at once.
    #[prost(message, tag = "7")]
    Pong(Nonce),
    /// Digest of the sender's view, 32 bytes; who has another answers with a list.
    #[prost(bytes = "vec", tag = "8")]
    ViewRoot(Vec<u8>),
    /// A part of the sender's view; who knows more or newer answers with the records.
    #[prost(message, tag = "9")]
    ViewList(ViewList),
    /// Asks to look for the member of this PKI-ID, which the sender does not hear.
    #[prost(bytes = "vec", tag = "10")]
    LookFor(Vec<u8>),
    /// The member of this PKI-ID, asked for, was heard.
    #[prost(bytes = "vec", tag = "11")]
    Heard(Vec<u8>),
    /// The sender suspects the member of this PKI-ID to be dead.
    #[prost(bytes = "vec", tag = "12")]
    Suspicion(Vec<u8>),
    /// The sender has a new certificate.
    #[prost(message, tag = "13")]
    Renewal(Renewal),
}

/// Shows, over a connection made with an older certificate of the same member, that the sender has a newer one: the connection
/// lasts as long as the newer one then.
#[derive(Clone, PartialEq, Eq, Message)]
pub struct Renewal {
    /// The sender's marshalled SerializedIdentity.
    #[prost(bytes = "bytes", tag = "1")]
    pub identity: Bytes,
    /// Signature by its key over what [`crate::node::renewal_message`] says.
    #[prost(bytes = "bytes", tag = "2")]
    pub signature: Bytes,
}

/// A part of a view: which members the sender knows, and how new its records of them are.
#[derive(Clone, PartialEq, Eq, Message)]
pub struct ViewList {
    /// The part covers PKI-IDs whose first 8 bytes, as a number, lie between this and `last`, both included.
    #[prost(fixed64, tag = "1")]
    pub first: u64,
    /// See `first`.
    #[prost(fixed64, tag = "2")]
    pub last: u64,
    /// Entries of [`VIEW_ENTRY_SIZE`] bytes, at most [`VIEW_ENTRIES_MAX`]: the first 8 bytes of the PKI-ID, the first 4 of the
    /// identity's SHA-256, incarnation and sequence of the newest record, 8 bytes each, big endian.
    #[prost(bytes = "bytes", tag = "3")]
    pub entries: Bytes,
}

/// What a pong repeats of its ping.
#[derive(Clone, Copy, PartialEq, Eq, Message)]
pub struct Nonce {
    /// Random.
    #[prost(fixed64, tag = "1")]
    pub value: u64,
}

/// A member's signed alive record as it travels.
#[derive(Clone, PartialEq, Eq, Message)]
pub struct SignedAlive {
    /// A marshalled [`Alive`], exactly as its subject signed it.
    #[prost(bytes = "bytes", tag = "1")]
    pub payload: Bytes,
    /// The subject's enrolment signature over [`crate::membership::ALIVE_TAG`] ‖ payload.
    #[prost(bytes = "bytes", tag = "2")]
    pub signature: Bytes,
    /// The subject's marshalled SerializedIdentity; empty in heartbeats, whose receivers know it already.
    /// Not signed itself: the payload names its SHA-256.
    #[prost(bytes = "bytes", tag = "3")]
    pub identity: Bytes,
    /// The endpoint for the subject's own organisation; removed before the record goes to any other.
    #[prost(message, optional, tag = "4")]
    pub internal: Option<SignedInternalEndpoint>,
}

/// The signed part of an alive record.
#[derive(Clone, PartialEq, Eq, Message)]
pub struct Alive {
    /// The network the record belongs to; a record of another network means nothing here.
    #[prost(string, tag = "1")]
    pub network_id: String,
    /// SHA-256 of the subject's marshalled SerializedIdentity.
    #[prost(bytes = "vec", tag = "2")]
    pub identity_digest: Vec<u8>,
    /// The subject's libp2p PeerId.
    #[prost(bytes = "vec", tag = "3")]
    pub peer_id: Vec<u8>,
    /// `host:port` for peers of other organisations; empty: invisible to them.
    #[prost(string, tag = "4")]
    pub external_endpoint: String,
    /// Persisted counter of the subject's starts; never a clock.
    #[prost(uint64, tag = "5")]
    pub incarnation: u64,
    /// Counts the records of one incarnation.
    #[prost(uint64, tag = "6")]
    pub sequence: u64,
}

/// The internal endpoint with a signature of its own, so that it can be removed without breaking the record.
#[derive(Clone, PartialEq, Eq, Message)]
pub struct SignedInternalEndpoint {
    /// `host:port` for peers of the own organisation.
    #[prost(string, tag = "1")]
    pub endpoint: String,
    /// Signature over [`crate::membership::INTERNAL_TAG`] ‖ SHA-256 of the alive payload ‖ endpoint: bound to its
    /// record, so that it can't be moved to another (Fabric's secret envelope is not).
    #[prost(bytes = "bytes", tag = "2")]
    pub signature: Bytes,
}

/// Alive records with their identities.
#[derive(Clone, PartialEq, Message)]
pub struct View {
    /// At most [`RECORDS_PER_VIEW_MAX`].
    #[prost(message, repeated, tag = "1")]
    pub records: Vec<SignedAlive>,
}

/// Names identities by the SHA-256 that alive records carry.
#[derive(Clone, PartialEq, Message)]
pub struct IdentityRequest {
    /// At most [`RECORDS_PER_VIEW_MAX`].
    #[prost(bytes = "vec", repeated, tag = "1")]
    pub digests: Vec<Vec<u8>>,
}

/// The channels the sender has joined and the receiver's organisation is a member of, each as a proof of 32 bytes.
/// Replaces the sender's former list on this connection.
#[derive(Clone, PartialEq, Message)]
pub struct Joined {
    /// HMAC-SHA-256 proofs; see [`crate::isolation`].
    #[prost(bytes = "vec", repeated, tag = "1")]
    pub proofs: Vec<Vec<u8>>,
}

/// A frame of one channel.
#[derive(Clone, PartialEq, Message)]
pub struct ChannelFrame {
    /// The sender's tag of the channel on this connection.
    #[prost(bytes = "vec", tag = "1")]
    pub tag: Vec<u8>,
    /// What it says.
    #[prost(oneof = "ChannelBody", tags = "2, 3, 4, 5, 6, 7, 8, 9, 14, 15, 16")]
    pub body: Option<ChannelBody>,
}

/// The kinds of channel frames.
#[derive(Clone, PartialEq, prost::Oneof)]
pub enum ChannelBody {
    /// The sender's ledger height.
    #[prost(message, tag = "2")]
    State(State),
    /// Election; own organisation only.
    #[prost(message, tag = "3")]
    Leadership(Leadership),
    /// Recent blocks the sender holds; own organisation only.
    #[prost(message, tag = "4")]
    Digest(Digest),
    /// Asks for blocks by number.
    #[prost(message, tag = "5")]
    Request(Request),
    /// Blocks of a request that will not come.
    #[prost(message, tag = "6")]
    Refusal(Request),
    /// Blocks the leader is sending out; own organisation only.
    #[prost(message, tag = "7")]
    Announcement(Announcement),
    /// Recent blocks the sender has just got; own organisation only.
    #[prost(message, tag = "8")]
    Holding(Holding),
    /// Tells the leader of blocks that did not come as planned; own organisation only.
    #[prost(message, tag = "9")]
    Late(Request),
    /// Asks for headers.
    #[prost(message, tag = "14")]
    HeadersRequest(HeadersRequest),
    /// The answer to a [`HeadersRequest`].
    #[prost(message, tag = "15")]
    Headers(Headers),
    /// Asks for the recent blocks of the receiver, in the mode that pulls; own organisation only.
    #[prost(message, tag = "16")]
    Hello(Hello),
}

/// A claim about the sender's ledger. A hint: nothing is believed for it but that asking may help.
#[derive(Clone, PartialEq, Eq, Message)]
pub struct State {
    /// Number of blocks committed.
    #[prost(uint64, tag = "1")]
    pub height: u64,
    /// Header hash of the highest committed block.
    #[prost(bytes = "vec", tag = "2")]
    pub tip_hash: Vec<u8>,
    /// The sender wants the receiver's own state in answer.
    #[prost(bool, tag = "3")]
    pub answer: bool,
}

/// Asks for the headers of consecutive blocks.
#[derive(Clone, PartialEq, Eq, Message)]
pub struct HeadersRequest {
    /// Number of the first.
    #[prost(uint64, tag = "1")]
    pub first: u64,
    /// How many, at most [`HEADERS_PER_RANGE_MAX`]; the answer may hold fewer.
    #[prost(uint64, tag = "2")]
    pub count: u64,
}

/// Headers of consecutive blocks with the orderers' signatures. Every previous hash but the first is that of the header before it,
/// and left out.
#[derive(Clone, PartialEq, Eq, Message)]
pub struct Headers {
    /// Number of the first. Without entries: the sender has none of those asked for.
    #[prost(uint64, tag = "1")]
    pub first: u64,
    /// Previous hash of the first.
    #[prost(bytes = "bytes", tag = "2")]
    pub previous_hash: Bytes,
    /// In order of their numbers.
    #[prost(message, repeated, tag = "3")]
    pub entries: Vec<HeaderEntry>,
}

/// One header.
#[derive(Clone, PartialEq, Eq, Message)]
pub struct HeaderEntry {
    /// SHA-256 over the block's data.
    #[prost(bytes = "bytes", tag = "1")]
    pub data_hash: Bytes,
    /// Metadata slot 0.
    #[prost(bytes = "bytes", tag = "2")]
    pub signatures_metadata: Bytes,
    /// Bytes of the whole block. A hint, for how many to ask for at a time.
    #[prost(uint64, tag = "3")]
    pub block_bytes: u64,
}

impl Headers {
    /// An answer from consecutive blocks, as far as a frame takes them.
    pub fn of<E>(first: u64, blocks: impl Iterator<Item = Result<(Block, usize), E>>) -> Result<Self, E> {
        let mut headers = Self { first, ..Self::default() };
        let mut bytes = 0usize;
        for block in blocks.take(HEADERS_PER_RANGE_MAX) {
            let (block, size) = block?;
            if headers.entries.is_empty() {
                headers.previous_hash = block.header().previous_hash.clone().into();
            }
            let signatures_metadata = Bytes::copy_from_slice(block.signatures_metadata());
            bytes = bytes.saturating_add(signatures_metadata.len()).saturating_add(64);
            if bytes > HEADERS_BYTES_MAX && !headers.entries.is_empty() {
                break;
            }
            headers.entries.push(HeaderEntry {
                data_hash: block.header().data_hash.clone().into(),
                signatures_metadata,
                block_bytes: size as u64,
            });
        }
        Ok(headers)
    }

    /// The headers, each with its slot 0. Nothing is verified but that each names the one before it.
    pub fn headers(&self) -> impl Iterator<Item = (BlockHeader, Bytes)> + '_ {
        let mut previous_hash = self.previous_hash.to_vec();
        self.entries.iter().zip(self.first..).map(move |(entry, number)| {
            let data_hash = entry.data_hash.to_vec();
            let header = BlockHeader { number, previous_hash: std::mem::take(&mut previous_hash), data_hash };
            previous_hash = header.hash().0.to_vec();
            (header, entry.signatures_metadata.clone())
        })
    }
}

/// One election message; the sender is the connection's authenticated peer, so it is neither signed nor relayed.
#[derive(Clone, PartialEq, Eq, Hash, Message)]
pub struct Leadership {
    /// What the sender says.
    #[prost(enumeration = "LeadershipKind", tag = "1")]
    pub kind: i32,
    /// Counter half of the term; the other half is the sender's PKI-ID, of a notice `about`.
    #[prost(uint64, tag = "2")]
    pub counter: u64,
    /// The sender's ledger height.
    #[prost(uint64, tag = "3")]
    pub height: u64,
    /// Whether the sender reaches an orderer; believed for one lease.
    #[prost(enumeration = "OrdererContact", tag = "4")]
    pub contact: i32,
    /// How long the sender has been in the channel: the binary logarithm of the seconds, rounded down, plus one.
    #[prost(uint32, tag = "5")]
    pub tenure: u32,
    /// PKI-ID: of a notice the leader, of a resignation the successor, of a declaration who is deposed, of a proposal whom
    /// it answers; empty: nobody.
    #[prost(bytes = "vec", tag = "6")]
    pub about: Vec<u8>,
    /// Header hash of the sender's highest block: a height counts only where it does not contradict the receiver's.
    #[prost(bytes = "vec", tag = "7")]
    pub tip_hash: Vec<u8>,
    /// Why the sender leads, for operators: the number of a [`crate::election::Reason`].
    #[prost(uint32, tag = "8")]
    pub reason: u32,
    /// Round trip to the sender's orderer, microseconds; 0: unknown. For operators.
    #[prost(uint64, tag = "9")]
    pub orderer_round_trip_us: u64,
    /// Of a resignation: the sender is about to end, and passes nothing on any more.
    #[prost(bool, tag = "10")]
    pub is_stopping: bool,
}

impl Leadership {
    /// Whether the sender says that it is about to end.
    pub fn says_farewell(&self) -> bool {
        self.is_stopping && self.kind() == LeadershipKind::Resignation
    }
}

/// Kinds of election messages.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, prost::Enumeration)]
#[repr(i32)]
pub enum LeadershipKind {
    /// Not a legal kind.
    Unspecified = 0,
    /// The sender wants to lead.
    Proposal = 1,
    /// The sender leads.
    Declaration = 2,
    /// The sender no longer leads and asks for an election at once, or names its successor.
    Resignation = 3,
    /// The sender follows a leader whom the receiver seems not to hear.
    Notice = 4,
    /// To a leader: declare yourself now. To a follower: say when you hear your leader next.
    Query = 5,
    /// The sender leads and has lost the orderers: who reaches one?
    Vacancy = 6,
}

/// Whether a peer reaches an orderer.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, prost::Enumeration)]
#[repr(i32)]
pub enum OrdererContact {
    /// It did not try lately.
    Unknown = 0,
    /// It tried and failed.
    Failed = 1,
    /// One answers it.
    Reached = 2,
}

/// Asks for a digest; see [`crate::dissemination::classic`].
#[derive(Clone, Copy, PartialEq, Eq, Message)]
pub struct Hello {}

/// The recent blocks the sender holds, committed or not.
#[derive(Clone, PartialEq, Eq, Message)]
pub struct Digest {
    /// Inclusive ranges `first..=last`, flattened: first, last, first, last …
    #[prost(uint64, repeated, tag = "1")]
    pub ranges: Vec<u64>,
}

/// What the leader says of the blocks it is sending out.
#[derive(Clone, PartialEq, Message)]
pub struct Announcement {
    /// At most [`MANIFESTS_PER_FRAME_MAX`].
    #[prost(message, repeated, tag = "1")]
    pub manifests: Vec<Manifest>,
}

/// One block that the leader is sending out. A hint like every claim: the block itself is verified.
#[derive(Clone, PartialEq, Eq, Message)]
pub struct Manifest {
    /// Block number.
    #[prost(uint64, tag = "1")]
    pub number: u64,
    /// Header hash.
    #[prost(bytes = "vec", tag = "2")]
    pub hash: Vec<u8>,
    /// Bytes of the encoded block.
    #[prost(uint64, tag = "3")]
    pub size: u64,
    /// When the receiver should have the block, in microseconds after this frame was sent; 0: it is not in the plan.
    #[prost(uint64, tag = "4")]
    pub eta_micros: u64,
    /// SHA-256 of each chunk, for transfer by chunks from several peers; empty: the block travels whole.
    #[prost(bytes = "bytes", tag = "5")]
    pub chunk_hashes: Bytes,
    /// The leader's signature over the fields before; needed only with chunk hashes, which no orderer has signed.
    #[prost(bytes = "bytes", tag = "6")]
    pub signature: Bytes,
}

/// Blocks that the sender holds since a moment ago.
#[derive(Clone, PartialEq, Eq, Message)]
pub struct Holding {
    /// Inclusive ranges `first..=last`, flattened: first, last, first, last …
    #[prost(uint64, repeated, tag = "1")]
    pub ranges: Vec<u64>,
    /// The sender says so to every member, not to a few: it will be asked by many, so it is not asked first.
    #[prost(bool, tag = "2")]
    pub to_all: bool,
}

/// Asks for blocks.
#[derive(Clone, PartialEq, Eq, Message)]
pub struct Request {
    /// At most [`NUMBERS_PER_FRAME_MAX`]; the answer may hold fewer.
    #[prost(uint64, repeated, tag = "1")]
    pub numbers: Vec<u64>,
}

/// Stands before every block on the bulk stream.
#[derive(Clone, PartialEq, Eq, Message)]
pub struct BulkHeader {
    /// The sender's tag of the channel on this connection.
    #[prost(bytes = "vec", tag = "1")]
    pub tag: Vec<u8>,
    /// Block number, as the sender says.
    #[prost(uint64, tag = "2")]
    pub number: u64,
    /// Header hash, as the sender says; empty when it sends from its ledger. Checked: a body of another hash is
    /// misbehaviour.
    #[prost(bytes = "vec", tag = "3")]
    pub hash: Vec<u8>,
    /// Why the block comes.
    #[prost(enumeration = "BulkKind", tag = "4")]
    pub kind: i32,
    /// Of a push: whom the receiver is to push the block to in turn.
    #[prost(message, optional, tag = "5")]
    pub delegation: Option<Delegation>,
}

/// Whom the receiver of a push sends the block to: a forest of members in depth-first order, each tree one child with all that
/// it is to serve. Made by the leader; the receiver checks every name.
#[derive(Clone, PartialEq, Eq, Message)]
pub struct Delegation {
    /// The first [`MEMBER_PREFIX_SIZE`] bytes of each member's PKI-ID.
    #[prost(bytes = "bytes", tag = "1")]
    pub members: Bytes,
    /// For each member, how many members its tree has, itself included.
    #[prost(uint32, repeated, tag = "2")]
    pub sizes: Vec<u32>,
    /// How many peers of the receiver's tree, itself first, announce the block to every member.
    #[prost(uint32, tag = "3")]
    pub heads: u32,
}

/// Why a block comes.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, prost::Enumeration)]
#[repr(i32)]
pub enum BulkKind {
    /// Not a legal kind.
    Unspecified = 0,
    /// A new block, pushed unasked inside the organisation.
    Push = 1,
    /// The answer to a [`Request`].
    Reply = 2,
}
