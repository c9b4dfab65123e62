//! Blocks that may be kept and forwarded.

use std::sync::Arc;

use bytes::Bytes;
use grapevine_crypto::{Digest, sha256, sha256_of};

use super::{BLOCK_SIZE_MAX, Block, BlockError, BlockHeader};

/// A block that its channel's orderers signed. Cheap to clone.
///
/// There are four ways to one, and no other: [`crate::verify::BlockVerifier::verify`]; [`Self::genesis`] for a block 0
/// that the operator vouches for; [`Self::stored`] for what this node's own ledger holds; [`Self::simulated`] for
/// simulations and tests.
#[derive(Debug, Clone)]
pub struct AuthenticBlock {
    inner: Arc<Inner>,
}

#[derive(Debug)]
struct Inner {
    block: Block,
    encoded: Bytes,
    size: usize,
    is_config: bool,
}

impl AuthenticBlock {
    /// Block 0 as the operator hands it over. It carries no signatures: whoever joins a channel vouches for its genesis
    /// block. The data hash is checked, so that the operator's file is at least whole.
    pub fn genesis(block: &Block) -> Result<Self, BlockError> {
        let number = block.number();
        if number != 0 || !block.header().previous_hash.is_empty() || !block.is_config() {
            return Err(BlockError::NotGenesis { number });
        }
        check_data_hash(block)?;
        Ok(Self::verified(block.clone()))
    }

    /// Reads back a block that this node committed. The caller vouches that `encoded` comes from its own ledger: the
    /// data hash and signatures are not checked again.
    pub fn stored(encoded: Bytes) -> Result<Self, BlockError> {
        Ok(Self::verified(Block::decode(encoded, BLOCK_SIZE_MAX)?))
    }

    /// A block without a body that claims `size` bytes: for simulations and for tests of the state machines. Its hash
    /// depends on all arguments; block 0 ignores `previous`.
    pub fn simulated(number: u64, previous: Digest, size: usize) -> Self {
        let previous_hash = if number == 0 { Vec::new() } else { previous.0.to_vec() };
        let data_hash = sha256_of([number.to_be_bytes().as_slice(), &size.to_be_bytes()]).0.to_vec();
        let block =
            Block::from_parts(BlockHeader { number, previous_hash, data_hash }, Vec::new(), Bytes::new());
        let encoded = block.encode();
        Self { inner: Arc::new(Inner { block, encoded, size, is_config: false }) }
    }

    /// Wraps a block whose authenticity the caller has established.
    pub(crate) fn verified(block: Block) -> Self {
        let (block, encoded) = block.canonical();
        let is_config = block.is_config();
        Self { inner: Arc::new(Inner { block, size: encoded.len(), encoded, is_config }) }
    }

    /// Height.
    pub fn number(&self) -> u64 {
        self.inner.block.number()
    }

    /// Header hash: the block's identity.
    pub fn hash(&self) -> Digest {
        self.inner.block.header_hash()
    }

    /// Header hash of the block before; `None` for the genesis block.
    pub fn previous_hash(&self) -> Option<Digest> {
        Digest::try_from(self.inner.block.header().previous_hash.as_slice()).ok()
    }

    /// Bytes of the canonical encoding (for a simulated block, what it claims).
    pub fn size(&self) -> usize {
        self.inner.size
    }

    /// The canonical encoding: what is stored and sent. See [`Block::encode`].
    pub fn encoded(&self) -> &Bytes {
        &self.inner.encoded
    }

    /// The parsed block.
    pub fn block(&self) -> &Block {
        &self.inner.block
    }

    /// Whether it changes the channel's configuration.
    pub fn is_config(&self) -> bool {
        self.inner.is_config
    }

    /// Digest over the whole canonical encoding, signatures included. Two honest copies of one block may differ in it.
    pub fn encoded_digest(&self) -> Digest {
        sha256(&self.inner.encoded)
    }
}

impl PartialEq for AuthenticBlock {
    /// Same header hash. Signatures may differ: honest orderers each sign their own copy of a header.
    fn eq(&self, other: &Self) -> bool {
        self.hash() == other.hash()
    }
}

impl Eq for AuthenticBlock {}

/// Whether the data belongs to the header.
pub(crate) fn check_data_hash(block: &Block) -> Result<(), BlockError> {
    let actual = block.compute_data_hash();
    if block.header().data_hash == actual.as_ref() {
        return Ok(());
    }
    let claimed = hex::encode(&block.header().data_hash);
    Err(BlockError::DataHash { number: block.number(), claimed, actual })
}
