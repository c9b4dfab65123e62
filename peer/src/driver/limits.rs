//! How large a block from which peer may be: the transport's question before it keeps a byte of a body.
//!
//! The answer is the block size of the channel that the header's tag names on this connection. A header without a
//! link (the organisation is not in the channel, or either side has not joined) is not wanted at all. The driver
//! keeps the table up to date from what the node says.

use std::collections::BTreeMap;
use std::sync::{PoisonError, RwLock, RwLockWriteGuard};

use bytes::Bytes;
use grapevine_channels::ChannelId;
use grapevine_channels::isolation::TAG_SIZE;
use grapevine_channels::wire::BulkHeader;
use grapevine_crypto::PkiId;

use crate::net::BodyLimit;

type Tag = [u8; TAG_SIZE];

#[derive(Debug, Default)]
struct Table {
    links: BTreeMap<(PkiId, Tag), ChannelId>,
    sizes: BTreeMap<ChannelId, usize>,
}

/// See the module's header.
#[derive(Debug, Default)]
pub(super) struct Limits(RwLock<Table>);

impl Limits {
    /// Sets the largest block of a channel, in bytes.
    pub(super) fn set_block_size(&self, channel: &ChannelId, size_max: usize) {
        self.table().sizes.insert(channel.clone(), size_max);
    }

    /// No block of the channel is wanted any more.
    pub(super) fn forget_block_size(&self, channel: &ChannelId) {
        self.table().sizes.remove(channel);
    }

    pub(super) fn open(&self, peer: PkiId, channel: ChannelId, tag: Tag) {
        self.table().links.insert((peer, tag), channel);
    }

    pub(super) fn close(&self, peer: PkiId, channel: &ChannelId) {
        self.table().links.retain(|(linked, _), open| *linked != peer || open != channel);
    }

    fn table(&self) -> RwLockWriteGuard<'_, Table> {
        self.0.write().unwrap_or_else(PoisonError::into_inner)
    }
}

impl BodyLimit for Limits {
    fn body_limit(&self, peer: PkiId, header: &[u8]) -> Option<usize> {
        let header = BulkHeader::parse(Bytes::copy_from_slice(header)).ok()?;
        let tag: Tag = header.tag.as_slice().try_into().ok()?;
        let table = self.0.read().unwrap_or_else(PoisonError::into_inner);
        let channel = table.links.get(&(peer, tag))?;
        table.sizes.get(channel).copied()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use prost::Message;

    #[test]
    fn only_linked_channels_have_a_limit() {
        let limits = Limits::default();
        let trade: ChannelId = "trade".parse().unwrap();
        let (one, two) = (PkiId::new(&"Org1MSP".into(), "peer0"), PkiId::new(&"Org1MSP".into(), "peer1"));
        let header = BulkHeader { tag: vec![7; TAG_SIZE], ..BulkHeader::default() }.encode_to_vec();
        limits.set_block_size(&trade, 1_000);
        assert_eq!(limits.body_limit(one, &header), None);
        limits.open(one, trade.clone(), [7; TAG_SIZE]);
        assert_eq!(limits.body_limit(one, &header), Some(1_000));
        assert_eq!(limits.body_limit(two, &header), None, "a tag is worth nothing on another connection");
        assert_eq!(limits.body_limit(one, &[0xff; 9]), None);
        limits.close(one, &trade);
        assert_eq!(limits.body_limit(one, &header), None);
    }
}
