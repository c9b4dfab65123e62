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

    /// Writes one block of marshalled envelopes; returns the new height once it is synced.
    pub fn write(&mut self, envelopes: Vec<Bytes>) -> Result<u64, StoreError> {
        let number = self.store.height();
        let header = BlockHeader {
            number,
            previous_hash: self.store.tip_hash().as_ref().to_vec(),
            data_hash: sha256_of(envelopes.iter().map(AsRef::as_ref)).as_ref().to_vec(),
        };
        let hash = header.hash();
        let metadata = self.metadata(&header);
        let block = common::Block {
            header: Some(common::BlockHeader {
                number,
                previous_hash: header.previous_hash,
                data_hash: header.data_hash,
            }),
            data: Some(common::BlockData { data: envelopes }),
            metadata: Some(common::BlockMetadata { metadata }),
        };
        self.store.append(number, hash, false, block.encode_to_vec().into())?;
        Ok(self.store.height())
    }

    fn metadata(&self, header: &BlockHeader) -> Vec<Bytes> {
        let last_config = common::LastConfig { index: self.store.last_config() };
        let mut slots = vec![Bytes::new(); common::METADATA_SLOTS];
        let signed = sign::sign_block(header, last_config.index, Bytes::new(), &self.signer, rand::random());
        let unsigned = common::Metadata { value: last_config.encode_to_vec().into(), signatures: Vec::new() };
        for (slot, value) in slots.iter_mut().zip([signed, unsigned.encode_to_vec().into()]) {
            *slot = value;
        }
        slots
    }
}
