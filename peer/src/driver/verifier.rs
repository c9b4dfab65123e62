//! The worker pool that tells authentic blocks from all else.
//!
//! Each block is decoded and verified under its channel's config, on tokio's blocking threads, as many at a time as
//! the machine has cores. How many wait is bounded by who asks: the node for peers' blocks, the permits of the orderer streams for
//! theirs.
//!
//! A block that names a config this peer has not reached yet waits, at most [`PARKED_MAX`] and [`PARKED_BYTES_MAX`] a
//! channel; over it, it is dropped as untimely and fetched again later. A config block is verified under the config before it, and the config it brings in
//! is computed in the same place; it takes effect when the driver reports the block as committed.

use std::collections::BTreeMap;
use std::num::NonZero;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use bytes::Bytes;
use grapevine_channels::ChannelId;
use grapevine_channels::block::{AuthenticBlock, Block};
use grapevine_channels::config::ChannelConfig;
use grapevine_channels::node::{Rejection, Ticket};
use grapevine_channels::verify::{BlockVerifier, VerifyError};
use grapevine_crypto::Digest;
use tokio::sync::{Semaphore, mpsc};

/// Most blocks of one channel that wait for a config.
pub(super) const PARKED_MAX: usize = 64;
/// Most bytes of one channel that wait for a config.
pub(super) const PARKED_BYTES_MAX: usize = 16 << 20;

/// What became of a block.
#[derive(Debug)]
pub(super) struct Verdict {
    pub(super) ticket: Ticket,
    pub(super) channel: ChannelId,
    pub(super) result: Result<AuthenticBlock, Rejection>,
}

#[derive(Debug)]
struct Parked {
    ticket: Ticket,
    body: Bytes,
}

#[derive(Debug)]
struct ChannelState {
    verifier: BlockVerifier,
    parked: Vec<Parked>,
    /// Configs that verified config blocks bring in, by the block's header hash; bounded by the blocks in flight.
    next: BTreeMap<Digest, Result<Arc<ChannelConfig>, String>>,
}

/// See the module's header. Cheap to clone.
#[derive(Debug, Clone)]
pub(super) struct Verifier {
    channels: Arc<Mutex<BTreeMap<ChannelId, ChannelState>>>,
    workers: Arc<Semaphore>,
    verdicts: mpsc::UnboundedSender<Verdict>,
}

impl Verifier {
    /// Verdicts go to the receiver: one for each block given, so as bounded as those are.
    pub(super) fn new() -> (Self, mpsc::UnboundedReceiver<Verdict>) {
        let cores = std::thread::available_parallelism().map_or(2, NonZero::get);
        let (verdicts, receiver) = mpsc::unbounded_channel();
        let workers = Arc::new(Semaphore::new(cores));
        (Self { channels: Arc::default(), workers, verdicts }, receiver)
    }

    /// Starts verifying blocks of a channel under its newest config.
    pub(super) fn add_channel(&self, config: Arc<ChannelConfig>) {
        let channel = config.channel_id().clone();
        let state =
            ChannelState { verifier: BlockVerifier::new(config), parked: Vec::new(), next: BTreeMap::new() };
        self.lock().insert(channel, state);
    }

    /// The config in force.
    pub(super) fn config(&self, channel: &ChannelId) -> Option<Arc<ChannelConfig>> {
        self.lock().get(channel).map(|state| state.verifier.config().clone())
    }

    /// Verifies a block; its verdict comes later.
    pub(super) fn verify(&self, ticket: Ticket, channel: ChannelId, body: Bytes) {
        let pool = self.clone();
        tokio::spawn(async move {
            let Ok(permit) = pool.workers.clone().acquire_owned().await else { return };
            // A closed receiver means the peer is stopping.
            let _stopping = tokio::task::spawn_blocking(move || {
                pool.judge(ticket, channel, body);
                drop(permit);
            })
            .await;
        });
    }

    /// A config block is on disk: its config is in force from now on, and the blocks that waited for it are judged.
    /// `None` if the block was not judged here; the error says why the config can't be used.
    pub(super) fn committed(
        &self,
        channel: &ChannelId,
        block: &Digest,
    ) -> Option<Result<Arc<ChannelConfig>, String>> {
        let (next, parked) = {
            let mut channels = self.lock();
            let state = channels.get_mut(channel)?;
            let next = state.next.remove(block)?;
            let Ok(config) = next else { return Some(next) };
            state.verifier = BlockVerifier::new(config.clone());
            state.next.clear();
            (config, std::mem::take(&mut state.parked))
        };
        for Parked { ticket, body } in parked {
            self.verify(ticket, channel.clone(), body);
        }
        Some(Ok(next))
    }

    fn judge(&self, ticket: Ticket, channel: ChannelId, body: Bytes) {
        let Some(verifier) = self.lock().get(&channel).map(|state| state.verifier.clone()) else { return };
        let size_max = verifier.config().block_size_max();
        let verified = Block::decode(body.clone(), size_max)
            .map_err(VerifyError::from)
            .and_then(|block| verifier.verify(block));
        let result = match verified {
            Ok(block) => {
                if block.is_config() {
                    let next =
                        verifier.config().next(&block).map(Arc::new).map_err(|error| error.to_string());
                    if let Some(state) = self.lock().get_mut(&channel) {
                        state.next.insert(block.hash(), next);
                    }
                }
                Ok(block)
            }
            Err(VerifyError::OtherConfig { last_config, config, .. }) if last_config > config => {
                match self.park(&channel, config, ticket, body) {
                    Parking::Waits => return,
                    Parking::ConfigChanged(body) => return self.judge(ticket, channel, body),
                    Parking::Full => Err(Rejection::Untimely(format!(
                        "it needs the config of block {last_config}, and too many others wait for that"
                    ))),
                }
            }
            Err(error @ VerifyError::OtherConfig { .. }) => Err(Rejection::Untimely(error.to_string())),
            Err(error) => Err(Rejection::Forged(error.to_string())),
        };
        // The receiver is gone only when the peer is stopping.
        let _stopping = self.verdicts.send(Verdict { ticket, channel, result });
    }

    fn park(&self, channel: &ChannelId, config: u64, ticket: Ticket, body: Bytes) -> Parking {
        let mut channels = self.lock();
        let Some(state) = channels.get_mut(channel) else { return Parking::Full };
        if state.verifier.config().config_block_number() != config {
            return Parking::ConfigChanged(body);
        }
        let bytes: usize = state.parked.iter().map(|parked| parked.body.len()).sum();
        if state.parked.len() >= PARKED_MAX || bytes.saturating_add(body.len()) > PARKED_BYTES_MAX {
            return Parking::Full;
        }
        state.parked.push(Parked { ticket, body });
        Parking::Waits
    }

    fn lock(&self) -> MutexGuard<'_, BTreeMap<ChannelId, ChannelState>> {
        self.channels.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

enum Parking {
    Waits,
    /// Meanwhile another config came into force: judge again.
    ConfigChanged(Bytes),
    Full,
}
