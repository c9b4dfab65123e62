//! Sends blocks from the ledger to peers that asked, beside the core's own work.
//!
//! One thread reads and queues them in order, since a hop between tasks costs more than reading a small block; at most [`WAITING_MAX`] wait,
//! beyond it the peer hears that the block will not come, as it does when its send queue is full.

use std::thread::JoinHandle;

use bytes::Bytes;
use grapevine_channels::ChannelId;
use grapevine_channels::block::{BLOCK_SIZE_MAX, Block};
use grapevine_channels::wire::{BulkKind, Headers};
use grapevine_crypto::PkiId;
use tokio::sync::mpsc;

use super::sender;
use crate::ledger::{Ledger, LedgerError};
use crate::net::NetHandle;

/// Most readings that wait.
pub(super) const WAITING_MAX: usize = 4_096;
/// Bytes of blocks read for one answer with headers.
const HEADERS_READ_BYTES_MAX: usize = 16 << 20;

/// Something to read for a peer.
#[derive(Debug)]
pub(super) struct Reading {
    pub(super) peer: PkiId,
    pub(super) channel: ChannelId,
    pub(super) what: Wanted,
}

/// What a peer wants.
#[derive(Debug)]
pub(super) enum Wanted {
    /// A block, to be sent at once behind this header.
    Block { number: u64, kind: BulkKind, header: Bytes },
    /// Headers, which the node sends.
    Headers { first: u64, count: u64 },
}

/// What became of a reading.
#[derive(Debug)]
pub(super) enum ReaderNews {
    /// A block was not sent.
    NotSent { peer: PkiId, channel: ChannelId, number: u64 },
    /// Headers to send; none if they cannot be read.
    Headers { peer: PkiId, channel: ChannelId, headers: Headers },
}

/// Starts the thread. It ends when the sender is dropped, and must be joined before the process ends: it may be the last
/// that has the ledger open, and RocksDB must not be closed while the process tears itself down. At most one piece of news comes for
/// each reading.
///
/// # Errors
/// If the operating system gives no thread.
pub(super) fn spawn(
    ledger: Ledger,
    net: NetHandle,
) -> std::io::Result<(mpsc::Sender<Reading>, mpsc::Receiver<ReaderNews>, JoinHandle<()>)> {
    let (readings, mut waiting) = mpsc::channel::<Reading>(WAITING_MAX);
    let (news, receiver) = mpsc::channel(WAITING_MAX);
    let thread = std::thread::Builder::new().name("reader".to_owned()).spawn(move || {
        while let Some(reading) = waiting.blocking_recv() {
            if let Some(report) = carry_out(&ledger, &net, reading)
                && news.blocking_send(report).is_err()
            {
                return;
            }
        }
    })?;
    Ok((readings, receiver, thread))
}

fn carry_out(ledger: &Ledger, net: &NetHandle, reading: Reading) -> Option<ReaderNews> {
    let Reading { peer, channel, what } = reading;
    match what {
        Wanted::Block { number, kind, header } => {
            let sent = match ledger.block(&channel, number) {
                Ok(Some(body)) => net.send_bulk(peer, sender::message(&channel, kind, header, body)).is_ok(),
                Ok(None) => false,
                Err(error) => {
                    tracing::error!(%channel, number, %error, "a block cannot be read for a peer that asked");
                    false
                }
            };
            (!sent).then_some(ReaderNews::NotSent { peer, channel, number })
        }
        Wanted::Headers { first, count } => {
            let headers = headers(ledger, &channel, first, count).unwrap_or_else(|error| {
                tracing::error!(%channel, first, %error, "headers cannot be read for a peer that asked");
                Headers { first, ..Headers::default() }
            });
            Some(ReaderNews::Headers { peer, channel, headers })
        }
    }
}

/// Headers of consecutive blocks, as many as [`HEADERS_READ_BYTES_MAX`] bytes of blocks have, at least one.
fn headers(ledger: &Ledger, channel: &ChannelId, first: u64, count: u64) -> Result<Headers, LedgerError> {
    let mut bytes = 0usize;
    let blocks = ledger.iterate(channel, first..first.saturating_add(count)).take_while(|block| {
        let before = bytes;
        bytes = bytes.saturating_add(block.as_ref().map_or(0, |(_, encoded)| encoded.len()));
        before < HEADERS_READ_BYTES_MAX
    });
    let decoded = blocks.map(|block| {
        let (number, encoded) = block?;
        let size = encoded.len();
        let block = Block::decode(encoded, BLOCK_SIZE_MAX).map_err(|error| LedgerError::Damaged {
            channel: channel.clone(),
            number,
            detail: error.to_string(),
        })?;
        Ok((block, size))
    });
    Headers::of(first, decoded)
}
