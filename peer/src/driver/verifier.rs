//! The worker pool that tells authentic blocks from all else.
//!
//! Each block is decoded and verified under its channel's config, on tokio's blocking threads, as many at a time as
//! the machine has cores. How many wait is bounded by who asks: the node for peers' blocks, the permits of the orderer streams for
//! theirs.
//!
//! A block whose header was verified before is checked against that: by its data hash, without signatures.
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
use grapevine_channels::verify::{BlockVerifier, VerifiedHeader, VerifyError};
use grapevine_channels::wire::Headers;
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
    pub(super) result: Judged,
}

/// A block, or a range of headers.
#[derive(Debug)]
pub(super) enum Judged {
    Block(Result<AuthenticBlock, Rejection>),
    Headers(Result<Vec<VerifiedHeader>, Rejection>),
}

/// A block to be verified.
#[derive(Debug)]
pub(super) struct Job {
    pub(super) ticket: Ticket,
    pub(super) channel: ChannelId,
    /// The verified header of the number it is said to have.
    pub(super) header: Option<VerifiedHeader>,
    pub(super) body: Bytes,
}

#[derive(Debug)]
struct ChannelState {
    verifier: BlockVerifier,
    parked: Vec<Job>,
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
    pub(super) fn verify(&self, job: Job) {
        self.in_pool(|pool| pool.judge(job));
    }

    /// Verifies the signatures of headers; their verdict comes later.
    pub(super) fn verify_headers(&self, ticket: Ticket, channel: ChannelId, headers: Headers) {
        self.in_pool(move |pool| {
            let Some(verifier) = pool.lock().get(&channel).map(|state| state.verifier.clone()) else {
                return;
            };
            let result = Judged::Headers(judge_headers(&verifier, &headers));
            // The receiver is gone only when the peer is stopping.
            let _stopping = pool.verdicts.send(Verdict { ticket, channel, result });
        });
    }

    fn in_pool(&self, judge: impl FnOnce(&Self) + Send + 'static) {
        let pool = self.clone();
        tokio::spawn(async move {
            let Ok(permit) = pool.workers.clone().acquire_owned().await else { return };
            // A closed receiver means the peer is stopping.
            let _stopping = tokio::task::spawn_blocking(move || {
                judge(&pool);
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
        for job in parked {
            self.verify(job);
        }
        Some(Ok(next))
    }

    fn judge(&self, job: Job) {
        let Job { ticket, channel, header, body } = job;
        let Some(verifier) = self.lock().get(&channel).map(|state| state.verifier.clone()) else { return };
        let size_max = verifier.config().block_size_max();
        let verified = Block::decode(body.clone(), size_max).map_err(VerifyError::from).and_then(|block| {
            match header.as_ref().filter(|header| header.hash() == block.header_hash()) {
                Some(header) => verifier.verify_body(&block, header),
                // Nothing is known of it, or it is another block than the one of the verified header.
                None => verifier.verify(block),
            }
        });
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
                match self.park(config, Job { ticket, channel: channel.clone(), header, body }) {
                    Parking::Waits => return,
                    Parking::ConfigChanged(job) => return self.judge(job),
                    Parking::Full => Err(Rejection::Untimely(format!(
                        "it needs the config of block {last_config}, and too many others wait for that"
                    ))),
                }
            }
            Err(error @ VerifyError::OtherConfig { .. }) => Err(Rejection::Untimely(error.to_string())),
            Err(error) => Err(Rejection::Forged(error.to_string())),
        };
        // The receiver is gone only when the peer is stopping.
        let _stopping = self.verdicts.send(Verdict { ticket, channel, result: Judged::Block(result) });
    }

    fn park(&self, config: u64, job: Job) -> Parking {
        let mut channels = self.lock();
        let Some(state) = channels.get_mut(&job.channel) else { return Parking::Full };
        if state.verifier.config().config_block_number() != config {
            return Parking::ConfigChanged(job);
        }
        let bytes: usize = state.parked.iter().map(|parked| parked.body.len()).sum();
        if state.parked.len() >= PARKED_MAX || bytes.saturating_add(job.body.len()) > PARKED_BYTES_MAX {
            return Parking::Full;
        }
        state.parked.push(job);
        Parking::Waits
    }

    fn lock(&self) -> MutexGuard<'_, BTreeMap<ChannelId, ChannelState>> {
        self.channels.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

enum Parking {
    Waits,
    /// Meanwhile another config came into force: judge again.
    ConfigChanged(Job),
    Full,
}

/// The headers that hold, up to the first that another config decides about. The first that does not hold spoils the range.
fn judge_headers(verifier: &BlockVerifier, headers: &Headers) -> Result<Vec<VerifiedHeader>, Rejection> {
    let mut verified = Vec::with_capacity(headers.entries.len());
    for (header, signatures_metadata) in headers.headers() {
        match verifier.verify_header(header, signatures_metadata) {
            Ok(header) => verified.push(header),
            Err(VerifyError::OtherConfig { .. }) => break,
            Err(error) => return Err(Rejection::Forged(error.to_string())),
        }
    }
    Ok(verified)
}
