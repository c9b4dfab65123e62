//! Telling authentic blocks from everything else.
//!
//! A block is *authentic* if, under the channel config in force for its height, its orderers signed it:
//!
//! 1. it is not block 0, and its first transaction names the channel;
//! 2. the *signed* value of metadata slot 0 names a config: that of this verifier, or, in a config block, the block
//!    itself; nothing unsigned is believed, in particular not metadata slot 1;
//! 3. its data hash is that of its data, and each transaction is encoded as Go would encode it (CVE-2023-46132; see
//!    [`crate::transaction::check_canonical`]);
//! 4. its signatures satisfy `/Channel/Orderer/BlockValidation` (Fabric: `protoutil.BlockSignatureVerifier`). A signature
//!    with a signature header is by that header's creator; one with an identifier header alone is by the BFT consenter of
//!    that id in the config. A header that cannot be parsed fails the block, an unknown signer or a wrong signature does
//!    not count.
//!
//! That it *links*, number and previous hash, is checked where it is committed. Blocks that name a config which is not
//! yet known give [`VerifyError::OtherConfig`]: wait for that config block and ask its verifier. A config block is
//! verified under the config before it; whether its content is a valid update says
//! [`crate::config::ChannelConfig::next`].
//!
//! # Headers first
//! A header with its slot 0 is verified alone ([`BlockVerifier::verify_header`]): 2 and 4 hold without the data. A block whose header is
//! verified already is checked against it ([`BlockVerifier::verify_body`]): 1 and 3, without any signature.
//!
//! # What is kept
//! The [`AuthenticBlock`] carries in slot 0 the signed value and only signatures that hold, one per identity, and only
//! those of orderer organisations if they suffice. So whatever a sender adds to a block goes no further than one hop.
//!
//! # Bounds
//! At most [`SIGNATURES_MAX`] signatures are looked at, checked before anything is allocated for them. Cheap checks
//! come first; signatures last.

use std::sync::Arc;

use bytes::Bytes;
use grapevine_crypto::{Digest, Identity};
use prost::Message as _;

use crate::block::{
    AuthenticBlock, Block, BlockError, BlockHeader, authentic::check_data_hash, last_config_index,
};
use crate::channel_id::ChannelId;
use crate::config::{BLOCK_VALIDATION, ChannelConfig, VerifiedSigner};
use crate::policy::{PolicyError, SignedData};
use crate::proto::common::{IdentifierHeader, Metadata, MetadataSignature, SignatureHeader};
use crate::protobuf::Fields;
use crate::sign::signed_bytes;
use crate::transaction::{TransactionError, check_transactions};

/// Most signatures on a block. Fabric's BFT needs a quorum of the consenters; this allows for 128 of them.
pub const SIGNATURES_MAX: usize = 128;

/// Memory of a header beside its slot 0: the parsed block and its hashes.
const HEADER_MEMORY: usize = 320;

/// Why a block is not authentic.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum VerifyError {
    /// It cannot be parsed far enough, or its data does not belong to its header.
    #[error(transparent)]
    Block(#[from] BlockError),
    /// Block 0 has no signatures; it comes from the operator.
    #[error("block 0 cannot be verified: it has no signatures")]
    Genesis,
    /// Of another channel.
    #[error("block {number} is of channel {actual}, not of {expected}")]
    OtherChannel {
        /// Block number.
        number: u64,
        /// Channel of the verifier.
        expected: ChannelId,
        /// Channel in the block.
        actual: ChannelId,
    },
    /// Slot 0 or a header in it cannot be parsed.
    #[error("block {number}: signatures metadata cannot be parsed: {reason}")]
    Metadata {
        /// Block number.
        number: u64,
        /// What is wrong.
        reason: String,
    },
    /// More than [`SIGNATURES_MAX`] signatures.
    #[error("block {number} has more than {SIGNATURES_MAX} signatures")]
    TooManySignatures {
        /// Block number.
        number: u64,
    },
    /// The signed value does not say which config is in force.
    #[error("block {number} does not say which config block is in force")]
    NoLastConfig {
        /// Block number.
        number: u64,
    },
    /// It belongs under another config than this verifier's; another verifier may accept it.
    #[error(
        "block {number} was made under the config of block {last_config}, this verifier has that of block {config}"
    )]
    OtherConfig {
        /// Block number.
        number: u64,
        /// The config it names.
        last_config: u64,
        /// The config of the verifier.
        config: u64,
    },
    /// Another block than the one whose header was verified.
    #[error("block {number} is not the one whose header was verified")]
    OtherHeader {
        /// Block number.
        number: u64,
    },
    /// A config transaction in a block whose signed value says that it is none, or the reverse.
    #[error("block {number}: the signed last config index {last_config} contradicts the transactions")]
    ConfigMismatch {
        /// Block number.
        number: u64,
        /// The config it names.
        last_config: u64,
    },
    /// A transaction that is not encoded canonically.
    #[error("block {number}, transaction {index}: {source}")]
    Transaction {
        /// Block number.
        number: u64,
        /// Position in the block.
        index: usize,
        /// Why.
        source: TransactionError,
    },
    /// Not enough orderers signed.
    #[error("block {number}: {source}")]
    Policy {
        /// Block number.
        number: u64,
        /// What is missing.
        source: PolicyError,
    },
}

/// A header that its channel's orderers signed. Cheap to clone. Like [`AuthenticBlock`] it comes from the verifier alone, but for
/// simulations.
#[derive(Debug, Clone)]
pub struct VerifiedHeader {
    /// The block without its data.
    block: Block,
    is_config: bool,
}

impl VerifiedHeader {
    /// A header that nobody signed: for simulations and for tests of the state machines.
    pub fn simulated(header: BlockHeader) -> Self {
        Self { block: Block::from_parts(header, Vec::new(), Bytes::new()), is_config: false }
    }

    /// The same as the header of a config block: for tests of the state machines.
    #[cfg(test)]
    pub(crate) fn simulated_config(header: BlockHeader) -> Self {
        Self { is_config: true, ..Self::simulated(header) }
    }

    /// Height.
    pub fn number(&self) -> u64 {
        self.block.number()
    }

    /// Header hash: the block's identity.
    pub fn hash(&self) -> Digest {
        self.block.header_hash()
    }

    /// Header hash of the block before.
    pub fn previous_hash(&self) -> Option<Digest> {
        Digest::try_from(self.block.header().previous_hash.as_slice()).ok()
    }

    /// Whether the block changes the channel's configuration: what follows is signed under its config.
    pub fn is_config(&self) -> bool {
        self.is_config
    }

    /// Bytes it takes in memory, about.
    pub fn memory(&self) -> usize {
        self.block.signatures_metadata().len().saturating_add(HEADER_MEMORY)
    }
}

impl PartialEq for VerifiedHeader {
    /// Same header hash; signatures may differ.
    fn eq(&self, other: &Self) -> bool {
        self.hash() == other.hash()
    }
}

impl Eq for VerifiedHeader {}

/// Verifies blocks under one channel config. Cheap to clone; many threads may use it at once.
#[derive(Debug, Clone)]
pub struct BlockVerifier {
    config: Arc<ChannelConfig>,
}

impl BlockVerifier {
    /// A verifier for the blocks that follow the config's block, up to and including the next config block.
    pub fn new(config: Arc<ChannelConfig>) -> Self {
        Self { config }
    }

    /// The config.
    pub fn config(&self) -> &Arc<ChannelConfig> {
        &self.config
    }

    /// Checks everything listed in the module's header.
    pub fn verify(&self, block: Block) -> Result<AuthenticBlock, VerifyError> {
        let number = block.number();
        if number == 0 {
            return Err(VerifyError::Genesis);
        }
        self.check_channel(&block)?;
        let metadata = parse_metadata(&block)?;
        self.check_config(&block, &metadata)?;
        check_content(&block)?;
        let kept = self.check_signatures(&block, &metadata)?;
        Ok(AuthenticBlock::verified(block.with_signatures_metadata(kept)))
    }

    /// Checks what the orderers signed of a block, its header and slot 0, without the data.
    pub fn verify_header(
        &self,
        header: BlockHeader,
        signatures_metadata: Bytes,
    ) -> Result<VerifiedHeader, VerifyError> {
        if header.number == 0 {
            return Err(VerifyError::Genesis);
        }
        let block = Block::from_parts(header, Vec::new(), signatures_metadata);
        let metadata = parse_metadata(&block)?;
        let last_config = self.check_last_config(&block, &metadata)?;
        let kept = self.check_signatures(&block, &metadata)?;
        let is_config = last_config == block.number();
        Ok(VerifiedHeader { block: block.with_signatures_metadata(kept), is_config })
    }

    /// Checks that a block is the one of a verified header. What is kept of slot 0 is what was verified with the header.
    pub fn verify_body(&self, block: &Block, header: &VerifiedHeader) -> Result<AuthenticBlock, VerifyError> {
        let number = block.number();
        if block.header_hash() != header.hash() {
            return Err(VerifyError::OtherHeader { number });
        }
        self.check_channel(block)?;
        if block.is_config() != header.is_config {
            let last_config = block.last_config_index().unwrap_or(number);
            return Err(VerifyError::ConfigMismatch { number, last_config });
        }
        check_content(block)?;
        let kept = header.block.signatures_metadata().clone();
        Ok(AuthenticBlock::verified(block.with_signatures_metadata(kept)))
    }

    fn check_channel(&self, block: &Block) -> Result<(), VerifyError> {
        let actual = block.channel_id()?;
        if actual == *self.config.channel_id() {
            return Ok(());
        }
        let expected = self.config.channel_id().clone();
        Err(VerifyError::OtherChannel { number: block.number(), expected, actual })
    }

    fn check_config(&self, block: &Block, metadata: &Metadata) -> Result<(), VerifyError> {
        let number = block.number();
        let last_config = last_config_index(&metadata.value).ok_or(VerifyError::NoLastConfig { number })?;
        if block.is_config() != (last_config == number) {
            return Err(VerifyError::ConfigMismatch { number, last_config });
        }
        self.check_last_config(block, metadata).map(drop)
    }

    /// Whether the block belongs under this config; gives the config block it names.
    fn check_last_config(&self, block: &Block, metadata: &Metadata) -> Result<u64, VerifyError> {
        let number = block.number();
        let last_config = last_config_index(&metadata.value).ok_or(VerifyError::NoLastConfig { number })?;
        if last_config > number {
            return Err(VerifyError::ConfigMismatch { number, last_config });
        }
        let config = self.config.config_block_number();
        let fits = if last_config == number { number > config } else { last_config == config };
        if fits { Ok(last_config) } else { Err(VerifyError::OtherConfig { number, last_config, config }) }
    }

    /// Evaluates the policy and gives the slot 0 to keep.
    fn check_signatures(&self, block: &Block, metadata: &Metadata) -> Result<Bytes, VerifyError> {
        let number = block.number();
        let signed = metadata.signatures.iter().map(|signature| self.signed_data(block, metadata, signature));
        let signed: Vec<SignedData> = signed.collect::<Result<_, _>>()?;
        let signers = self.config.verified_signers(&signed);
        let orderer_orgs = self.config.orderer_orgs();
        let is_orderer = |signer: &&VerifiedSigner| orderer_orgs.contains_key(signer.identity.msp_id());
        let orderers: Vec<&VerifiedSigner> = signers.iter().filter(is_orderer).collect();
        let kept = if self.satisfied(&orderers, signed.len()).is_ok() {
            orderers
        } else {
            let all: Vec<&VerifiedSigner> = signers.iter().collect();
            self.satisfied(&all, signed.len()).map_err(|source| VerifyError::Policy { number, source })?;
            all
        };
        let signatures = kept.iter().filter_map(|signer| metadata.signatures.get(signer.position).cloned());
        let kept = Metadata { value: metadata.value.clone(), signatures: signatures.collect() };
        Ok(kept.encode_to_vec().into())
    }

    fn satisfied(&self, signers: &[&VerifiedSigner], signatures: usize) -> Result<(), PolicyError> {
        let identities: Vec<&Identity> = signers.iter().map(|signer| &signer.identity).collect();
        self.config.evaluate_identities(BLOCK_VALIDATION, &identities, signatures)
    }

    /// Who claims to have signed what.
    fn signed_data(
        &self,
        block: &Block,
        metadata: &Metadata,
        signature: &MetadataSignature,
    ) -> Result<SignedData, VerifyError> {
        let number = block.number();
        let malformed =
            |source: prost::DecodeError| VerifyError::Metadata { number, reason: source.to_string() };
        let by_identifier = signature.signature_header.is_empty() && !signature.identifier_header.is_empty();
        let (signer_header, identity) = if by_identifier {
            let header = IdentifierHeader::decode(signature.identifier_header.clone()).map_err(malformed)?;
            // An unknown consenter has the empty identity, which nobody has.
            let identity = self.config.consenters().get(&header.identifier).cloned().unwrap_or_default();
            (&signature.identifier_header, identity)
        } else {
            let header = SignatureHeader::decode(signature.signature_header.clone()).map_err(malformed)?;
            (&signature.signature_header, header.creator.into())
        };
        Ok(SignedData {
            data: signed_bytes(&metadata.value, signer_header, block.header()).into(),
            identity,
            signature: signature.signature.clone(),
        })
    }
}

/// The data belongs to the header, and its parts are what Go would make of them.
fn check_content(block: &Block) -> Result<(), VerifyError> {
    check_data_hash(block)?;
    let number = block.number();
    check_transactions(block).map_err(|(index, source)| VerifyError::Transaction { number, index, source })
}

fn parse_metadata(block: &Block) -> Result<Metadata, VerifyError> {
    let number = block.number();
    let slot = block.signatures_metadata();
    let is_signature = |field: &Result<crate::protobuf::Field, _>| {
        field.as_ref().is_ok_and(|field: &crate::protobuf::Field| field.number == 2)
    };
    if Fields::new(slot).filter(is_signature).nth(SIGNATURES_MAX).is_some() {
        return Err(VerifyError::TooManySignatures { number });
    }
    Metadata::decode(slot.clone())
        .map_err(|source| VerifyError::Metadata { number, reason: source.to_string() })
}
