//! One question: what is the newest block of a channel?
//!
//! Endpoints are asked in random order, one at a time, until one answers or the time is up. What comes is the raw block, not
//! verified; its size is bounded like that of a stream.

use std::sync::Arc;
use std::time::{Duration, Instant};

use bytes::Bytes;
use grapevine_crypto::Signer;
use rand::seq::SliceRandom;
use tokio::sync::mpsc;

use super::DeliverConfig;
use super::session::{Session, SessionEnd};

/// What an orderer answered.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct NewestBlock {
    /// From the request on the connected channel to the block.
    pub round_trip: Duration,
    /// Raw bytes of a `common.Block`.
    pub bytes: Bytes,
}

/// Asks until an orderer answers, for `time` at most.
///
/// # Errors
/// Why the last one asked did not answer, for the operator.
pub async fn newest_block(
    config: &DeliverConfig,
    signer: &Arc<Signer>,
    time: Duration,
) -> Result<NewestBlock, String> {
    let late = || format!("no orderer answered within {} ms", time.as_millis());
    tokio::time::timeout(time, ask_in_turn(config, signer)).await.unwrap_or_else(|_| Err(late()))
}

async fn ask_in_turn(config: &DeliverConfig, signer: &Arc<Signer>) -> Result<NewestBlock, String> {
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
            Ok(bytes) => return Ok(NewestBlock { round_trip: asked.elapsed(), bytes }),
            Err(SessionEnd::Failed(failure)) => reason = failure,
            Err(SessionEnd::Closed | SessionEnd::Changed) => {}
        }
    }
    Err(reason)
}
