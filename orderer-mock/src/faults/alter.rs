//! Makes of a stored block what a dishonest orderer would serve.

use bytes::Bytes;
use grapevine_channels::block::{Block, BlockHeader};
use grapevine_channels::proto::common::{self, Metadata};
use grapevine_crypto::{Signer, sha256};
use prost::Message;

use super::ChannelFaults;
use crate::rpc::MESSAGE_BYTES_MAX;
use crate::store::{BlockReader, StoreError};
use crate::writer::metadata_slots;

/// The block to serve in place of the stored block `number`. `forked`: this stream gets the other history, if there is
/// one. Signed blocks are signed by `signer`. Blocks.
pub(crate) fn altered(
    faults: &ChannelFaults,
    reader: &BlockReader,
    signer: &Signer,
    forked: bool,
    number: u64,
    stored: Bytes,
) -> Result<Bytes, StoreError> {
    if number == 0 {
        return Ok(stored);
    }
    let mut block = stored;
    if let Some(fork) = faults.fork.as_ref().filter(|_| forked)
        && let Some((header, transactions)) = fork.block(reader, number)?
    {
        block = signed(reader, signer, &block, header, transactions)?;
    }
    if faults.wrong_previous_hash {
        let parsed = parse(reader, number, &block)?;
        let mut header = parsed.header().clone();
        header.previous_hash = sha256(&header.previous_hash).as_ref().to_vec();
        block = signed(reader, signer, &block, header, parsed.transactions().to_vec())?;
    }
    if faults.bad_signature {
        block = without_valid_signature(reader, number, &block)?;
    }
    Ok(block)
}

/// A block with this content that names the same config as `model`.
fn signed(
    reader: &BlockReader,
    signer: &Signer,
    model: &Bytes,
    header: BlockHeader,
    transactions: Vec<Bytes>,
) -> Result<Bytes, StoreError> {
    let number = header.number;
    let last_config = parse(reader, number, model)?.last_config_index();
    let last_config = last_config.ok_or_else(|| damaged(reader, number, "it names no config"))?;
    let metadata = metadata_slots(&header, last_config, signer);
    let block = common::Block {
        header: Some(common::BlockHeader {
            number,
            previous_hash: header.previous_hash,
            data_hash: header.data_hash,
        }),
        data: Some(common::BlockData { data: transactions }),
        metadata: Some(common::BlockMetadata { metadata }),
    };
    Ok(block.encode_to_vec().into())
}

/// Changes a bit of each signature.
fn without_valid_signature(reader: &BlockReader, number: u64, block: &Bytes) -> Result<Bytes, StoreError> {
    let failed = |error: prost::DecodeError| damaged(reader, number, &error.to_string());
    let mut block = common::Block::decode(block.clone()).map_err(failed)?;
    let slots = block.metadata.iter_mut().flat_map(|metadata| metadata.metadata.first_mut());
    for slot in slots {
        let mut metadata = Metadata::decode(slot.clone()).map_err(failed)?;
        for signature in &mut metadata.signatures {
            let mut bytes = signature.signature.to_vec();
            if let Some(last) = bytes.last_mut() {
                *last ^= 1;
            }
            signature.signature = bytes.into();
        }
        *slot = metadata.encode_to_vec().into();
    }
    Ok(block.encode_to_vec().into())
}

fn parse(reader: &BlockReader, number: u64, block: &Bytes) -> Result<Block, StoreError> {
    Block::decode(block.clone(), MESSAGE_BYTES_MAX)
        .map_err(|error| damaged(reader, number, &error.to_string()))
}

pub(super) fn damaged(reader: &BlockReader, number: u64, reason: &str) -> StoreError {
    StoreError::Damaged { path: reader.path(number), reason: reason.to_owned() }
}
