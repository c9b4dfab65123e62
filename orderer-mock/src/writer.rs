//! Makes blocks: links a batch to the tip, hashes, signs and stores it.
//!
//! A block has Fabric's five metadata slots: slot 0 holds the signature over `OrdererBlockMetadata ‖ signature header ‖
//! DER(header)` (Fabric: `orderer/common/multichannel/blockwriter.go`), slot 1 the deprecated, unsigned last config index
//! that older tools read, slots 2 to 4 are empty.

use std::sync::Arc;

use bytes::Bytes;
use grapevine_channels::block::BlockHeader;
use grapevine_channels::proto::common;
use grapevine_channels::sign;
use grapevine_crypto::{Signer, sha256_of};
use prost::Message;

use crate::store::{BlockStore, StoreError};

/// The only maker of blocks of a channel.
#[derive(Debug)]
pub struct BlockWriter {
    store: BlockStore,
    signer: Arc<Signer>,
}

impl BlockWriter {
    /// Continues the chain in `store`, signing as `signer`.
    pub fn new(store: BlockStore, signer: Arc<Signer>) -> Self {
        Self { store, signer }
    }

    /// Writes one block of marshalled envelopes; returns the new height once it is synced. A config block (`is_config`)
    /// holds one envelope of type CONFIG; it names itself as the newest config, as do the blocks after it.
    pub fn write(&mut self, envelopes: Vec<Bytes>, is_config: bool) -> Result<u64, StoreError> {
        let number = self.store.height();
        let header = BlockHeader {
            number,
            previous_hash: self.store.tip_hash().as_ref().to_vec(),
            data_hash: sha256_of(envelopes.iter().map(AsRef::as_ref)).as_ref().to_vec(),
        };
        let hash = header.hash();
        let last_config = if is_config { number } else { self.store.last_config() };
        let metadata = metadata_slots(&header, last_config, &self.signer);
        let block = common::Block {
            header: Some(common::BlockHeader {
                number,
                previous_hash: header.previous_hash,
                data_hash: header.data_hash,
            }),
            data: Some(common::BlockData { data: envelopes }),
            metadata: Some(common::BlockMetadata { metadata }),
        };
        self.store.append(number, hash, is_config, block.encode_to_vec().into())?;
        Ok(self.store.height())
    }
}

/// All metadata of a block with this header: slot 0 signed now, slot 1 for older tools, the others empty.
pub(crate) fn metadata_slots(header: &BlockHeader, last_config: u64, signer: &Signer) -> Vec<Bytes> {
    let mut slots = vec![Bytes::new(); common::METADATA_SLOTS];
    let signed = sign::sign_block(header, last_config, Bytes::new(), signer, rand::random());
    let value = common::LastConfig { index: last_config }.encode_to_vec().into();
    let unsigned = common::Metadata { value, signatures: Vec::new() };
    for (slot, value) in slots.iter_mut().zip([signed, unsigned.encode_to_vec().into()]) {
        *slot = value;
    }
    slots
}
