//! Evidence against orderers: authentic blocks that contradict the chain this peer follows.
//!
//! Kept apart from the chain, for the operator and for later proof; nothing reads it to decide anything.
//! At most [`EVIDENCE_MAX`] blocks a channel: the first ones stay, since one is proof enough.

use bytes::Bytes;
use grapevine_channels::ChannelId;
use grapevine_channels::block::{AuthenticBlock, Block};

use super::{Ledger, LedgerError};

/// Most blocks kept as evidence for each channel.
pub const EVIDENCE_MAX: usize = 16;

impl Ledger {
    /// Keeps a block as evidence, unless it is kept already or there is enough; on the disk when the call returns.
    ///
    /// # Errors
    /// Storage errors, [`LedgerError::ReadOnly`].
    pub fn keep_evidence(&self, channel: &ChannelId, block: &AuthenticBlock) -> Result<(), LedgerError> {
        for slot in 0..EVIDENCE_MAX {
            let key = key(channel, slot);
            match self.meta_get(&key)? {
                Some(kept) if is_same(&kept, block) => return Ok(()),
                Some(_) => {}
                None => return self.meta_put(&key, block.encoded()),
            }
        }
        Ok(())
    }

    /// The blocks kept as evidence, encoded, in the order they came.
    ///
    /// # Errors
    /// Storage errors.
    pub fn evidence(&self, channel: &ChannelId) -> Result<Vec<Bytes>, LedgerError> {
        let slots = (0..EVIDENCE_MAX).map(|slot| self.meta_get(&key(channel, slot)));
        let kept: Result<Vec<_>, _> = slots.collect();
        Ok(kept?.into_iter().flatten().map(Bytes::from).collect())
    }
}

fn key(channel: &ChannelId, slot: usize) -> Vec<u8> {
    format!("evidence/{slot}/{channel}").into_bytes()
}

fn is_same(kept: &[u8], block: &AuthenticBlock) -> bool {
    Block::decode(Bytes::copy_from_slice(kept), kept.len())
        .is_ok_and(|kept| kept.header_hash() == block.hash())
}

#[cfg(test)]
mod tests {
    use super::*;
    use grapevine_crypto::Digest;

    #[test]
    fn evidence_is_kept_once_and_bounded_and_outlives_a_restart() {
        let directory = tempfile::tempdir().unwrap();
        let channel: ChannelId = "trade".parse().unwrap();
        let blocks: Vec<AuthenticBlock> =
            (0..20).map(|seed| AuthenticBlock::simulated(5, Digest([seed; 32]), 100)).collect();
        {
            let ledger = Ledger::open(directory.path().join("ledger")).unwrap();
            assert!(ledger.evidence(&channel).unwrap().is_empty());
            for block in [&blocks[0], &blocks[0], &blocks[1]] {
                ledger.keep_evidence(&channel, block).unwrap();
            }
            assert_eq!(ledger.evidence(&channel).unwrap().len(), 2);
        }
        let ledger = Ledger::open(directory.path().join("ledger")).unwrap();
        for block in &blocks {
            ledger.keep_evidence(&channel, block).unwrap();
        }
        assert_eq!(ledger.evidence(&channel).unwrap().len(), EVIDENCE_MAX);
        assert!(ledger.evidence(&"other".parse().unwrap()).unwrap().is_empty());
    }
}
