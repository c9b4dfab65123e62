//! Signing blocks as an orderer does (Fabric: `multichannel.BlockWriter`), in the crash fault tolerant form.

use bytes::Bytes;
use grapevine_crypto::Signer;
use prost::Message as _;

use crate::block::BlockHeader;
use crate::proto::common::{LastConfig, Metadata, MetadataSignature, OrdererBlockMetadata, SignatureHeader};
use crate::transaction::NONCE_LENGTH;

/// Slot 0 of a block: the value (number of the config block in force and what the consensus type adds) and one
/// signature over value ‖ signature header ‖ DER of the block header.
///
/// `last_config_index` is the block's own number if it is a config block. `nonce` must be fresh.
pub fn sign_block(
    header: &BlockHeader,
    last_config_index: u64,
    consenter_metadata: Bytes,
    signer: &Signer,
    nonce: [u8; NONCE_LENGTH],
) -> Bytes {
    let value = orderer_block_metadata(last_config_index, consenter_metadata);
    let signature_header =
        SignatureHeader { creator: signer.serialized().to_vec(), nonce: nonce.to_vec() }.encode_to_vec();
    let signature = signer.sign(&signed_bytes(&value, &signature_header, header));
    let signature = MetadataSignature {
        signature_header: signature_header.into(),
        signature: signature.into(),
        identifier_header: Bytes::new(),
    };
    Metadata { value, signatures: vec![signature] }.encode_to_vec().into()
}

/// Slot 0 without signatures: that of a genesis block.
pub fn unsigned_metadata(last_config_index: u64) -> Bytes {
    let value = orderer_block_metadata(last_config_index, Bytes::new());
    Metadata { value, signatures: Vec::new() }.encode_to_vec().into()
}

fn orderer_block_metadata(last_config_index: u64, consenter_metadata: Bytes) -> Bytes {
    let last_config = Some(LastConfig { index: last_config_index });
    OrdererBlockMetadata { last_config, consenter_metadata }.encode_to_vec().into()
}

/// What an orderer signs. `signer_header` is the signature header or, in a BFT channel, the identifier header.
pub(crate) fn signed_bytes(value: &[u8], signer_header: &[u8], header: &BlockHeader) -> Vec<u8> {
    [value, signer_header, &header.der()].concat()
}
