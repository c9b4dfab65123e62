//! One question: what is the header of a channel's newest block?
//!
//! Endpoints are asked in random order, one at a time, until one answers or the time is up. The header comes with the orderers'
//! signatures, not verified. Orderers leave out the data (`HEADER_WITH_SIG`), except of a config block; one that knows no such
//! request sends the whole block, whose size is bounded like that of a stream.

use std::sync::Arc;
use std::time::{Duration, Instant};

use bytes::Bytes;
use grapevine_channels::proto::common::Block;
use grapevine_channels::wire::{HeaderEntry, Headers};
use grapevine_crypto::Signer;
use prost::Message;
use rand::seq::SliceRandom;
use tokio::sync::mpsc;

use super::DeliverConfig;
use super::session::{Session, SessionEnd};

/// What an orderer answered.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct NewestHeader {
    /// From the request on the connected channel to the answer.
    pub round_trip: Duration,
    /// The header, as the only one.
    pub header: Headers,
}

/// Asks until an orderer answers, for `time` at most.
///
/// # Errors
/// Why the last one asked did not answer, for the operator.
pub async fn newest_header(
    config: &DeliverConfig,
    signer: &Arc<Signer>,
    time: Duration,
) -> Result<NewestHeader, String> {
    let late = || format!("no orderer answered within {} ms", time.as_millis());
    tokio::time::timeout(time, ask_in_turn(config, signer)).await.unwrap_or_else(|_| Err(late()))
}

async fn ask_in_turn(config: &DeliverConfig, signer: &Arc<Signer>) -> Result<NewestHeader, String> {
    let mut endpoints: Vec<_> = config.endpoints.iter().collect();
    endpoints.shuffle(&mut rand::rng());
    let mut reason = "the channel config names no orderer".to_owned();
    let (sink, _events) = mpsc::channel(1);
    for endpoint in endpoints {
        let mut next = 0;
        let session = Session {
            config,
            endpoint,
            block_bytes_max: config.block_bytes_max,
            signer,
            sink: &sink,
            next: &mut next,
        };
        let mut asked = Instant::now();
        match session.newest(&mut asked).await {
            Ok(bytes) => match header_of(bytes) {
                Some(header) => return Ok(NewestHeader { round_trip: asked.elapsed(), header }),
                None => reason = "the orderer sent no block".to_owned(),
            },
            Err(SessionEnd::Failed(failure)) => reason = failure,
            Err(SessionEnd::Closed | SessionEnd::Changed) => {}
        }
    }
    Err(reason)
}

/// The header of a block, with or without data.
fn header_of(block: Bytes) -> Option<Headers> {
    let block_bytes = block.len() as u64;
    let block = Block::decode(block).ok()?;
    let header = block.header?;
    let signatures_metadata = block.metadata?.metadata.into_iter().next()?;
    let entry = HeaderEntry { data_hash: header.data_hash.into(), signatures_metadata, block_bytes };
    Some(Headers { first: header.number, previous_hash: header.previous_hash.into(), entries: vec![entry] })
}
