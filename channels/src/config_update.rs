//! From one channel config to the next (Fabric: `common/configtx`).
//!
//! A config block carries the whole new config *and* the update that led to it, signed by administrators. That orderers
//! signed the block does not make the change legitimate: every peer applies the update to its own config and compares.
//! [`ChannelConfig::next`] accepts a config block if
//!
//! 1. it is of the same channel, later than the current config block, and its sequence is the current one plus one;
//! 2. every element of the update's *read set* exists at the version it states;
//! 3. the elements of the *write set* whose version differs from the read set (the *delta set*) are not none; each that
//!    exists is raised by exactly one version and its current `mod_policy` is satisfied by the update's signatures; each
//!    that does not exist has version 0; each names a well-formed `mod_policy` itself;
//! 4. laying the delta set over the current config gives exactly the config that the block carries;
//! 5. that config is usable ([`ChannelConfig::from_block`]), and no organisation of it has changed its MSP ID (Fabric:
//!    `channelconfig.Bundle.ValidateNew`).
//!
//! A new element needs no policy of its own: which members a group has is part of the group, whose version must rise
//! for that, and this takes the group's `mod_policy`. A new element that no group lists has no effect, and is no error,
//! in Fabric and here. The signature of the envelope around the update is the submitter's and not looked at, as in
//! Fabric.
//!
//! # Bounds
//! Trees come from one block, whose size is bounded. [`UPDATE_SIGNATURES_MAX`] signatures are looked at; policies are
//! evaluated once per distinct path, whatever the number of changed elements.

mod compute;
mod elements;

use std::collections::BTreeMap;

use grapevine_crypto::{Identity, MspId};
use prost::Message as _;

use crate::block::{AuthenticBlock, Block};
use crate::config::{ChannelConfig, ConfigError, OrgConfig};
use crate::policy::{PolicyError, SignedData};
use crate::proto::common::{Envelope, HeaderType, SignatureHeader};
use crate::proto::configtx::{Config, ConfigEnvelope, ConfigUpdate, ConfigUpdateEnvelope};
use crate::transaction::{TransactionError, transaction_payload};
pub use compute::{compute_update, sign_update};
use elements::{Element, Elements};

/// Most signatures of a config update that are looked at: far more than organisations times administrators.
pub const UPDATE_SIGNATURES_MAX: usize = 1024;

/// A config that does not follow from the one before.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum ConfigUpdateError {
    /// Of another channel.
    #[error("the config update is for channel {0}")]
    OtherChannel(String),
    /// Not the config after the current one.
    #[error("the config has sequence {actual}, expected {expected}")]
    Sequence {
        /// Current sequence plus one.
        expected: u64,
        /// Sequence in the block.
        actual: u64,
    },
    /// Not later than the current config block.
    #[error("the current config is that of block {0} already")]
    NotLater(u64),
    /// The update or a part of it is missing or cannot be decoded.
    #[error("the config update cannot be decoded: {0}")]
    Decode(String),
    /// The envelope around the update cannot be parsed.
    #[error("the config update cannot be parsed: {0}")]
    Envelope(#[from] TransactionError),
    /// The last update is of another type.
    #[error("the last update has header type {0}, not CONFIG_UPDATE")]
    NotAnUpdate(i32),
    /// More than [`UPDATE_SIGNATURES_MAX`] signatures.
    #[error("the config update has more than {UPDATE_SIGNATURES_MAX} signatures")]
    TooManySignatures,
    /// A name that is not allowed.
    #[error("{0} has a name outside [a-zA-Z0-9.-]+")]
    Name(String),
    /// Groups nested deeper than any config.
    #[error("{0} is nested too deep")]
    TooDeep(String),
    /// The update was made for an earlier config.
    #[error("the update reads {element} at version {read}, it is at {}", version.map_or("none".to_owned(), |version| version.to_string()))]
    ReadSet {
        /// The element.
        element: String,
        /// Version in the read set.
        read: u64,
        /// Version in the current config, if it exists.
        version: Option<u64>,
    },
    /// The update changes nothing.
    #[error("the update changes nothing")]
    Empty,
    /// A version other than the next.
    #[error("the update sets {element} to version {written}, expected {expected}")]
    Version {
        /// The element.
        element: String,
        /// Version in the write set.
        written: u64,
        /// Current version plus one, or 0 for a new element.
        expected: u64,
    },
    /// A changed element names no well-formed `mod_policy`.
    #[error("the update gives {element} the malformed mod_policy {mod_policy:?}")]
    ModPolicy {
        /// The element.
        element: String,
        /// What it names.
        mod_policy: String,
    },
    /// Not enough administrators signed.
    #[error("the change of {element} is not allowed: {source}")]
    Unauthorized {
        /// The element.
        element: String,
        /// Which policy is not satisfied.
        source: PolicyError,
    },
    /// A group of the result lists a member that is nowhere.
    #[error("the update lists {0}, which does not exist")]
    Nowhere(String),
    /// An organisation would become another one.
    #[error("the update changes the MSP ID of {0}; add a new organisation instead")]
    MspIdChanged(String),
    /// The result does not parse as a channel config.
    #[error("the update leads to a config that cannot be used: {0}")]
    Unusable(String),
    /// The block carries another config than the update leads to.
    #[error("the update does not lead to the config that the block carries")]
    OtherResult,
}

impl ChannelConfig {
    /// The config that an authentic config block brings in after this one. See [`crate::config_update`] for the rules.
    pub fn next(&self, block: &AuthenticBlock) -> Result<Self, ConfigError> {
        let number = block.number();
        let update = |source| ConfigError::Update { number, source };
        let next = Self::from_block(block.block())?;
        if next.channel_id() != self.channel_id() {
            return Err(update(ConfigUpdateError::OtherChannel(next.channel_id().to_string())));
        }
        if number <= self.config_block_number() {
            return Err(update(ConfigUpdateError::NotLater(self.config_block_number())));
        }
        let last_update = last_update(block.block()).map_err(update)?;
        let expected = propose(self, &last_update).map_err(update)?;
        if next.sequence() != expected.sequence {
            let (expected, actual) = (expected.sequence, next.sequence());
            return Err(update(ConfigUpdateError::Sequence { expected, actual }));
        }
        if next.config().channel_group != expected.channel_group {
            return Err(update(ConfigUpdateError::OtherResult));
        }
        check_msp_ids(self, &next).map_err(update)?;
        Ok(next)
    }

    /// The config envelope that an orderer puts into a block for a submitted envelope of type CONFIG_UPDATE (Fabric:
    /// `configtx.ProposeConfigUpdate`): the new config and the update itself. [`Self::next`] accepts it.
    pub fn propose_update(&self, update: &Envelope) -> Result<ConfigEnvelope, ConfigUpdateError> {
        let config = propose(self, update)?;
        let number = self.config_block_number().saturating_add(1);
        let next = Self::from_config(self.channel_id().clone(), number, config.clone());
        let next = next.map_err(|error| ConfigUpdateError::Unusable(error.to_string()))?;
        check_msp_ids(self, &next)?;
        Ok(ConfigEnvelope { config: Some(config), last_update: Some(update.clone()) })
    }
}

/// The organisation in a group stays the same one.
fn check_msp_ids(current: &ChannelConfig, next: &ChannelConfig) -> Result<(), ConfigUpdateError> {
    let groups = [
        (current.orderer_orgs(), next.orderer_orgs()),
        (current.application_orgs(), next.application_orgs()),
    ];
    for (current, next) in groups {
        for (msp_id, organization) in next {
            let same_group = |(_, other): &(&MspId, &OrgConfig)| other.name == organization.name;
            if current.iter().find(same_group).is_some_and(|(other, _)| other != msp_id) {
                return Err(ConfigUpdateError::MspIdChanged(organization.name.clone()));
            }
        }
    }
    Ok(())
}

/// The update that a config block carries, for people to read.
pub(crate) fn carried_update(block: &Block) -> Result<ConfigUpdate, ConfigUpdateError> {
    open_update(&last_update(block)?).map(|(_, update)| update)
}

fn last_update(block: &Block) -> Result<Envelope, ConfigUpdateError> {
    let missing = || ConfigUpdateError::Decode("there is none in the block".to_owned());
    let transaction = block.transactions().first().ok_or_else(missing)?;
    let view = transaction_payload(transaction)?;
    let envelope = ConfigEnvelope::decode(view.payload).map_err(decode_error)?;
    envelope.last_update.ok_or_else(missing)
}

fn open_update(update: &Envelope) -> Result<(ConfigUpdateEnvelope, ConfigUpdate), ConfigUpdateError> {
    let view = transaction_payload(&update.encode_to_vec().into())?;
    if view.header_type != HeaderType::ConfigUpdate as i32 {
        return Err(ConfigUpdateError::NotAnUpdate(view.header_type));
    }
    let envelope = ConfigUpdateEnvelope::decode(view.payload).map_err(decode_error)?;
    let update = ConfigUpdate::decode(envelope.config_update.as_slice()).map_err(decode_error)?;
    Ok((envelope, update))
}

/// Applies an update to a config; all rules but the comparison with what a block carries.
fn propose(current: &ChannelConfig, update: &Envelope) -> Result<Config, ConfigUpdateError> {
    let (envelope, update) = open_update(update)?;
    if update.channel_id != current.channel_id().as_str() {
        return Err(ConfigUpdateError::OtherChannel(update.channel_id.chars().take(64).collect()));
    }
    let root = current.config().channel_group.clone().unwrap_or_default();
    let existing = Elements::of(&root)?;
    let read_set = Elements::of(&update.read_set.unwrap_or_default())?;
    let write_set = Elements::of(&update.write_set.unwrap_or_default())?;
    check_read_set(&existing, &read_set)?;
    let delta = delta_set(&read_set, &write_set);
    check_delta_set(current, &existing, &delta, &envelope)?;
    let mut result = existing;
    result.extend(&delta);
    let channel_group = result.assemble()?;
    let sequence = current.sequence().saturating_add(1);
    Ok(Config { sequence, channel_group: Some(channel_group) })
}

fn check_read_set(existing: &Elements, read_set: &Elements) -> Result<(), ConfigUpdateError> {
    for (key, element) in read_set.iter() {
        let version = existing.find(key).map(Element::version);
        if version != Some(element.version()) {
            let read = element.version();
            return Err(ConfigUpdateError::ReadSet { element: key.to_string(), read, version });
        }
    }
    Ok(())
}

/// What the update changes: elements of the write set that the read set has not, or at another version.
fn delta_set(read_set: &Elements, write_set: &Elements) -> Elements {
    let changed = |(key, element): &(&elements::Key, &Element)| {
        read_set.find(key).map(Element::version) != Some(element.version())
    };
    write_set.iter().filter(changed).map(|(key, element)| (key.clone(), element.clone())).collect()
}

fn check_delta_set(
    current: &ChannelConfig,
    existing: &Elements,
    delta: &Elements,
    envelope: &ConfigUpdateEnvelope,
) -> Result<(), ConfigUpdateError> {
    if delta.is_empty() {
        return Err(ConfigUpdateError::Empty);
    }
    let signatures = signed_data(envelope)?;
    let signers = current.verified_signers(&signatures);
    let identities: Vec<&Identity> = signers.iter().map(|signer| &signer.identity).collect();
    let mut evaluated: BTreeMap<String, Result<(), PolicyError>> = BTreeMap::new();
    for (key, element) in delta.iter() {
        if !elements::is_valid_mod_policy(element.mod_policy()) {
            let mod_policy = element.mod_policy().chars().take(64).collect();
            return Err(ConfigUpdateError::ModPolicy { element: key.to_string(), mod_policy });
        }
        let old = existing.find(key);
        let expected = old.map_or(0, |old| old.version().saturating_add(1));
        if element.version() != expected {
            let written = element.version();
            return Err(ConfigUpdateError::Version { element: key.to_string(), written, expected });
        }
        let Some(old) = old else { continue };
        let path = key.policy_path(old.mod_policy());
        let result = evaluated
            .entry(path)
            .or_insert_with_key(|path| current.evaluate_identities(path, &identities, signatures.len()));
        if let Err(source) = result.clone() {
            return Err(ConfigUpdateError::Unauthorized { element: key.to_string(), source });
        }
    }
    Ok(())
}

/// Administrators sign signature header ‖ update (Fabric: `protoutil.ConfigUpdateEnvelopeAsSignedData`).
fn signed_data(envelope: &ConfigUpdateEnvelope) -> Result<Vec<SignedData>, ConfigUpdateError> {
    if envelope.signatures.len() > UPDATE_SIGNATURES_MAX {
        return Err(ConfigUpdateError::TooManySignatures);
    }
    let signed = envelope.signatures.iter().map(|signature| {
        let header = SignatureHeader::decode(signature.signature_header.as_slice()).map_err(decode_error)?;
        Ok(SignedData {
            data: [signature.signature_header.as_slice(), &envelope.config_update].concat().into(),
            identity: header.creator.into(),
            signature: signature.signature.clone().into(),
        })
    });
    signed.collect()
}

fn decode_error(source: prost::DecodeError) -> ConfigUpdateError {
    ConfigUpdateError::Decode(source.to_string())
}
