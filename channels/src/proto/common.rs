//! `common/common.proto`: envelopes, headers, blocks and their metadata.

use bytes::Bytes;

/// `common.HeaderType`: what an envelope carries.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord, prost::Enumeration)]
#[repr(i32)]
pub enum HeaderType {
    /// Opaque message, not interpreted by the ordering service.
    Message = 0,
    /// A channel configuration (`ConfigEnvelope`).
    Config = 1,
    /// A proposed change to a channel configuration (`ConfigUpdateEnvelope`).
    ConfigUpdate = 2,
    /// A client transaction.
    EndorserTransaction = 3,
    /// Deprecated in Fabric.
    OrdererTransaction = 4,
    /// A request to deliver blocks (`SeekInfo`).
    DeliverSeekInfo = 5,
    /// Deprecated in Fabric.
    ChaincodePackage = 6,
}

/// `common.Status`: answers of the ordering service, modelled on HTTP.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord, prost::Enumeration)]
#[repr(i32)]
pub enum Status {
    /// No status was set.
    Unknown = 0,
    /// Done.
    Success = 200,
    /// The request could not be parsed or contradicts itself.
    BadRequest = 400,
    /// The signer may not do this.
    Forbidden = 403,
    /// Unknown channel or block.
    NotFound = 404,
    /// The message is larger than the channel allows.
    RequestEntityTooLarge = 413,
    /// The server failed.
    InternalServerError = 500,
    /// The server does not offer this.
    NotImplemented = 501,
    /// The server cannot serve now; another one may.
    ServiceUnavailable = 503,
}

/// `common.BlockMetadataIndex`: what each slot of [`BlockMetadata`] holds.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord, prost::Enumeration)]
#[repr(i32)]
pub enum BlockMetadataIndex {
    /// Orderer signatures and the value they cover.
    Signatures = 0,
    /// Deprecated; unsigned.
    LastConfig = 1,
    /// Validation codes, written by the committing peer.
    TransactionsFilter = 2,
    /// Deprecated.
    Orderer = 3,
    /// Written by the committing peer.
    CommitHash = 4,
}

/// Number of metadata slots of a block in Fabric.
pub const METADATA_SLOTS: usize = 5;

/// `common.Block`. For parsing blocks from outside use [`crate::block::Block::decode`].
#[derive(Clone, PartialEq, prost::Message)]
pub struct Block {
    /// What is hashed and signed.
    #[prost(message, optional, tag = "1")]
    pub header: Option<BlockHeader>,
    /// The transactions.
    #[prost(message, optional, tag = "2")]
    pub data: Option<BlockData>,
    /// Signatures and what peers add.
    #[prost(message, optional, tag = "3")]
    pub metadata: Option<BlockMetadata>,
}

/// `common.BlockHeader`.
#[derive(Clone, PartialEq, Eq, Hash, prost::Message)]
pub struct BlockHeader {
    /// Height of the block; the genesis block is 0.
    #[prost(uint64, tag = "1")]
    pub number: u64,
    /// Header hash of the block before; empty in the genesis block.
    #[prost(bytes = "vec", tag = "2")]
    pub previous_hash: Vec<u8>,
    /// SHA-256 over the concatenated data entries.
    #[prost(bytes = "vec", tag = "3")]
    pub data_hash: Vec<u8>,
}

/// `common.BlockData`.
#[derive(Clone, PartialEq, prost::Message)]
pub struct BlockData {
    /// Marshalled [`Envelope`]s.
    #[prost(bytes = "bytes", repeated, tag = "1")]
    pub data: Vec<Bytes>,
}

/// `common.BlockMetadata`.
#[derive(Clone, PartialEq, prost::Message)]
pub struct BlockMetadata {
    /// One entry per [`BlockMetadataIndex`].
    #[prost(bytes = "bytes", repeated, tag = "1")]
    pub metadata: Vec<Bytes>,
}

/// `common.Metadata`: a value and who signed it.
#[derive(Clone, PartialEq, prost::Message)]
pub struct Metadata {
    /// In slot 0 a marshalled [`OrdererBlockMetadata`].
    #[prost(bytes = "bytes", tag = "1")]
    pub value: Bytes,
    /// Signatures over value, header of the signature and block header.
    #[prost(message, repeated, tag = "2")]
    pub signatures: Vec<MetadataSignature>,
}

/// `common.MetadataSignature`.
#[derive(Clone, PartialEq, prost::Message)]
pub struct MetadataSignature {
    /// Marshalled [`SignatureHeader`] (crash fault tolerant orderers).
    #[prost(bytes = "bytes", tag = "1")]
    pub signature_header: Bytes,
    /// The signature.
    #[prost(bytes = "bytes", tag = "2")]
    pub signature: Bytes,
    /// Marshalled [`IdentifierHeader`] (Byzantine fault tolerant orderers).
    #[prost(bytes = "bytes", tag = "3")]
    pub identifier_header: Bytes,
}

/// `common.IdentifierHeader`: names a consenter of the channel config.
#[derive(Clone, PartialEq, Eq, prost::Message)]
pub struct IdentifierHeader {
    /// Consenter id.
    #[prost(uint32, tag = "1")]
    pub identifier: u32,
    /// Makes the signed bytes unique.
    #[prost(bytes = "vec", tag = "2")]
    pub nonce: Vec<u8>,
}

/// `common.LastConfig`.
#[derive(Clone, Copy, PartialEq, Eq, prost::Message)]
pub struct LastConfig {
    /// Number of the newest config block up to and including this block.
    #[prost(uint64, tag = "1")]
    pub index: u64,
}

/// `common.OrdererBlockMetadata`: the signed value of metadata slot 0.
#[derive(Clone, PartialEq, prost::Message)]
pub struct OrdererBlockMetadata {
    /// The config in force.
    #[prost(message, optional, tag = "1")]
    pub last_config: Option<LastConfig>,
    /// Private to the consensus type.
    #[prost(bytes = "bytes", tag = "2")]
    pub consenter_metadata: Bytes,
}

/// `common.Envelope`: a payload and its creator's signature over it.
#[derive(Clone, PartialEq, Eq, prost::Message)]
pub struct Envelope {
    /// Marshalled [`Payload`].
    #[prost(bytes = "bytes", tag = "1")]
    pub payload: Bytes,
    /// Signature over `payload` by the creator of the signature header.
    #[prost(bytes = "bytes", tag = "2")]
    pub signature: Bytes,
}

/// `common.Payload`.
#[derive(Clone, PartialEq, Eq, prost::Message)]
pub struct Payload {
    /// Who, where and what.
    #[prost(message, optional, tag = "1")]
    pub header: Option<Header>,
    /// A message chosen by the header type.
    #[prost(bytes = "bytes", tag = "2")]
    pub data: Bytes,
}

/// `common.Header`.
#[derive(Clone, PartialEq, Eq, prost::Message)]
pub struct Header {
    /// Marshalled [`ChannelHeader`].
    #[prost(bytes = "bytes", tag = "1")]
    pub channel_header: Bytes,
    /// Marshalled [`SignatureHeader`].
    #[prost(bytes = "bytes", tag = "2")]
    pub signature_header: Bytes,
}

/// `common.ChannelHeader`.
#[derive(Clone, PartialEq, prost::Message)]
pub struct ChannelHeader {
    /// A [`HeaderType`]; kept as a number because clients may send any.
    #[prost(int32, tag = "1")]
    pub r#type: i32,
    /// Version of the message.
    #[prost(int32, tag = "2")]
    pub version: i32,
    /// The sender's clock.
    #[prost(message, optional, tag = "3")]
    pub timestamp: Option<prost_types::Timestamp>,
    /// The channel.
    #[prost(string, tag = "4")]
    pub channel_id: String,
    /// Hex SHA-256 over nonce and creator.
    #[prost(string, tag = "5")]
    pub tx_id: String,
    /// Always 0.
    #[prost(uint64, tag = "6")]
    pub epoch: u64,
    /// Chaincode header; opaque here.
    #[prost(bytes = "vec", tag = "7")]
    pub extension: Vec<u8>,
    /// SHA-256 of the client's TLS certificate in DER, with mutual TLS.
    #[prost(bytes = "vec", tag = "8")]
    pub tls_cert_hash: Vec<u8>,
}

/// `common.SignatureHeader`.
#[derive(Clone, PartialEq, Eq, prost::Message)]
pub struct SignatureHeader {
    /// Marshalled `msp.SerializedIdentity`.
    #[prost(bytes = "vec", tag = "1")]
    pub creator: Vec<u8>,
    /// 24 random bytes.
    #[prost(bytes = "vec", tag = "2")]
    pub nonce: Vec<u8>,
}
