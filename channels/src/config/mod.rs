//! The configuration of a channel: who its members are, who orders, and which policies hold.
//!
//! A config block carries the whole configuration as a tree of groups, values and policies rooted at `/Channel`
//! (Fabric: `common/channelconfig`, `common/configtx`). [`ChannelConfig::from_block`] parses all of it before any of it
//! is used; afterwards nothing can fail for lack of a group, and the config never changes: a config update gives a new
//! [`ChannelConfig`] ([`ChannelConfig::next`], rules in [`crate::config_update`]).
//!
//! # Refused
//! * An unknown capability: a typed error that says to upgrade, which stops the channel and never the process. Channel
//!   capabilities below `V1_4_3` are refused too, because their weaker identity rules are not implemented.
//! * Groups other than Orderer and Application, groups inside of organisations, names outside `[a-zA-Z0-9.-]+`.
//! * Policies that do not compile, MSPs that cannot be set up, two definitions of one MSP ID, idemix MSPs, hashing of
//!   block data other than flat, orderer organisations without endpoints under `V3_0`.
//!
//! Anchor peers that no one could dial (no host, port out of range) are left out instead: each organisation sets its
//! own, and none may stop the channel for all.
//!
//! # Bounds
//! The tree is as large as one block at most. Each MSP caches identities that it has validated
//! ([`grapevine_crypto::CACHED_IDENTITIES_MAX`]); MSPs live and die with the config, so new CAs and revocations take
//! effect with it.

mod organization;
mod tree;
mod values;

use std::collections::BTreeMap;
use std::sync::Arc;

use bytes::Bytes;
use grapevine_crypto::{Algorithm, Identity, IdentityError, Msp, MspError, MspId};
use prost::Message as _;

pub use organization::{Endpoint, OrdererEndpoint, OrgConfig};
pub(crate) use tree::is_valid_name;
pub use values::{BatchSize, parse_go_duration_ms};

use crate::block::{BLOCK_SIZE_MAX, Block, BlockError};
use crate::channel_id::ChannelId;
use crate::config_update::ConfigUpdateError;
use crate::policy::{Policy, PolicyError, PolicyFormatError, SignedData};
use crate::proto::configtx::{Config, ConfigEnvelope};
use crate::transaction::{TransactionError, transaction_payload};

/// Path of the policy that a block's signatures must satisfy.
pub const BLOCK_VALIDATION: &str = "/Channel/Orderer/BlockValidation";
/// Path of the policy of those who may receive blocks.
pub const CHANNEL_READERS: &str = "/Channel/Readers";
/// Path of the policy of those in the members' organisations who may read.
pub const APPLICATION_READERS: &str = "/Channel/Application/Readers";
/// Path of the policy of those who may submit transactions.
pub const CHANNEL_WRITERS: &str = "/Channel/Writers";
/// Path of the policy of those who may receive blocks from orderers during maintenance.
pub const ORDERER_READERS: &str = "/Channel/Orderer/Readers";
/// Path of the policy of those who may submit config updates during maintenance.
pub const ORDERER_WRITERS: &str = "/Channel/Orderer/Writers";

/// Room for headers and signatures in a block, beyond its data.
const BLOCK_OVERHEAD_MAX: usize = 1 << 20;

/// A config that cannot be used. The channel stops where it is; nothing else does.
#[derive(Debug, thiserror::Error)]
pub enum ConfigError {
    /// The block cannot be parsed far enough.
    #[error(transparent)]
    Block(#[from] BlockError),
    /// The config transaction cannot be parsed.
    #[error("config block {number}: {source}")]
    Transaction {
        /// Block number.
        number: u64,
        /// Why.
        source: TransactionError,
    },
    /// The block holds no config.
    #[error("block {number} is not a config block")]
    NotConfig {
        /// Block number.
        number: u64,
    },
    /// A part of the tree is not the message it should be.
    #[error("channel config: {path} cannot be decoded: {source}")]
    Decode {
        /// Path in the tree.
        path: String,
        /// Why.
        source: prost::DecodeError,
    },
    /// A group or value is missing.
    #[error("channel config: {path} is missing")]
    Missing {
        /// Path in the tree.
        path: String,
    },
    /// A group stands where none may.
    #[error("channel config: the group {path} is not allowed")]
    UnexpectedGroup {
        /// Path in the tree.
        path: String,
    },
    /// A name that is not allowed.
    #[error("channel config: {path} has a name outside [a-zA-Z0-9.-]+")]
    Name {
        /// Path in the tree.
        path: String,
    },
    /// The members of the channel have agreed on something this version does not know.
    #[error(
        "channel config: {path} requires the capability {name}, which this version does not support: upgrade grapevine"
    )]
    UnknownCapability {
        /// Path in the tree.
        path: String,
        /// The capability.
        name: String,
    },
    /// The channel still follows rules that are not implemented.
    #[error(
        "channel config: the channel capability level is {level}; grapevine needs V1_4_3 or higher: have the channel's administrators raise it"
    )]
    CapabilityTooOld {
        /// The highest level set.
        level: String,
    },
    /// A value that makes no sense.
    #[error("channel config: {path}: {reason}")]
    Value {
        /// Path in the tree.
        path: String,
        /// What is wrong.
        reason: String,
    },
    /// An MSP cannot be set up.
    #[error("channel config: {path}: {source}")]
    Msp {
        /// Path in the tree.
        path: String,
        /// Why.
        source: MspError,
    },
    /// One MSP ID with two definitions, or twice in one group.
    #[error("channel config: {path}: the MSP ID {msp_id} is defined elsewhere already")]
    MspConflict {
        /// Path in the tree.
        path: String,
        /// The MSP ID.
        msp_id: MspId,
    },
    /// A policy does not compile.
    #[error("channel config: {path}: {source}")]
    Policy {
        /// Path in the tree.
        path: String,
        /// Why.
        source: PolicyFormatError,
    },
    /// The new config does not follow from the old one.
    #[error("config block {number}: {source}")]
    Update {
        /// Block number.
        number: u64,
        /// Why.
        source: ConfigUpdateError,
    },
}

/// Somebody is not a member of the channel.
#[derive(Debug, thiserror::Error)]
pub enum MemberError {
    /// The bytes are no `msp.SerializedIdentity`.
    #[error("identity cannot be decoded: {0}")]
    Decode(prost::DecodeError),
    /// No organisation of the channel has this MSP ID.
    #[error("{0} is not an organisation of the channel")]
    UnknownMsp(MspId),
    /// Its own organisation does not accept it.
    #[error(transparent)]
    Identity(#[from] IdentityError),
    /// The channel's capabilities do not allow the key.
    #[error("Ed25519 identities need the channel capability V3_0")]
    Algorithm,
}

/// A parsed and complete channel config. See the module.
#[derive(Debug)]
pub struct ChannelConfig {
    channel_id: ChannelId,
    config_block_number: u64,
    config: Config,
    organizations: organization::Organizations,
    values: values::Values,
    policies: BTreeMap<String, Arc<Policy>>,
}

/// An identity whose signature holds, and the position of that signature.
pub(crate) struct VerifiedSigner {
    pub(crate) position: usize,
    pub(crate) identity: Identity,
}

impl ChannelConfig {
    /// The config that a config block carries. Who signed the block is not checked here, nor whether the config follows
    /// from another one ([`Self::next`] does that).
    pub fn from_block(block: &Block) -> Result<Self, ConfigError> {
        let number = block.number();
        let [transaction] = block.transactions() else { return Err(ConfigError::NotConfig { number }) };
        if !block.is_config() {
            return Err(ConfigError::NotConfig { number });
        }
        let view = transaction_payload(transaction);
        let view = view.map_err(|source| ConfigError::Transaction { number, source })?;
        let envelope = ConfigEnvelope::decode(view.payload);
        let envelope =
            envelope.map_err(|source| ConfigError::Decode { path: "config envelope".into(), source })?;
        let config = envelope.config.ok_or_else(|| ConfigError::Missing { path: "config".into() })?;
        Self::from_config(block.channel_id()?, number, config)
    }

    /// A config of its own, without a block around it.
    pub(crate) fn from_config(
        channel_id: ChannelId,
        config_block_number: u64,
        config: Config,
    ) -> Result<Self, ConfigError> {
        let root = config.channel_group.as_ref();
        let root = root.ok_or_else(|| ConfigError::Missing { path: tree::ROOT.into() })?;
        tree::check_shape(root)?;
        let values = values::parse(root)?;
        let organizations = organization::parse(root, &values)?;
        let policies = tree::compile_policies(root)?;
        Ok(Self { channel_id, config_block_number, organizations, values, policies, config })
    }

    /// The channel.
    pub fn channel_id(&self) -> &ChannelId {
        &self.channel_id
    }

    /// Number of updates since the genesis block.
    pub fn sequence(&self) -> u64 {
        self.config.sequence
    }

    /// Number of the block that carries this config.
    pub fn config_block_number(&self) -> u64 {
        self.config_block_number
    }

    /// The tree as it stands in the config block.
    pub fn config(&self) -> &Config {
        &self.config
    }

    /// The organisations whose peers share the channel, by MSP ID.
    pub fn application_orgs(&self) -> &BTreeMap<MspId, OrgConfig> {
        &self.organizations.application
    }

    /// The organisations that run orderers, by MSP ID. They have no anchor peers.
    pub fn orderer_orgs(&self) -> &BTreeMap<MspId, OrgConfig> {
        &self.organizations.orderer
    }

    /// Where blocks can be pulled from.
    pub fn orderer_endpoints(&self) -> &[OrdererEndpoint] {
        &self.organizations.orderer_endpoints
    }

    /// Serialized identity of a BFT consenter by id; empty in channels of other consensus types.
    pub fn consenters(&self) -> &BTreeMap<u32, Bytes> {
        &self.values.consenters
    }

    /// How orderers cut blocks.
    pub fn batch_size(&self) -> BatchSize {
        self.values.batch_size
    }

    /// How long an orderer waits for a block to fill, in milliseconds.
    pub fn batch_timeout_ms(&self) -> u64 {
        self.values.batch_timeout_ms
    }

    /// `etcdraft` or `BFT`.
    pub fn consensus_type(&self) -> &str {
        &self.values.consensus_type
    }

    /// Whether the consensus type is being changed (state MAINTENANCE): orderers take no transactions and serve only their own
    /// organisations.
    pub fn in_maintenance(&self) -> bool {
        self.values.in_maintenance
    }

    /// Absolute path of the policy of those who may receive blocks from orderers.
    pub fn orderer_reader_policy(&self) -> &'static str {
        if self.in_maintenance() { ORDERER_READERS } else { CHANNEL_READERS }
    }

    /// Absolute path of the policy of those who may submit to orderers.
    pub fn orderer_writer_policy(&self) -> &'static str {
        if self.in_maintenance() { ORDERER_WRITERS } else { CHANNEL_WRITERS }
    }

    /// Largest encoded block of this channel in bytes: `absolute_max_bytes` plus 1 MiB, [`BLOCK_SIZE_MAX`] at most.
    pub fn block_size_max(&self) -> usize {
        let data = usize::try_from(self.values.batch_size.absolute_max_bytes).unwrap_or(usize::MAX);
        data.saturating_add(BLOCK_OVERHEAD_MAX).min(BLOCK_SIZE_MAX)
    }

    /// Absolute path of the policy that guards a resource such as `event/Block`: what the channel's ACLs say, else
    /// [`APPLICATION_READERS`], Fabric's default for reading blocks and events.
    pub fn reader_policy(&self, resource: &str) -> &str {
        self.values.acls.get(resource).map_or(APPLICATION_READERS, String::as_str)
    }

    /// The policy at an absolute path such as [`BLOCK_VALIDATION`]; [`Policy::Reject`] if there is none.
    pub fn policy(&self, path: &str) -> &Policy {
        self.policies.get(path).map_or(&Policy::Reject, AsRef::as_ref)
    }

    /// Whether the signatures satisfy the policy at `path`.
    pub fn evaluate(&self, path: &str, signatures: &[SignedData]) -> Result<(), PolicyError> {
        let signers = self.verified_signers(signatures);
        let identities: Vec<&Identity> = signers.iter().map(|signer| &signer.identity).collect();
        self.evaluate_identities(path, &identities, signatures.len())
    }

    /// Whether an identity that proved itself in another way, such as by a handshake, satisfies the policy at `path`.
    pub fn evaluate_identity(&self, path: &str, identity: &Identity) -> Result<(), PolicyError> {
        self.evaluate_identities(path, &[identity], 1)
    }

    pub(crate) fn evaluate_identities(
        &self,
        path: &str,
        identities: &[&Identity],
        signatures: usize,
    ) -> Result<(), PolicyError> {
        let organizations = &self.organizations.msps;
        let holds = self.policy(path).evaluate(identities, &|identity: &&Identity, principal| {
            organizations.get(identity.msp_id()).is_some_and(|msp| msp.satisfies(identity, principal))
        });
        if holds {
            return Ok(());
        }
        let defined = self.policies.contains_key(path);
        Err(PolicyError { path: path.to_owned(), signatures, identities: identities.len(), defined })
    }

    /// The distinct members of the channel that signed, in the order of their first valid signature (Fabric:
    /// `policies.SignatureSetToValidIdentities`). An identity is marked as seen only once a signature of it holds, so
    /// that a wrong signature in front cannot mask a right one.
    pub(crate) fn verified_signers(&self, signatures: &[SignedData]) -> Vec<VerifiedSigner> {
        let mut seen = std::collections::BTreeSet::new();
        let mut signers = Vec::new();
        for (position, signed) in signatures.iter().enumerate() {
            let Ok(identity) = self.identify(&signed.identity) else { continue };
            let key = (identity.msp_id().clone(), identity.certificate().fingerprint());
            if !seen.contains(&key) && identity.verify(&signed.data, &signed.signature).is_ok() {
                seen.insert(key);
                signers.push(VerifiedSigner { position, identity });
            }
        }
        signers
    }

    /// The member that a marshalled `msp.SerializedIdentity` denotes: of an organisation of the channel, application or
    /// orderer, and valid by its MSP. Expiry of the certificate is not checked: blocks outlive it.
    pub fn identify(&self, serialized: &[u8]) -> Result<Identity, MemberError> {
        let named =
            grapevine_crypto::proto::SerializedIdentity::decode(serialized).map_err(MemberError::Decode)?;
        let msp_id = MspId::from(named.mspid);
        let msp = self.msp(&msp_id).ok_or(MemberError::UnknownMsp(msp_id))?;
        let identity = msp.identify(serialized)?;
        let algorithm = identity.certificate().public_key().algorithm();
        if algorithm == Algorithm::Ed25519 && !self.values.ed25519_allowed {
            return Err(MemberError::Algorithm);
        }
        Ok(identity)
    }

    /// The MSP of an organisation of the channel, application or orderer.
    pub fn msp(&self, msp_id: &MspId) -> Option<&Arc<Msp>> {
        self.organizations.msps.get(msp_id)
    }
}
