//! Puts blocks that the ledger has lost back in their place, beside the core's own work.
//!
//! The header hash that a lost block must have is known from the chain; so number, link and data are certain once it and the
//! data hash fit. The signatures are checked under the config that was in force at that height, which the ledger has: they are
//! what other peers will check when they are served the block.
//!
//! At most [`grapevine_channels::restoration::ASKED_MAX`] blocks a channel come at a time, since no more are asked for.

use std::sync::Arc;

use bytes::Bytes;
use grapevine_channels::ChannelId;
use grapevine_channels::block::{AuthenticBlock, BLOCK_SIZE_MAX, Block};
use grapevine_channels::config::ChannelConfig;
use grapevine_channels::node::Rejection;
use grapevine_channels::verify::BlockVerifier;
use grapevine_crypto::PkiId;
use tokio::sync::mpsc;

use crate::history;
use crate::ledger::{Ledger, LedgerError};

/// Results waiting for the core; more make the restorers wait.
const RESULTS_MAX: usize = 64;

/// What became of a block that was to be restored.
#[derive(Debug)]
pub(super) struct Restored {
    pub(super) channel: ChannelId,
    pub(super) number: u64,
    pub(super) peer: PkiId,
    pub(super) result: Result<(), Rejection>,
}

/// See the module's header.
#[derive(Debug)]
pub(super) struct Restorer {
    ledger: Ledger,
    results: mpsc::Sender<Restored>,
}

impl Restorer {
    /// Results come at the receiver, one for each block given.
    pub(super) fn new(ledger: Ledger) -> (Self, mpsc::Receiver<Restored>) {
        let (results, receiver) = mpsc::channel(RESULTS_MAX);
        (Self { ledger, results }, receiver)
    }

    /// Checks what `peer` sent for a lost block and writes it.
    pub(super) fn restore(&self, channel: ChannelId, number: u64, peer: PkiId, body: Bytes) {
        let (ledger, results) = (self.ledger.clone(), self.results.clone());
        tokio::task::spawn_blocking(move || {
            let result = check(&ledger, &channel, number, body)
                .and_then(|block| ledger.restore(&channel, &block).map_err(|error| untimely(&error)));
            // A closed receiver means the peer is stopping.
            let _stopping = results.blocking_send(Restored { channel, number, peer, result });
        });
    }
}

fn untimely(error: &LedgerError) -> Rejection {
    Rejection::Untimely(error.to_string())
}

/// The block, if it is the one that was lost.
fn check(
    ledger: &Ledger,
    channel: &ChannelId,
    number: u64,
    body: Bytes,
) -> Result<AuthenticBlock, Rejection> {
    let expected = ledger.expected_hash(channel, number).ok_or_else(|| {
        Rejection::Untimely(format!(
            "the hash of block {number} is not known before the next one is restored"
        ))
    })?;
    let forged = |reason: String| Rejection::Forged(reason);
    let block = Block::decode(body, BLOCK_SIZE_MAX).map_err(|error| forged(error.to_string()))?;
    if block.number() != number || block.header_hash() != expected {
        return Err(forged(format!(
            "it is not block {number} of the chain, whose header hash is {expected}"
        )));
    }
    if number == 0 {
        return AuthenticBlock::genesis(&block).map_err(|error| forged(error.to_string()));
    }
    let config = config_before(ledger, channel, &block)?;
    BlockVerifier::new(config).verify(block).map_err(|error| forged(error.to_string()))
}

/// The config a block was made under: the one it names or, for a config block, the one before.
fn config_before(
    ledger: &Ledger,
    channel: &ChannelId,
    block: &Block,
) -> Result<Arc<ChannelConfig>, Rejection> {
    let untimely = |error: anyhow::Error| Rejection::Untimely(format!("{error:#}"));
    let mut number = block.last_config_index().unwrap_or(0);
    if number == block.number() {
        let before = history::block(ledger, channel, number.saturating_sub(1)).map_err(untimely)?;
        number = history::config_number_after(&before);
    }
    if number >= block.number() {
        return Err(Rejection::Forged(format!("it names the config of block {number}, which comes later")));
    }
    history::config_in(ledger, channel, number).map_err(untimely)
}
