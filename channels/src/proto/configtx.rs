//! `common/configtx.proto` and `common/configuration.proto`: the configuration tree of a channel and the values in it.

use std::collections::BTreeMap;

use super::common::Envelope;
use super::policies::Policy;

/// `common.ConfigEnvelope`: the data of a config transaction.
#[derive(Clone, PartialEq, prost::Message)]
pub struct ConfigEnvelope {
    /// The whole new config.
    #[prost(message, optional, tag = "1")]
    pub config: Option<Config>,
    /// The envelope of type CONFIG_UPDATE that led to it; absent in the genesis block.
    #[prost(message, optional, tag = "2")]
    pub last_update: Option<Envelope>,
}

/// `common.Config`.
#[derive(Clone, PartialEq, prost::Message)]
pub struct Config {
    /// Number of updates since the genesis block.
    #[prost(uint64, tag = "1")]
    pub sequence: u64,
    /// The tree, rooted at `/Channel`.
    #[prost(message, optional, tag = "2")]
    pub channel_group: Option<ConfigGroup>,
}

/// `common.ConfigUpdateEnvelope`.
#[derive(Clone, PartialEq, prost::Message)]
pub struct ConfigUpdateEnvelope {
    /// Marshalled [`ConfigUpdate`].
    #[prost(bytes = "vec", tag = "1")]
    pub config_update: Vec<u8>,
    /// Signatures over signature header and config update.
    #[prost(message, repeated, tag = "2")]
    pub signatures: Vec<ConfigSignature>,
}

/// `common.ConfigUpdate`.
#[derive(Clone, PartialEq, prost::Message)]
pub struct ConfigUpdate {
    /// The channel to change.
    #[prost(string, tag = "1")]
    pub channel_id: String,
    /// Elements, by version only, that the update builds on.
    #[prost(message, optional, tag = "2")]
    pub read_set: Option<ConfigGroup>,
    /// Elements with raised versions are changed.
    #[prost(message, optional, tag = "3")]
    pub write_set: Option<ConfigGroup>,
}

/// `common.ConfigSignature`.
#[derive(Clone, PartialEq, Eq, prost::Message)]
pub struct ConfigSignature {
    /// Marshalled `common.SignatureHeader`.
    #[prost(bytes = "vec", tag = "1")]
    pub signature_header: Vec<u8>,
    /// Signature over `signature_header ‖ config_update`.
    #[prost(bytes = "vec", tag = "2")]
    pub signature: Vec<u8>,
}

/// `common.ConfigGroup`: an inner node of the tree.
#[derive(Clone, PartialEq, prost::Message)]
pub struct ConfigGroup {
    /// Raised by one when members are added to or removed from the maps below.
    #[prost(uint64, tag = "1")]
    pub version: u64,
    /// Sub-groups.
    #[prost(btree_map = "string, message", tag = "2")]
    pub groups: BTreeMap<String, Self>,
    /// Values.
    #[prost(btree_map = "string, message", tag = "3")]
    pub values: BTreeMap<String, ConfigValue>,
    /// Policies.
    #[prost(btree_map = "string, message", tag = "4")]
    pub policies: BTreeMap<String, ConfigPolicy>,
    /// Name or path of the policy that must hold to change this group.
    #[prost(string, tag = "5")]
    pub mod_policy: String,
}

/// `common.ConfigValue`.
#[derive(Clone, PartialEq, Eq, prost::Message)]
pub struct ConfigValue {
    /// Raised by one with each change.
    #[prost(uint64, tag = "1")]
    pub version: u64,
    /// Marshalled message named by the key.
    #[prost(bytes = "vec", tag = "2")]
    pub value: Vec<u8>,
    /// Name or path of the policy that must hold to change this value.
    #[prost(string, tag = "3")]
    pub mod_policy: String,
}

/// `common.ConfigPolicy`.
#[derive(Clone, PartialEq, prost::Message)]
pub struct ConfigPolicy {
    /// Raised by one with each change.
    #[prost(uint64, tag = "1")]
    pub version: u64,
    /// The policy.
    #[prost(message, optional, tag = "2")]
    pub policy: Option<Policy>,
    /// Name or path of the policy that must hold to change this policy.
    #[prost(string, tag = "3")]
    pub mod_policy: String,
}

/// `common.HashingAlgorithm`. Fabric hashes blocks with SHA-256 whatever stands here.
#[derive(Clone, PartialEq, Eq, prost::Message)]
pub struct HashingAlgorithm {
    /// `SHA256`.
    #[prost(string, tag = "1")]
    pub name: String,
}

/// `common.BlockDataHashingStructure`.
#[derive(Clone, Copy, PartialEq, Eq, prost::Message)]
pub struct BlockDataHashingStructure {
    /// Width of the Merkle tree; only 2^32 - 1 (flat concatenation) is in use.
    #[prost(uint32, tag = "1")]
    pub width: u32,
}

/// `common.OrdererAddresses`; also the value `Endpoints` of an orderer organisation.
#[derive(Clone, PartialEq, Eq, prost::Message)]
pub struct OrdererAddresses {
    /// `host:port` each.
    #[prost(string, repeated, tag = "1")]
    pub addresses: Vec<String>,
}

/// `common.Capabilities`.
#[derive(Clone, PartialEq, prost::Message)]
pub struct Capabilities {
    /// Names of features every member must understand.
    #[prost(btree_map = "string, message", tag = "1")]
    pub capabilities: BTreeMap<String, Capability>,
}

/// `common.Capability`: empty.
#[derive(Clone, Copy, PartialEq, Eq, prost::Message)]
pub struct Capability {}

/// `common.Orderers`: the consenter set of a BFT channel.
#[derive(Clone, PartialEq, prost::Message)]
pub struct Orderers {
    /// Its members.
    #[prost(message, repeated, tag = "1")]
    pub consenter_mapping: Vec<Consenter>,
}

/// `common.Consenter`.
#[derive(Clone, PartialEq, Eq, prost::Message)]
pub struct Consenter {
    /// Named by `common.IdentifierHeader`.
    #[prost(uint32, tag = "1")]
    pub id: u32,
    /// Where it listens.
    #[prost(string, tag = "2")]
    pub host: String,
    /// Where it listens.
    #[prost(uint32, tag = "3")]
    pub port: u32,
    /// Its organisation.
    #[prost(string, tag = "4")]
    pub msp_id: String,
    /// Its enrolment certificate in PEM.
    #[prost(bytes = "vec", tag = "5")]
    pub identity: Vec<u8>,
    /// TLS client certificate in PEM.
    #[prost(bytes = "vec", tag = "6")]
    pub client_tls_cert: Vec<u8>,
    /// TLS server certificate in PEM.
    #[prost(bytes = "vec", tag = "7")]
    pub server_tls_cert: Vec<u8>,
}
