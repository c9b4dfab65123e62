//! A block.

use std::sync::Arc;

use bytes::Bytes;
use prost::Message as _;
use serde::Serialize;

use super::difference::{ConfigChange, config_difference, update_difference};
use super::identity::IdentityDescription;
use super::{printable, utc};
use crate::block::Block;
use crate::config::ChannelConfig;
use crate::config_update::carried_update;
use crate::proto::common::{HeaderType, IdentifierHeader, Metadata, MetadataSignature, SignatureHeader};
use crate::sign::signed_bytes;
use crate::transaction::transaction_payload;
use crate::verify::{BlockVerifier, SIGNATURES_MAX};

/// A block as a whole.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct BlockDescription {
    /// Height.
    pub number: u64,
    /// The channel that its first transaction names.
    pub channel: Option<String>,
    /// Hash of the header in hex: the block's identity.
    pub header_hash: String,
    /// Hash of the data as the header says, in hex.
    pub data_hash: String,
    /// Header hash of the block before in hex; empty in block 0.
    pub previous_hash: String,
    /// Bytes of the unit that is stored and sent.
    pub size: usize,
    /// Number of the config block in force, as the orderers signed it; the block itself if it is block 0.
    pub last_config: Option<u64>,
    /// Whether it carries a config.
    pub is_config: bool,
    /// Whether the data belongs to the header.
    pub data_hash_holds: bool,
    /// Whether the orderers signed it by the rules of the config in force; `None` if that config was not at hand, and for
    /// block 0, which has no signatures.
    pub authentic: Option<bool>,
    /// Why it is not authentic.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub problem: Option<String>,
    /// Who claims to have signed it.
    pub signers: Vec<SignerDescription>,
    /// What is in it.
    pub transactions: Vec<TransactionDescription>,
    /// What its config changes of the config before; `None` if it carries none or that one was not at hand.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub config_difference: Option<Vec<ConfigChange>>,
    /// What its config update writes, if the config before was not at hand.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub config_update: Option<Vec<ConfigChange>>,
}

/// A signature on a block.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct SignerDescription {
    /// Who it claims to be of.
    #[serde(flatten)]
    pub identity: IdentityDescription,
    /// The consenter's number, if a BFT orderer signed.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub consenter: Option<u32>,
    /// Whether the signature is that member's; `None` if the config in force was not at hand.
    pub valid: Option<bool>,
}

/// A transaction.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize)]
pub struct TransactionDescription {
    /// Position in the block.
    pub index: usize,
    /// Fabric's name of the header type.
    #[serde(rename = "type")]
    pub kind: String,
    /// The transaction id it claims.
    pub tx_id: String,
    /// Who claims to have made it.
    pub creator: IdentityDescription,
    /// The sender's clock, RFC 3339.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub time: Option<String>,
    /// Bytes of the envelope.
    pub size: usize,
    /// What is wrong with it.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub problem: Option<String>,
}

impl BlockDescription {
    /// Describes a block. `in_force` is the config that its signatures are to be checked under: for a config block, and so
    /// for what it changes, the one before it. `None` leaves both out.
    pub fn new(block: &Block, in_force: Option<&Arc<ChannelConfig>>) -> Self {
        let header = block.header();
        let is_genesis = header.number == 0 && block.is_config();
        let own = if is_genesis { ChannelConfig::from_block(block).ok().map(Arc::new) } else { None };
        let members = in_force.or(own.as_ref());
        let verdict = match in_force {
            Some(config) if header.number > 0 => {
                Some(BlockVerifier::new(Arc::clone(config)).verify(block.clone()))
            }
            _ => None,
        };
        let problem = match &verdict {
            Some(Err(error)) => Some(printable(&error.to_string())),
            _ => None,
        };
        let transactions = block.transactions().iter().enumerate();
        Self {
            number: header.number,
            channel: block.channel_id().ok().map(|channel| channel.to_string()),
            header_hash: block.header_hash().to_string(),
            data_hash: hex::encode(&header.data_hash),
            previous_hash: hex::encode(&header.previous_hash),
            size: block.encoded_length(),
            last_config: block.last_config_index().or_else(|| is_genesis.then_some(0)),
            is_config: block.is_config(),
            data_hash_holds: block.compute_data_hash().as_ref() == header.data_hash,
            authentic: verdict.as_ref().map(Result::is_ok),
            problem,
            signers: signers(block, in_force.map(AsRef::as_ref)),
            transactions: transactions
                .map(|(index, envelope)| transaction(index, envelope, members.map(AsRef::as_ref)))
                .collect(),
            config_update: if in_force.is_none() { update(block) } else { None },
            config_difference: difference(block, in_force.map(AsRef::as_ref)),
        }
    }
}

fn update(block: &Block) -> Option<Vec<ConfigChange>> {
    carried_update(block).ok().map(|update| update_difference(&update))
}

fn difference(block: &Block, before: Option<&ChannelConfig>) -> Option<Vec<ConfigChange>> {
    let before = before?;
    let after = ChannelConfig::from_block(block).ok()?;
    (after.config_block_number() > before.config_block_number()).then(|| config_difference(before, &after))
}

/// At most [`SIGNATURES_MAX`]; a slot that cannot be parsed has none.
fn signers(block: &Block, config: Option<&ChannelConfig>) -> Vec<SignerDescription> {
    let Ok(metadata) = Metadata::decode(block.signatures_metadata().clone()) else { return Vec::new() };
    let signatures = metadata.signatures.iter().take(SIGNATURES_MAX);
    signatures.map(|signature| signer(block, &metadata.value, signature, config)).collect()
}

fn signer(
    block: &Block,
    value: &[u8],
    signature: &MetadataSignature,
    config: Option<&ChannelConfig>,
) -> SignerDescription {
    let by_identifier = signature.signature_header.is_empty() && !signature.identifier_header.is_empty();
    let (signer_header, consenter, serialized) = if by_identifier {
        let header = IdentifierHeader::decode(signature.identifier_header.clone());
        let consenter = header.ok().map(|header| header.identifier);
        let known = config.zip(consenter).and_then(|(config, id)| config.consenters().get(&id));
        (&signature.identifier_header, consenter, known.cloned())
    } else {
        let header = SignatureHeader::decode(signature.signature_header.clone());
        (&signature.signature_header, None, header.ok().map(|header| Bytes::from(header.creator)))
    };
    let holds = |config: &ChannelConfig| {
        let member = serialized.as_ref().and_then(|serialized| config.identify(serialized).ok());
        let signed = signed_bytes(value, signer_header, block.header());
        member.is_some_and(|member| member.verify(&signed, &signature.signature).is_ok())
    };
    let identity = match &serialized {
        Some(serialized) => IdentityDescription::new(serialized, config),
        None => IdentityDescription::default(),
    };
    SignerDescription { identity, consenter, valid: config.map(holds) }
}

fn transaction(index: usize, envelope: &Bytes, config: Option<&ChannelConfig>) -> TransactionDescription {
    let size = envelope.len();
    match transaction_payload(envelope) {
        Ok(view) => TransactionDescription {
            index,
            kind: type_name(view.header_type),
            tx_id: printable(&view.tx_id),
            creator: IdentityDescription::new(&view.creator, config),
            time: view.timestamp_seconds.map(utc),
            size,
            problem: None,
        },
        Err(error) => {
            let problem = Some(printable(&error.to_string()));
            TransactionDescription { index, size, problem, ..TransactionDescription::default() }
        }
    }
}

/// Fabric's name of a header type.
fn type_name(header_type: i32) -> String {
    let name = match HeaderType::try_from(header_type) {
        Ok(HeaderType::Message) => "MESSAGE",
        Ok(HeaderType::Config) => "CONFIG",
        Ok(HeaderType::ConfigUpdate) => "CONFIG_UPDATE",
        Ok(HeaderType::EndorserTransaction) => "ENDORSER_TRANSACTION",
        Ok(HeaderType::OrdererTransaction) => "ORDERER_TRANSACTION",
        Ok(HeaderType::DeliverSeekInfo) => "DELIVER_SEEK_INFO",
        Ok(HeaderType::ChaincodePackage) => "CHAINCODE_PACKAGE",
        Err(_) => return format!("UNKNOWN_{header_type}"),
    };
    name.to_owned()
}
