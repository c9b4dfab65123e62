//! Making the genesis block of a channel, as Fabric's `configtxgen` does with its sample profiles.
//!
//! The tree has the capabilities Channel `V3_0`, Orderer `V2_0` and Application `V2_5`, orderer endpoints with each
//! orderer organisation, and configtxgen's sample policies: Readers and Writers ANY, Admins MAJORITY of the groups
//! below, Endorsement MAJORITY, BlockValidation ANY Writers (crash fault tolerance: one orderer's signature suffices).
//! Organisations with NodeOUs get policies by role, others by membership.
//!
//! Nothing is random here: nonce and time are passed in, and maps are written in order, so equal input gives an equal
//! block.

mod policies;

use std::collections::BTreeMap;

use bytes::Bytes;
use grapevine_crypto::proto::{FabricMspConfig, MspConfig};
use prost::Message;

use crate::block::{Block, BlockHeader};
use crate::channel_id::ChannelId;
use crate::config::{BatchSize, ChannelConfig, ConfigError, Endpoint};
use crate::proto::common::{ChannelHeader, Envelope, Header, HeaderType, Payload, SignatureHeader};
use crate::proto::configtx::{
    BlockDataHashingStructure, Capabilities, Capability, Config, ConfigEnvelope, ConfigGroup, ConfigValue,
    HashingAlgorithm, OrdererAddresses,
};
use crate::proto::orderer::{
    self, BatchTimeout, ChannelRestrictions, ConsensusType, RaftConfigMetadata, RaftConsenter, RaftOptions,
};
use crate::proto::peer::{AnchorPeer, AnchorPeers};
use crate::sign::unsigned_metadata;
use crate::transaction::{NONCE_LENGTH, transaction_id};
use policies::{ADMINS, Rule, application_org_policies, meta_policies, orderer_org_policies};

/// An organisation that runs orderers.
#[derive(Debug, Clone)]
pub struct OrdererOrg {
    /// Name of its group; usually the MSP ID.
    pub name: String,
    /// Verification material.
    pub msp: FabricMspConfig,
    /// `host:port` of each orderer.
    pub endpoints: Vec<String>,
}

/// An organisation whose peers share the channel.
#[derive(Debug, Clone)]
pub struct ApplicationOrg {
    /// Name of its group; usually the MSP ID.
    pub name: String,
    /// Verification material.
    pub msp: FabricMspConfig,
    /// Peers that other organisations may contact first.
    pub anchor_peers: Vec<Endpoint>,
}

/// Describes a channel. See the module for what it does not let choose.
#[derive(Debug, Clone)]
pub struct GenesisBuilder {
    channel_id: ChannelId,
    orderer_orgs: Vec<OrdererOrg>,
    application_orgs: Vec<ApplicationOrg>,
    consenters: Vec<RaftConsenter>,
    batch_size: BatchSize,
    batch_timeout_ms: u64,
    nonce: [u8; NONCE_LENGTH],
    timestamp_seconds: i64,
}

impl GenesisBuilder {
    /// A channel without organisations, with configtxgen's sample batch settings (500 messages, 10 MiB, 2 MiB, 2 s).
    /// `nonce` must be fresh random bytes: it makes two channels of equal description different. `timestamp_seconds` is
    /// Unix time.
    pub fn new(channel_id: ChannelId, nonce: [u8; NONCE_LENGTH], timestamp_seconds: i64) -> Self {
        let batch_size =
            BatchSize { max_message_count: 500, absolute_max_bytes: 10 << 20, preferred_max_bytes: 2 << 20 };
        Self {
            channel_id,
            orderer_orgs: Vec::new(),
            application_orgs: Vec::new(),
            consenters: Vec::new(),
            batch_size,
            batch_timeout_ms: 2_000,
            nonce,
            timestamp_seconds,
        }
    }

    /// Adds an organisation that runs orderers.
    #[must_use]
    pub fn orderer_org(mut self, org: OrdererOrg) -> Self {
        self.orderer_orgs.push(org);
        self
    }

    /// Adds an organisation whose peers share the channel.
    #[must_use]
    pub fn application_org(mut self, org: ApplicationOrg) -> Self {
        self.application_orgs.push(org);
        self
    }

    /// Adds a raft consenter. Fabric's orderers need them, Grapevine does not look at them.
    #[must_use]
    pub fn consenter(mut self, consenter: RaftConsenter) -> Self {
        self.consenters.push(consenter);
        self
    }

    /// How orderers cut blocks.
    #[must_use]
    pub fn batch_size(mut self, batch_size: BatchSize) -> Self {
        self.batch_size = batch_size;
        self
    }

    /// How long an orderer waits for a block to fill, in milliseconds.
    #[must_use]
    pub fn batch_timeout_ms(mut self, batch_timeout_ms: u64) -> Self {
        self.batch_timeout_ms = batch_timeout_ms;
        self
    }

    /// The genesis block. Fails with what a peer would say if it could not use the block, such as an MSP that cannot be
    /// set up or a missing endpoint.
    pub fn build(&self) -> Result<Block, ConfigError> {
        let config = Config { sequence: 0, channel_group: Some(self.channel_group()) };
        let envelope = ConfigEnvelope { config: Some(config), last_update: None };
        let transaction = self.transaction(&envelope);
        let data_hash = grapevine_crypto::sha256(&transaction).0.to_vec();
        let header = BlockHeader { number: 0, previous_hash: Vec::new(), data_hash };
        let block = Block::from_parts(header, vec![transaction], unsigned_metadata(0));
        ChannelConfig::from_block(&block)?;
        Ok(block)
    }

    /// An envelope without creator and signature (Fabric: `genesis.Factory`).
    fn transaction(&self, envelope: &ConfigEnvelope) -> Bytes {
        let channel_header = ChannelHeader {
            r#type: HeaderType::Config.into(),
            version: 1,
            timestamp: Some(prost_types::Timestamp { seconds: self.timestamp_seconds, nanos: 0 }),
            channel_id: self.channel_id.as_str().to_owned(),
            tx_id: transaction_id(&self.nonce, &[]),
            ..ChannelHeader::default()
        };
        let signature_header = SignatureHeader { creator: Vec::new(), nonce: self.nonce.to_vec() };
        let payload = Payload {
            header: Some(Header {
                channel_header: channel_header.encode_to_vec().into(),
                signature_header: signature_header.encode_to_vec().into(),
            }),
            data: envelope.encode_to_vec().into(),
        };
        Envelope { payload: payload.encode_to_vec().into(), signature: Bytes::new() }.encode_to_vec().into()
    }

    fn channel_group(&self) -> ConfigGroup {
        let groups = [("Orderer", self.orderer_group()), ("Application", self.application_group())];
        ConfigGroup {
            groups: groups.into_iter().map(|(name, group)| (name.to_owned(), group)).collect(),
            values: values([
                ("HashingAlgorithm", encode(&HashingAlgorithm { name: "SHA256".to_owned() })),
                ("BlockDataHashingStructure", encode(&BlockDataHashingStructure { width: u32::MAX })),
                ("Capabilities", capabilities("V3_0")),
            ]),
            policies: meta_policies(&[
                ("Readers", "Readers", Rule::Any),
                ("Writers", "Writers", Rule::Any),
                ("Admins", "Admins", Rule::Majority),
            ]),
            ..group()
        }
    }

    fn orderer_group(&self) -> ConfigGroup {
        let batch_size = orderer::BatchSize {
            max_message_count: self.batch_size.max_message_count,
            absolute_max_bytes: self.batch_size.absolute_max_bytes,
            preferred_max_bytes: self.batch_size.preferred_max_bytes,
        };
        let timeout = BatchTimeout { timeout: format!("{}ms", self.batch_timeout_ms) };
        ConfigGroup {
            groups: self.orderer_orgs.iter().map(|org| (org.name.clone(), orderer_org_group(org))).collect(),
            values: values([
                ("ConsensusType", self.consensus_type()),
                ("BatchSize", encode(&batch_size)),
                ("BatchTimeout", encode(&timeout)),
                ("ChannelRestrictions", encode(&ChannelRestrictions { max_count: 0 })),
                ("Capabilities", capabilities("V2_0")),
            ]),
            policies: meta_policies(&[
                ("Readers", "Readers", Rule::Any),
                ("Writers", "Writers", Rule::Any),
                ("Admins", "Admins", Rule::Majority),
                ("BlockValidation", "Writers", Rule::Any),
            ]),
            ..group()
        }
    }

    fn consensus_type(&self) -> Vec<u8> {
        let options = RaftOptions {
            tick_interval: "500ms".to_owned(),
            election_tick: 10,
            heartbeat_tick: 1,
            max_inflight_blocks: 5,
            snapshot_interval_size: 16 << 20,
        };
        let metadata = RaftConfigMetadata { consenters: self.consenters.clone(), options: Some(options) };
        encode(&ConsensusType { r#type: "etcdraft".to_owned(), metadata: encode(&metadata), state: 0 })
    }

    fn application_group(&self) -> ConfigGroup {
        let orgs = self.application_orgs.iter();
        ConfigGroup {
            groups: orgs.map(|org| (org.name.clone(), application_org_group(org))).collect(),
            values: values([("Capabilities", capabilities("V2_5"))]),
            policies: meta_policies(&[
                ("Readers", "Readers", Rule::Any),
                ("Writers", "Writers", Rule::Any),
                ("Admins", "Admins", Rule::Majority),
                ("Endorsement", "Endorsement", Rule::Majority),
                ("LifecycleEndorsement", "Endorsement", Rule::Majority),
            ]),
            ..group()
        }
    }
}

fn orderer_org_group(org: &OrdererOrg) -> ConfigGroup {
    let endpoints = OrdererAddresses { addresses: org.endpoints.clone() };
    ConfigGroup {
        values: values([("MSP", msp(&org.msp)), ("Endpoints", encode(&endpoints))]),
        policies: orderer_org_policies(&org.msp),
        ..group()
    }
}

/// The group of an application organisation in a config tree, all versions 0: what adding it to a channel needs.
pub fn application_org_group(org: &ApplicationOrg) -> ConfigGroup {
    let mut values = values([("MSP", msp(&org.msp))]);
    if !org.anchor_peers.is_empty() {
        let anchors = org.anchor_peers.iter();
        let anchors = anchors.map(|peer| AnchorPeer { host: peer.host.clone(), port: peer.port.into() });
        let anchors = AnchorPeers { anchor_peers: anchors.collect() };
        values.insert("AnchorPeers".to_owned(), config_value(encode(&anchors)));
    }
    ConfigGroup { values, policies: application_org_policies(&org.msp), ..group() }
}

fn msp(config: &FabricMspConfig) -> Vec<u8> {
    // Private keys never belong into a channel config.
    let config = FabricMspConfig { signing_identity: Vec::new(), ..config.clone() };
    encode(&MspConfig { r#type: 0, config: encode(&config) })
}

fn capabilities(name: &str) -> Vec<u8> {
    encode(&Capabilities { capabilities: BTreeMap::from([(name.to_owned(), Capability {})]) })
}

fn group() -> ConfigGroup {
    ConfigGroup { mod_policy: ADMINS.to_owned(), ..ConfigGroup::default() }
}

fn values<const N: usize>(values: [(&str, Vec<u8>); N]) -> BTreeMap<String, ConfigValue> {
    values.into_iter().map(|(name, value)| (name.to_owned(), config_value(value))).collect()
}

fn config_value(value: Vec<u8>) -> ConfigValue {
    ConfigValue { version: 0, value, mod_policy: ADMINS.to_owned() }
}

fn encode(message: &impl Message) -> Vec<u8> {
    message.encode_to_vec()
}
