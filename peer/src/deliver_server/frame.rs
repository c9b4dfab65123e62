//! Responses as they go over the wire: encoded once, shared by every stream that sends them.

use std::sync::Arc;

use bytes::Bytes;
use grapevine_channels::ChannelId;
use grapevine_channels::block::{BLOCK_SIZE_MAX, Block, BlockError};
use grapevine_channels::proto::common::{HeaderType, Status};
use grapevine_channels::proto::peer::deliver_response::Type;
use grapevine_channels::proto::peer::{
    DeliverResponse, FilteredBlock, FilteredChaincodeAction, FilteredTransaction, FilteredTransactionActions,
};
use grapevine_channels::transaction::{chaincode_events, transaction_payload};
use prost::Message;
use prost::encoding::{WireType, encode_key, encode_varint};
use tokio::sync::OwnedSemaphorePermit;

/// Fabric's `TxValidationCode_NOT_VALIDATED`: what this peer says of every transaction, since it validates none.
pub const NOT_VALIDATED: u8 = 254;

/// A frame is held in pieces of this many bytes, each with memory of its own: what a stalled connection has taken
/// keeps its piece alive and not the whole block.
const CHUNK_BYTES: usize = 32 * 1024;
/// Bytes before each gRPC message: no compression, and its length.
const GRPC_PREFIX_BYTES: usize = 5;
/// Field number of the block in `protos.DeliverResponse`.
const BLOCK_FIELD: u32 = 2;

/// What a stream wants of a block.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum Form {
    /// All of it.
    Whole,
    /// Header and metadata; config blocks whole, since a reader of headers needs them to follow the orderer set.
    Header,
    /// `protos.FilteredBlock`: ids, types and codes of the transactions.
    Filtered,
}

/// A gRPC message, prefix included. Cheap to clone.
#[derive(Debug, Clone)]
pub(super) struct Frame {
    pub(super) chunks: Arc<[Bytes]>,
}

/// A piece of a frame, with the memory it was granted.
struct Chunk {
    bytes: Vec<u8>,
    _granted: Option<OwnedSemaphorePermit>,
}

impl AsRef<[u8]> for Chunk {
    fn as_ref(&self) -> &[u8] {
        &self.bytes
    }
}

impl Frame {
    /// Splits a message. `granted` is given back piece by piece, as the last user of each lets go.
    pub(super) fn new(message: &[u8], mut granted: OwnedSemaphorePermit) -> Self {
        let chunk = |bytes: &[u8]| {
            let _granted = granted.split(bytes.len());
            Bytes::from_owner(Chunk { bytes: bytes.to_vec(), _granted })
        };
        Self { chunks: message.chunks(CHUNK_BYTES).map(chunk).collect() }
    }

    /// The end of a range.
    pub(super) fn status(status: Status) -> Self {
        let message = message(&DeliverResponse { r#type: Some(Type::Status(status.into())) });
        Self { chunks: [Bytes::from(message)].into() }
    }

    /// Bytes of all pieces.
    pub(super) fn length(&self) -> usize {
        self.chunks.iter().fold(0, |sum, chunk| sum.saturating_add(chunk.len()))
    }
}

/// The message for a block of the ledger.
pub(super) fn block(form: Form, channel: &ChannelId, stored: Bytes) -> Result<Vec<u8>, BlockError> {
    let block = Block::decode(stored, BLOCK_SIZE_MAX)?;
    if form == Form::Filtered {
        return Ok(message(&DeliverResponse {
            r#type: Some(Type::FilteredBlock(filtered(channel, &block))),
        }));
    }
    let with_data = form == Form::Whole || block.is_config();
    let filter = vec![NOT_VALIDATED; block.transactions().len()];
    Ok(block.encode_served(with_data, &filter, block_prefix))
}

/// gRPC prefix, and tag and length of the block inside of the response. Blocks are far below 4 GiB.
fn block_prefix(block_bytes: usize) -> Vec<u8> {
    let mut field = Vec::with_capacity(16);
    encode_key(BLOCK_FIELD, WireType::LengthDelimited, &mut field);
    encode_varint(block_bytes as u64, &mut field);
    let mut prefix = Vec::with_capacity(block_bytes.saturating_add(32));
    put_prefix(&mut prefix, field.len().saturating_add(block_bytes));
    prefix.extend_from_slice(&field);
    prefix
}

fn message(response: &DeliverResponse) -> Vec<u8> {
    let length = response.encoded_len();
    let mut out = Vec::with_capacity(length.saturating_add(GRPC_PREFIX_BYTES));
    put_prefix(&mut out, length);
    out.extend_from_slice(&response.encode_to_vec());
    out
}

fn put_prefix(out: &mut Vec<u8>, length: usize) {
    out.push(0);
    out.extend_from_slice(&u32::try_from(length).unwrap_or(u32::MAX).to_be_bytes());
}

fn actions(payload: &Bytes) -> Option<FilteredTransactionActions> {
    let events = chaincode_events(payload)?.into_iter();
    let action = |event| FilteredChaincodeAction { chaincode_event: Some(event) };
    Some(FilteredTransactionActions { chaincode_actions: events.map(action).collect() })
}

/// One entry for each transaction, in order. One that cannot be read has neither id nor type, where Fabric leaves it out.
fn filtered(channel: &ChannelId, block: &Block) -> FilteredBlock {
    let entry = |transaction: &Bytes| {
        let tx_validation_code = NOT_VALIDATED.into();
        let Ok(view) = transaction_payload(transaction) else {
            return FilteredTransaction { tx_validation_code, ..FilteredTransaction::default() };
        };
        let is_endorsed = view.header_type == HeaderType::EndorserTransaction as i32;
        FilteredTransaction {
            transaction_actions: is_endorsed.then(|| actions(&view.payload)).flatten(),
            txid: view.tx_id,
            r#type: view.header_type,
            tx_validation_code,
        }
    };
    FilteredBlock {
        channel_id: channel.to_string(),
        number: block.number(),
        filtered_transactions: block.transactions().iter().map(entry).collect(),
    }
}
