//! Blocks: parsing, hashes, and the form in which they are stored and sent.
//!
//! # Promises
//! * [`Block::decode`] is total: any bytes give a block or a [`BlockError`]. The size is checked first; data entries
//!   are slices of the input, not copies; what it allocates beyond them is bounded by [`TRANSACTIONS_MAX`] handles.
//! * A block has exactly one meaning. At each level a singular field (`header`, `data`, `metadata`, and each field of
//!   the header) may appear once: a second one is an error, never merged or overridden, so that two parsers cannot
//!   disagree. A known field with another wire type is an error. Unknown fields are skipped and do not survive
//!   [`Block::encode`].
//! * The header is there, its data hash has 32 bytes, and its previous hash has 32 bytes, or none in block 0.
//! * [`Block::encode`] is the one unit that is stored, chunked and forwarded: header, data and metadata slot 0. Slots
//!   1 to 4 are written empty whatever was received: no signature covers them. Encoding a block that arrived in this
//!   form returns the received bytes without a copy.
//!
//! A [`Block`] is parsed and nothing else. Only an [`AuthenticBlock`] may be kept, forwarded or committed, and only
//! [`crate::verify::BlockVerifier`] makes one of bytes from outside.

pub(crate) mod authentic;
mod decode;
mod encode;
mod header;

use std::sync::{Arc, OnceLock};

use bytes::Bytes;
use grapevine_crypto::{Digest, sha256_of};
use prost::Message as _;

pub use authentic::AuthenticBlock;
pub use header::BlockHeader;

use crate::channel_id::{ChannelId, ChannelIdError};
use crate::proto::common::{HeaderType, Metadata, OrdererBlockMetadata};
use crate::protobuf::WireError;
use crate::transaction::{TransactionError, transaction_payload};

/// Most data entries of a block. Fabric's default for a batch is 500 messages; this bounds the memory that a block of
/// minimal entries can make a parser allocate (32 bytes each).
pub const TRANSACTIONS_MAX: usize = 1 << 20;

/// Largest block anywhere: Fabric's limit on gRPC messages, 100 MiB.
pub const BLOCK_SIZE_MAX: usize = 100 << 20;

/// Bytes that are not a block, or a block that cannot be used.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum BlockError {
    /// Larger than the channel allows.
    #[error("block of {size} bytes exceeds the limit of {size_max} bytes")]
    TooLarge {
        /// Bytes received.
        size: usize,
        /// Bytes allowed.
        size_max: usize,
    },
    /// Not protobuf.
    #[error("block is {0}")]
    Wire(#[from] WireError),
    /// A singular field appears twice.
    #[error("block has the field {0} twice")]
    Duplicate(&'static str),
    /// A known field has another type.
    #[error("block has a field {0} of the wrong type")]
    WrongType(&'static str),
    /// There is no header.
    #[error("block has no header")]
    NoHeader,
    /// A hash in the header has an impossible length.
    #[error("block {number}: {field} has {length} bytes")]
    HashLength {
        /// Block number.
        number: u64,
        /// Which hash.
        field: &'static str,
        /// Its length.
        length: usize,
    },
    /// More data entries than [`TRANSACTIONS_MAX`].
    #[error("block has more than {TRANSACTIONS_MAX} transactions")]
    TooManyTransactions,
    /// There is no transaction, or the first one cannot be parsed.
    #[error("block {number}: first transaction: {source}")]
    FirstTransaction {
        /// Block number.
        number: u64,
        /// Why.
        source: TransactionError,
    },
    /// There is no transaction.
    #[error("block {number} is empty")]
    Empty {
        /// Block number.
        number: u64,
    },
    /// The first transaction names no valid channel.
    #[error("block {number}: {source}")]
    Channel {
        /// Block number.
        number: u64,
        /// Why.
        source: ChannelIdError,
    },
    /// A block that should be block 0 is not.
    #[error("block {number} is not a genesis block; use block 0 of the channel")]
    NotGenesis {
        /// Block number.
        number: u64,
    },
    /// The data does not belong to the header.
    #[error("block {number}: data hash is {actual}, the header says {claimed}")]
    DataHash {
        /// Block number.
        number: u64,
        /// Hash in the header, in hex.
        claimed: String,
        /// Hash of the data.
        actual: Digest,
    },
}

/// A parsed block of which nothing is verified. Cheap to clone.
#[derive(Debug, Clone)]
pub struct Block {
    inner: Arc<Inner>,
}

#[derive(Debug)]
struct Inner {
    header: BlockHeader,
    header_hash: Digest,
    transactions: Vec<Bytes>,
    signatures_metadata: Bytes,
    /// What the block was decoded from; empty if it was built here.
    source: Bytes,
    first_transaction: OnceLock<Result<FirstTransaction, TransactionError>>,
}

/// What the first transaction says about the block. Owns its text, so that it keeps no buffer alive.
#[derive(Debug, Clone)]
struct FirstTransaction {
    channel: String,
    header_type: i32,
}

impl Block {
    /// Parses `common.Block` (see the module's promises). `size_max` is in bytes, see
    /// [`crate::config::ChannelConfig::block_size_max`].
    pub fn decode(bytes: Bytes, size_max: usize) -> Result<Self, BlockError> {
        decode::decode(bytes, size_max)
    }

    /// A block from its parts, of which none is checked: for ordering services, genesis blocks and tests.
    pub fn from_parts(header: BlockHeader, transactions: Vec<Bytes>, signatures_metadata: Bytes) -> Self {
        Self::with_source(header, transactions, signatures_metadata, Bytes::new())
    }

    fn with_source(
        header: BlockHeader,
        transactions: Vec<Bytes>,
        signatures_metadata: Bytes,
        source: Bytes,
    ) -> Self {
        let header_hash = header.hash();
        Self::hashed(header, header_hash, transactions, signatures_metadata, source)
    }

    fn hashed(
        header: BlockHeader,
        header_hash: Digest,
        transactions: Vec<Bytes>,
        signatures_metadata: Bytes,
        source: Bytes,
    ) -> Self {
        let first_transaction = OnceLock::new();
        Self {
            inner: Arc::new(Inner {
                header,
                header_hash,
                transactions,
                signatures_metadata,
                source,
                first_transaction,
            }),
        }
    }

    /// The header.
    pub fn header(&self) -> &BlockHeader {
        &self.inner.header
    }

    /// Height; same as `header().number`.
    pub fn number(&self) -> u64 {
        self.inner.header.number
    }

    /// Hash of the header: the block's identity. Computed once.
    pub fn header_hash(&self) -> Digest {
        self.inner.header_hash
    }

    /// The data entries: marshalled envelopes, byte for byte as the orderer wrote them.
    pub fn transactions(&self) -> &[Bytes] {
        &self.inner.transactions
    }

    /// Metadata slot 0: a marshalled `common.Metadata` with the orderers' signatures; empty if there was none.
    pub fn signatures_metadata(&self) -> &Bytes {
        &self.inner.signatures_metadata
    }

    /// SHA-256 over the concatenated data entries; the block is whole if it equals the header's.
    pub fn compute_data_hash(&self) -> Digest {
        sha256_of(self.inner.transactions.iter().map(AsRef::as_ref))
    }

    /// Number of the config block in force, as slot 0 says; not verified here. `None` if slot 0 does not say.
    pub fn last_config_index(&self) -> Option<u64> {
        let metadata = Metadata::decode(self.inner.signatures_metadata.clone()).ok()?;
        last_config_index(&metadata.value)
    }

    /// Whether the block is one config transaction.
    pub fn is_config(&self) -> bool {
        self.inner.transactions.len() == 1
            && self.first_transaction().is_ok_and(|first| first.header_type == HeaderType::Config as i32)
    }

    /// The channel that the first transaction names (Fabric: `protoutil.GetChannelIDFromBlock`).
    pub fn channel_id(&self) -> Result<ChannelId, BlockError> {
        let number = self.number();
        self.first_transaction()?.channel.parse().map_err(|source| BlockError::Channel { number, source })
    }

    /// Parsed once.
    fn first_transaction(&self) -> Result<&FirstTransaction, BlockError> {
        let number = self.number();
        let first = self.inner.transactions.first().ok_or(BlockError::Empty { number })?;
        let parsed = self.inner.first_transaction.get_or_init(|| {
            let view = transaction_payload(first)?;
            Ok(FirstTransaction { channel: view.channel, header_type: view.header_type })
        });
        parsed.as_ref().map_err(|source| BlockError::FirstTransaction { number, source: source.clone() })
    }

    /// The canonical unit: header, data and metadata slot 0, the other slots blank.
    pub fn encode(&self) -> Bytes {
        encode::encode(self)
    }

    /// Bytes of [`Self::encode`], computed without encoding.
    pub fn encoded_length(&self) -> usize {
        encode::encoded_length(self)
    }

    /// The block as a peer serves it to clients (Fabric: `protos.Deliver`): slot 0 as it is, `transactions_filter` in
    /// slot 2, the other slots blank, and the data only if `with_data`. `prefix` is told the length of this encoding
    /// and gives the bytes that stand before it, so that a message around the block costs no second copy.
    pub fn encode_served(
        &self,
        with_data: bool,
        transactions_filter: &[u8],
        prefix: impl FnOnce(usize) -> Vec<u8>,
    ) -> Vec<u8> {
        encode::encode_served(self, with_data, transactions_filter, prefix)
    }

    /// The same block as slices of its canonical encoding, and that encoding: so that what is kept holds one buffer,
    /// and no other beside it.
    pub(crate) fn canonical(&self) -> (Self, Bytes) {
        let encoded = self.encode();
        if self.inner.source.as_ptr_range() == encoded.as_ptr_range() {
            return (self.clone(), encoded);
        }
        let (transactions, signatures_metadata) = encode::slices(self, &encoded);
        let inner = &self.inner;
        let (header, hash) = (inner.header.clone(), inner.header_hash);
        let block = Self::hashed(header, hash, transactions, signatures_metadata, encoded.clone());
        block.with_first_transaction_of(self);
        (block, encoded)
    }

    /// The same header and data with another slot 0.
    pub(crate) fn with_signatures_metadata(&self, signatures_metadata: Bytes) -> Self {
        if signatures_metadata == self.inner.signatures_metadata {
            return self.clone();
        }
        let inner = &self.inner;
        let (header, transactions) = (inner.header.clone(), inner.transactions.clone());
        let block = Self::hashed(header, inner.header_hash, transactions, signatures_metadata, Bytes::new());
        block.with_first_transaction_of(self);
        block
    }

    /// Takes over what is known about the first transaction of a block with the same data.
    fn with_first_transaction_of(&self, other: &Self) {
        if let Some(first) = other.inner.first_transaction.get() {
            // Fresh, so it is empty.
            let _set = self.inner.first_transaction.set(first.clone());
        }
    }
}

/// The last config index in the signed value of slot 0 (Fabric: `protoutil.GetLastConfigIndexFromBlock`).
pub(crate) fn last_config_index(value: &Bytes) -> Option<u64> {
    let metadata = OrdererBlockMetadata::decode(value.clone()).ok()?;
    metadata.last_config.map(|last_config| last_config.index)
}

impl PartialEq for Block {
    /// Same header, data and slot 0.
    fn eq(&self, other: &Self) -> bool {
        self.inner.header == other.inner.header
            && self.inner.transactions == other.inner.transactions
            && self.inner.signatures_metadata == other.inner.signatures_metadata
    }
}

impl Eq for Block {}
