//! A second history of a channel, computed from the stored one.

use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Mutex, PoisonError};

use bytes::Bytes;
use grapevine_channels::block::{Block, BlockHeader};
use grapevine_channels::proto::common::{
    ChannelHeader, Envelope, Header, HeaderType, Payload, SignatureHeader,
};
use grapevine_crypto::{Digest, sha256_of};
use prost::Message;

use super::alter::damaged;
use crate::rpc::MESSAGE_BYTES_MAX;
use crate::store::{BlockReader, StoreError};

/// Most blocks of a second history; after that the stored ones are served, which do not follow it.
pub const FORK_BLOCKS_MAX: usize = 65_536;

/// A chain that leaves the stored one at a block and goes on by itself: each block has the stored transactions and one
/// more, follows the other block before it and is signed by this orderer, so it is authentic and the chain is whole. A config
/// block keeps its data and differs only by the block before it.
///
/// Of the streams that get to the first such block, the first keeps the stored history, the second gets this one, and so
/// on alternately.
#[derive(Debug)]
pub struct Fork {
    first: u64,
    streams: AtomicU64,
    /// Header hashes of the blocks from `first` on.
    hashes: Mutex<Vec<Digest>>,
}

impl Fork {
    /// A history whose first own block is `first`, which is not 0.
    pub(super) fn new(first: u64) -> Self {
        Self { first: first.max(1), streams: AtomicU64::new(0), hashes: Mutex::default() }
    }

    /// Number of the first block of which two exist.
    pub(crate) fn first(&self) -> u64 {
        self.first
    }

    /// Whether the next stream to ask is one of those that are lied to.
    pub(crate) fn next_stream_is_forked(&self) -> bool {
        self.streams.fetch_add(1, Ordering::Relaxed) % 2 == 1
    }

    /// Header and transactions of block `number` of this history; `None` beyond [`FORK_BLOCKS_MAX`] and before the first.
    /// Reads the stored blocks since the fork once. Blocks.
    pub(super) fn block(
        &self,
        reader: &BlockReader,
        number: u64,
    ) -> Result<Option<(BlockHeader, Vec<Bytes>)>, StoreError> {
        let Some(index) = number.checked_sub(self.first).and_then(|index| usize::try_from(index).ok()) else {
            return Ok(None);
        };
        if index >= FORK_BLOCKS_MAX {
            return Ok(None);
        }
        let mut hashes = self.hashes.lock().unwrap_or_else(PoisonError::into_inner);
        while hashes.len() < index {
            let next = self.first.saturating_add(u64::try_from(hashes.len()).unwrap_or(u64::MAX));
            let (header, _) = variant(reader, next, hashes.last())?;
            hashes.push(header.hash());
        }
        let previous = index.checked_sub(1).and_then(|before| hashes.get(before)).copied();
        variant(reader, number, previous.as_ref()).map(Some)
    }
}

fn variant(
    reader: &BlockReader,
    number: u64,
    previous: Option<&Digest>,
) -> Result<(BlockHeader, Vec<Bytes>), StoreError> {
    let stored = Block::decode(reader.read(number)?, MESSAGE_BYTES_MAX)
        .map_err(|error| damaged(reader, number, &error.to_string()))?;
    let mut transactions = stored.transactions().to_vec();
    if !stored.is_config() {
        let channel = stored.channel_id().map_err(|error| damaged(reader, number, &error.to_string()))?;
        transactions.push(extra_transaction(channel.as_str()));
    }
    let mut header = stored.header().clone();
    if let Some(previous) = previous {
        header.previous_hash = previous.as_ref().to_vec();
    }
    header.data_hash = sha256_of(transactions.iter().map(AsRef::as_ref)).as_ref().to_vec();
    Ok((header, transactions))
}

/// The transaction that the other history has and the stored one has not. Always the same, so that every stream gets the
/// same blocks.
fn extra_transaction(channel: &str) -> Bytes {
    let channel_header = ChannelHeader {
        r#type: HeaderType::Message.into(),
        channel_id: channel.to_owned(),
        ..ChannelHeader::default()
    };
    let payload = Payload {
        header: Some(Header {
            channel_header: channel_header.encode_to_vec().into(),
            signature_header: SignatureHeader { creator: Vec::new(), nonce: vec![1] }.encode_to_vec().into(),
        }),
        data: Bytes::from_static(b"a second history"),
    };
    // Verification wants a signature to be there; whose it is, nobody asks of a transaction.
    let signature = Bytes::from_static(b"made up");
    Envelope { payload: payload.encode_to_vec().into(), signature }.encode_to_vec().into()
}
