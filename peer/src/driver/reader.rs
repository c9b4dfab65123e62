//! Sends blocks from the ledger to peers that asked, beside the core's own work.
//!
//! One task reads and queues them in order; at most [`WAITING_MAX`] wait, beyond it the peer hears that the block will not
//! come, as it does when its send queue is full.

use bytes::Bytes;
use grapevine_channels::ChannelId;
use grapevine_crypto::PkiId;
use tokio::sync::mpsc;

use crate::ledger::Ledger;
use crate::net::NetHandle;

/// Most blocks waiting to be read.
pub(super) const WAITING_MAX: usize = 512;

/// A block to read and send.
#[derive(Debug)]
pub(super) struct Reading {
    pub(super) peer: PkiId,
    pub(super) channel: ChannelId,
    pub(super) number: u64,
    pub(super) header: Bytes,
}

/// A block that was not sent.
#[derive(Debug)]
pub(super) struct NotSent {
    pub(super) peer: PkiId,
    pub(super) channel: ChannelId,
    pub(super) number: u64,
}

/// Starts the task. It ends when the sender is dropped. Failures come at the receiver, one for each reading at most.
pub(super) fn spawn(ledger: Ledger, net: NetHandle) -> (mpsc::Sender<Reading>, mpsc::Receiver<NotSent>) {
    let (readings, mut waiting) = mpsc::channel::<Reading>(WAITING_MAX);
    let (failures, not_sent) = mpsc::channel(WAITING_MAX);
    tokio::spawn(async move {
        while let Some(Reading { peer, channel, number, header }) = waiting.recv().await {
            let (ledger, of) = (ledger.clone(), channel.clone());
            let read = tokio::task::spawn_blocking(move || ledger.block(&of, number)).await;
            let sent = match read {
                Ok(Ok(Some(body))) => net.send_bulk(peer, header, body).is_ok(),
                Ok(Ok(None)) | Err(_) => false,
                Ok(Err(error)) => {
                    tracing::error!(%channel, number, %error, "a block cannot be read for a peer that asked");
                    false
                }
            };
            if !sent && failures.send(NotSent { peer, channel, number }).await.is_err() {
                return;
            }
        }
    });
    (readings, not_sent)
}
