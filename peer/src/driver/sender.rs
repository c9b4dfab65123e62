//! Blocks on their way to peers: out of memory at once, out of the ledger by way of the reader.

use std::hash::{DefaultHasher, Hash, Hasher};

use bytes::Bytes;
use grapevine_channels::ChannelId;
use grapevine_channels::chain::Held;
use grapevine_channels::wire::BulkKind;
use grapevine_crypto::PkiId;
use tokio::sync::mpsc;

use super::reader::{Reading, Wanted};
use crate::net::{BulkMessage, Flow, NetHandle};

/// Sends a block behind its header; `false` if it cannot be sent or read now.
pub(super) fn send(
    net: &NetHandle,
    readings: &mpsc::Sender<Reading>,
    peer: PkiId,
    channel: &ChannelId,
    (kind, header): (BulkKind, Bytes),
    block: Held,
) -> bool {
    match block {
        Held::Memory(block) => {
            net.send_bulk(peer, message(channel, kind, header, block.encoded().clone())).is_ok()
        }
        Held::Ledger(number) => {
            let what = Wanted::Block { number, kind, header };
            readings.try_send(Reading { peer, channel: channel.clone(), what }).is_ok()
        }
    }
}

/// A block as the transport takes it: channels share a connection fairly, and pushes give way to what was asked for.
pub(super) fn message(channel: &ChannelId, kind: BulkKind, header: Bytes, body: Bytes) -> BulkMessage {
    let mut hasher = DefaultHasher::new();
    // Two channels of one hash would share one turn, nothing worse.
    channel.hash(&mut hasher);
    BulkMessage { flow: Flow(hasher.finish()), header, body, is_push: kind == BulkKind::Push }
}
