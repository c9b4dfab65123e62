//! `orderer/configuration.proto`, `orderer/ab.proto` and `orderer/etcdraft/configuration.proto`: how blocks are cut and
//! delivered.

use bytes::Bytes;

/// `orderer.ConsensusType`.
#[derive(Clone, PartialEq, Eq, prost::Message)]
pub struct ConsensusType {
    /// `etcdraft` or `BFT`.
    #[prost(string, tag = "1")]
    pub r#type: String,
    /// Private to the type.
    #[prost(bytes = "vec", tag = "2")]
    pub metadata: Vec<u8>,
    /// A [`ConsensusState`].
    #[prost(enumeration = "ConsensusState", tag = "3")]
    pub state: i32,
}

/// `orderer.ConsensusType.State`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord, prost::Enumeration)]
#[repr(i32)]
pub enum ConsensusState {
    /// Orders transactions.
    Normal = 0,
    /// The consensus type is being changed.
    Maintenance = 1,
}

/// `orderer.BatchSize`.
#[derive(Clone, Copy, PartialEq, Eq, prost::Message)]
pub struct BatchSize {
    /// Most transactions in a block.
    #[prost(uint32, tag = "1")]
    pub max_message_count: u32,
    /// Most bytes of one transaction, and so of a block's data.
    #[prost(uint32, tag = "2")]
    pub absolute_max_bytes: u32,
    /// A block is cut before it grows beyond this, if it holds a transaction.
    #[prost(uint32, tag = "3")]
    pub preferred_max_bytes: u32,
}

/// `orderer.BatchTimeout`.
#[derive(Clone, PartialEq, Eq, prost::Message)]
pub struct BatchTimeout {
    /// In Go's notation, such as `500ms` or `2s`.
    #[prost(string, tag = "1")]
    pub timeout: String,
}

/// `orderer.ChannelRestrictions`.
#[derive(Clone, Copy, PartialEq, Eq, prost::Message)]
pub struct ChannelRestrictions {
    /// Most channels; 0 is unlimited.
    #[prost(uint64, tag = "1")]
    pub max_count: u64,
}

/// `etcdraft.ConfigMetadata`: [`ConsensusType::metadata`] of type `etcdraft`.
#[derive(Clone, PartialEq, prost::Message)]
pub struct RaftConfigMetadata {
    /// The consenter set.
    #[prost(message, repeated, tag = "1")]
    pub consenters: Vec<RaftConsenter>,
    /// Tuning.
    #[prost(message, optional, tag = "2")]
    pub options: Option<RaftOptions>,
}

/// `etcdraft.Consenter`.
#[derive(Clone, PartialEq, Eq, prost::Message)]
pub struct RaftConsenter {
    /// Where it listens.
    #[prost(string, tag = "1")]
    pub host: String,
    /// Where it listens.
    #[prost(uint32, tag = "2")]
    pub port: u32,
    /// TLS certificate in PEM.
    #[prost(bytes = "vec", tag = "3")]
    pub client_tls_cert: Vec<u8>,
    /// TLS certificate in PEM.
    #[prost(bytes = "vec", tag = "4")]
    pub server_tls_cert: Vec<u8>,
}

/// `etcdraft.Options`.
#[derive(Clone, PartialEq, Eq, prost::Message)]
pub struct RaftOptions {
    /// In Go's notation.
    #[prost(string, tag = "1")]
    pub tick_interval: String,
    /// Ticks.
    #[prost(uint32, tag = "2")]
    pub election_tick: u32,
    /// Ticks.
    #[prost(uint32, tag = "3")]
    pub heartbeat_tick: u32,
    /// Blocks in flight.
    #[prost(uint32, tag = "4")]
    pub max_inflight_blocks: u32,
    /// Bytes.
    #[prost(uint32, tag = "5")]
    pub snapshot_interval_size: u32,
}

/// `orderer.BroadcastResponse`.
#[derive(Clone, PartialEq, Eq, prost::Message)]
pub struct BroadcastResponse {
    /// A `common.Status`.
    #[prost(enumeration = "super::common::Status", tag = "1")]
    pub status: i32,
    /// Why, in words.
    #[prost(string, tag = "2")]
    pub info: String,
}

/// `orderer.SeekNewest`.
#[derive(Clone, Copy, PartialEq, Eq, prost::Message)]
pub struct SeekNewest {}

/// `orderer.SeekOldest`.
#[derive(Clone, Copy, PartialEq, Eq, prost::Message)]
pub struct SeekOldest {}

/// `orderer.SeekSpecified`.
#[derive(Clone, Copy, PartialEq, Eq, prost::Message)]
pub struct SeekSpecified {
    /// Block number; as a stop, `u64::MAX` means without end.
    #[prost(uint64, tag = "1")]
    pub number: u64,
}

/// `orderer.SeekNextCommit`.
#[derive(Clone, Copy, PartialEq, Eq, prost::Message)]
pub struct SeekNextCommit {}

/// `orderer.SeekPosition`.
#[derive(Clone, Copy, PartialEq, Eq, prost::Message)]
pub struct SeekPosition {
    /// Which block.
    #[prost(oneof = "seek_position::Type", tags = "1, 2, 3, 4")]
    pub r#type: Option<seek_position::Type>,
}

/// Types nested in [`SeekPosition`].
pub mod seek_position {
    /// Kind of a position.
    #[derive(Clone, Copy, PartialEq, Eq, prost::Oneof)]
    pub enum Type {
        /// The tip when the request arrives.
        #[prost(message, tag = "1")]
        Newest(super::SeekNewest),
        /// Block 0.
        #[prost(message, tag = "2")]
        Oldest(super::SeekOldest),
        /// A number.
        #[prost(message, tag = "3")]
        Specified(super::SeekSpecified),
        /// The next block to be committed; a start only.
        #[prost(message, tag = "4")]
        NextCommit(super::SeekNextCommit),
    }
}

impl SeekPosition {
    /// The tip.
    pub fn newest() -> Self {
        Self { r#type: Some(seek_position::Type::Newest(SeekNewest {})) }
    }

    /// Block 0.
    pub fn oldest() -> Self {
        Self { r#type: Some(seek_position::Type::Oldest(SeekOldest {})) }
    }

    /// Block `number`.
    pub fn specified(number: u64) -> Self {
        Self { r#type: Some(seek_position::Type::Specified(SeekSpecified { number })) }
    }
}

/// `orderer.SeekInfo`: the data of an envelope of type DELIVER_SEEK_INFO.
#[derive(Clone, Copy, PartialEq, Eq, prost::Message)]
pub struct SeekInfo {
    /// First block.
    #[prost(message, optional, tag = "1")]
    pub start: Option<SeekPosition>,
    /// Last block.
    #[prost(message, optional, tag = "2")]
    pub stop: Option<SeekPosition>,
    /// A [`SeekBehavior`].
    #[prost(enumeration = "SeekBehavior", tag = "3")]
    pub behavior: i32,
    /// A [`SeekErrorResponse`].
    #[prost(enumeration = "SeekErrorResponse", tag = "4")]
    pub error_response: i32,
    /// A [`SeekContentType`].
    #[prost(enumeration = "SeekContentType", tag = "5")]
    pub content_type: i32,
}

impl SeekInfo {
    /// What a peer asks for: every block from `start` on, without end, waiting for those that do not exist yet.
    pub fn from_number(start: u64) -> Self {
        Self {
            start: Some(SeekPosition::specified(start)),
            stop: Some(SeekPosition::specified(u64::MAX)),
            behavior: SeekBehavior::BlockUntilReady.into(),
            error_response: SeekErrorResponse::Strict.into(),
            content_type: SeekContentType::Block.into(),
        }
    }

    /// The header of the newest block alone, with its signatures.
    pub fn newest_header() -> Self {
        Self {
            start: Some(SeekPosition::newest()),
            stop: Some(SeekPosition::newest()),
            behavior: SeekBehavior::FailIfNotReady.into(),
            error_response: SeekErrorResponse::Strict.into(),
            content_type: SeekContentType::HeaderWithSig.into(),
        }
    }
}

/// `orderer.SeekInfo.SeekBehavior`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord, prost::Enumeration)]
#[repr(i32)]
pub enum SeekBehavior {
    /// Wait for blocks that do not exist yet.
    BlockUntilReady = 0,
    /// End with NOT_FOUND instead.
    FailIfNotReady = 1,
}

/// `orderer.SeekInfo.SeekErrorResponse`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord, prost::Enumeration)]
#[repr(i32)]
pub enum SeekErrorResponse {
    /// SERVICE_UNAVAILABLE while the orderer has no quorum.
    Strict = 0,
    /// Serve what there is.
    BestEffort = 1,
}

/// `orderer.SeekInfo.SeekContentType`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord, prost::Enumeration)]
#[repr(i32)]
pub enum SeekContentType {
    /// Whole blocks.
    Block = 0,
    /// Without data, except config blocks.
    HeaderWithSig = 1,
}

/// `orderer.DeliverResponse`.
#[derive(Clone, PartialEq, prost::Message)]
pub struct DeliverResponse {
    /// A block, or how the range ended.
    #[prost(oneof = "deliver_response::Type", tags = "1, 2")]
    pub r#type: Option<deliver_response::Type>,
}

/// Types nested in [`DeliverResponse`].
pub mod deliver_response {
    use bytes::Bytes;

    /// Kind of a response.
    #[derive(Clone, PartialEq, prost::Oneof)]
    pub enum Type {
        /// A `common.Status`; ends a range.
        #[prost(enumeration = "super::super::common::Status", tag = "1")]
        Status(i32),
        /// A marshalled `common.Block`.
        #[prost(bytes = "bytes", tag = "2")]
        Block(Bytes),
    }
}

impl DeliverResponse {
    /// A response holding a marshalled block.
    pub fn block(encoded: Bytes) -> Self {
        Self { r#type: Some(deliver_response::Type::Block(encoded)) }
    }

    /// A response that ends a range.
    pub fn status(status: super::common::Status) -> Self {
        Self { r#type: Some(deliver_response::Type::Status(status.into())) }
    }
}
