//! The worker pool that tells authentic blocks from all else.
//!
//! Each block is decoded and verified under its channel's config, on tokio's blocking threads, as many at a time as
//! the machine has cores; a thread takes one after the other as long as some wait. Small blocks are judged in tasks of the runtime. How many wait is bounded by who asks: the node for peers' blocks, the permits of the orderer streams for
//! theirs.
//!
//! A block whose header was verified before is checked against that: by its data hash, without signatures.
//!
//! A block that names a config this peer has not reached yet waits, at most [`PARKED_MAX`] and [`PARKED_BYTES_MAX`] a
//! channel; over it, it is dropped as untimely and fetched again later. A config block is verified under the config before it, and the config it brings in
//! is computed in the same place; it takes effect when the driver reports the block as committed.
//!
//! A block of a number that is committed is worth a look only if it is another one: its header hash is compared with the ledger's
//! first. If they differ it is verified under the config that was in force at its number, read from the chain; the last
//! [`FORMER_CONFIGS_MAX`] such configs are kept.

use std::collections::{BTreeMap, VecDeque};
use std::fmt;
use std::num::NonZero;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use bytes::Bytes;
use grapevine_channels::ChannelId;
use grapevine_channels::block::{AuthenticBlock, Block};
use grapevine_channels::config::ChannelConfig;
use grapevine_channels::node::{Rejection, Ticket};
use grapevine_channels::verify::{BlockVerifier, VerifiedHeader, VerifyError};
use grapevine_channels::wire::Headers;
use grapevine_crypto::{Digest, PkiId};
use tokio::sync::mpsc;

use crate::history;
use crate::ledger::Ledger;

/// Most blocks of one channel that wait for a config.
pub(super) const PARKED_MAX: usize = 64;
/// Most bytes of one channel that wait for a config.
pub(super) const PARKED_BYTES_MAX: usize = 16 << 20;

/// Blocks up to this size are judged in a task like any other: a fraction of a millisecond. On a busy machine the way to another thread
/// and back takes longer than that.
const SHORT_BYTES_MAX: usize = 256 << 10;

/// Most configs kept that are no longer in force.
const FORMER_CONFIGS_MAX: usize = 4;

/// What the pool found out.
#[derive(Debug)]
pub(super) enum Finding {
    Verdict(Verdict),
    /// The answer to [`Verifier::compare`].
    Compared {
        channel: ChannelId,
        block: AuthenticBlock,
        kept: Option<Digest>,
    },
    /// The answer to [`Verifier::look_up`].
    LookedUp {
        channel: ChannelId,
        number: u64,
        peer: PkiId,
        hash: Option<Digest>,
    },
}

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
    /// Header hash of the block that the node holds at that number, if it is known there.
    pub(super) kept: Option<Digest>,
    pub(super) body: Bytes,
}

#[derive(Debug)]
struct ChannelState {
    verifier: BlockVerifier,
    parked: Vec<Job>,
    /// Configs that verified config blocks bring in, by the block's header hash; bounded by the blocks in flight.
    next: BTreeMap<Digest, Result<Arc<ChannelConfig>, String>>,
}

/// Something to be done on a thread of the pool.
type Work = Box<dyn FnOnce(&Verifier) + Send>;

/// What waits, and how many threads are at it.
#[derive(Default)]
struct Pool {
    waiting: VecDeque<Work>,
    workers: usize,
}

impl fmt::Debug for Pool {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(formatter, "Pool {{ waiting: {}, workers: {} }}", self.waiting.len(), self.workers)
    }
}

/// See the module's header. Cheap to clone.
#[derive(Debug, Clone)]
pub(super) struct Verifier {
    channels: Arc<Mutex<BTreeMap<ChannelId, ChannelState>>>,
    former: Arc<Mutex<VecDeque<Arc<ChannelConfig>>>>,
    ledger: Ledger,
    pool: Arc<Mutex<Pool>>,
    workers_max: usize,
    findings: mpsc::UnboundedSender<Finding>,
}

impl Verifier {
    /// Findings go to the receiver: one for each block given, so as bounded as those are.
    pub(super) fn new(ledger: Ledger) -> (Self, mpsc::UnboundedReceiver<Finding>) {
        let workers_max = std::thread::available_parallelism().map_or(2, NonZero::get);
        let (findings, receiver) = mpsc::unbounded_channel();
        let verifier = Self {
            channels: Arc::default(),
            former: Arc::default(),
            ledger,
            pool: Arc::default(),
            workers_max,
            findings,
        };
        (verifier, receiver)
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
        if job.body.len() > SHORT_BYTES_MAX {
            return self.in_pool(|pool| pool.judge(job));
        }
        let pool = self.clone();
        tokio::spawn(async move { pool.judge(job) });
    }

    /// Verifies the signatures of headers; their verdict comes later.
    pub(super) fn verify_headers(&self, ticket: Ticket, channel: ChannelId, headers: Headers) {
        self.in_pool(move |pool| {
            let Some(verifier) = pool.lock().get(&channel).map(|state| state.verifier.clone()) else {
                return;
            };
            let result = Judged::Headers(judge_headers(&verifier, &headers));
            pool.found(Finding::Verdict(Verdict { ticket, channel, result }));
        });
    }

    /// Looks up the header hash of the committed block that has this one's number.
    pub(super) fn compare(&self, channel: ChannelId, block: AuthenticBlock) {
        self.in_pool(move |pool| {
            let kept = pool.committed_hash(&channel, block.number());
            pool.found(Finding::Compared { channel, block, kept });
        });
    }

    /// Looks up the header hash of a committed block, for the tip of a member.
    pub(super) fn look_up(&self, channel: ChannelId, number: u64, peer: PkiId) {
        self.in_pool(move |pool| {
            let hash = pool.committed_hash(&channel, number);
            pool.found(Finding::LookedUp { channel, number, peer, hash });
        });
    }

    fn found(&self, finding: Finding) {
        // The receiver is gone only when the peer is stopping.
        let _stopping = self.findings.send(finding);
    }

    fn in_pool(&self, work: impl FnOnce(&Self) + Send + 'static) {
        let mut pool = self.pool();
        pool.waiting.push_back(Box::new(work));
        if pool.workers < self.workers_max {
            pool.workers += 1;
            drop(pool);
            self.start_worker();
        }
    }

    fn start_worker(&self) {
        let worker = Worker(self.clone());
        // Dropped unstarted only if the peer is stopping.
        drop(tokio::task::spawn_blocking(move || worker.run()));
    }

    fn pool(&self) -> MutexGuard<'_, Pool> {
        self.pool.lock().unwrap_or_else(PoisonError::into_inner)
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
        let Some(verifier) = self.lock().get(&job.channel).map(|state| state.verifier.clone()) else {
            return;
        };
        let (ticket, channel) = (job.ticket, job.channel.clone());
        let result = match Block::decode(job.body.clone(), verifier.config().block_size_max()) {
            Ok(block) => {
                let (number, hash) = (block.number(), block.header_hash());
                let committed = self.committed_hash(&channel, number);
                if [job.kept, committed].contains(&Some(hash)) {
                    Some(Err(Rejection::Known { number, hash }))
                } else if committed.is_some() {
                    Some(self.verify_at_committed(&channel, &verifier, block))
                } else {
                    self.verify_new(job, &verifier, block)
                }
            }
            Err(error) => Some(Err(Rejection::Forged(error.to_string()))),
        };
        if let Some(result) = result {
            self.found(Finding::Verdict(Verdict { ticket, channel, result: Judged::Block(result) }));
        }
    }

    /// Verifies a block that goes on from the chain; `None`: it waits.
    fn verify_new(
        &self,
        job: Job,
        verifier: &BlockVerifier,
        block: Block,
    ) -> Option<Result<AuthenticBlock, Rejection>> {
        let verified = match job.header.as_ref().filter(|header| header.hash() == block.header_hash()) {
            Some(header) => verifier.verify_body(&block, header),
            // Nothing is known of it, or it is another block than the one of the verified header.
            None => verifier.verify(block),
        };
        match verified {
            Ok(block) => {
                if block.is_config() {
                    let next =
                        verifier.config().next(&block).map(Arc::new).map_err(|error| error.to_string());
                    if let Some(state) = self.lock().get_mut(&job.channel) {
                        state.next.insert(block.hash(), next);
                    }
                }
                Some(Ok(block))
            }
            Err(VerifyError::OtherConfig { last_config, config, .. }) if last_config > config => {
                match self.park(config, job) {
                    Parking::Waits => None,
                    Parking::ConfigChanged(job) => {
                        self.judge(job);
                        None
                    }
                    Parking::Full => Some(Err(Rejection::Untimely(format!(
                        "it needs the config of block {last_config}, and too many others wait for that"
                    )))),
                }
            }
            Err(error) => Some(Err(rejection(&error))),
        }
    }

    /// Verifies a block that is not the committed one of its number, under the config in force there.
    fn verify_at_committed(
        &self,
        channel: &ChannelId,
        newest: &BlockVerifier,
        block: Block,
    ) -> Result<AuthenticBlock, Rejection> {
        let below = block
            .number()
            .checked_sub(1)
            .ok_or_else(|| Rejection::Forged(VerifyError::Genesis.to_string()))?;
        let config = history::block(&self.ledger, channel, below)
            .and_then(|below| self.config_in(channel, newest.config(), history::config_number_after(&below)))
            // The ledger's fault, not the sender's.
            .map_err(|error| Rejection::Untimely(format!("{error:#}")))?;
        BlockVerifier::new(config).verify(block).map_err(|error| rejection(&error))
    }

    fn config_in(
        &self,
        channel: &ChannelId,
        newest: &Arc<ChannelConfig>,
        number: u64,
    ) -> anyhow::Result<Arc<ChannelConfig>> {
        let is_it = |config: &Arc<ChannelConfig>| {
            config.channel_id() == channel && config.config_block_number() == number
        };
        if is_it(newest) {
            return Ok(newest.clone());
        }
        let former = || self.former.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(config) = former().iter().find(|config| is_it(config)) {
            return Ok(config.clone());
        }
        let config = history::config_in(&self.ledger, channel, number)?;
        let mut former = former();
        former.truncate(FORMER_CONFIGS_MAX - 1);
        former.push_front(config.clone());
        Ok(config)
    }

    fn committed_hash(&self, channel: &ChannelId, number: u64) -> Option<Digest> {
        if number >= self.ledger.height(channel) {
            return None;
        }
        self.ledger.header_hash(channel, number).unwrap_or_else(|error| {
            tracing::error!(%channel, number, %error, "the hash of a block cannot be read");
            None
        })
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

/// A thread of the pool.
struct Worker(Verifier);

impl Worker {
    fn run(self) {
        while let Some(work) = self.next() {
            work(&self.0);
        }
    }

    /// `None` counts the worker out, under the same lock: what is put in afterwards starts another.
    fn next(&self) -> Option<Work> {
        let mut pool = self.0.pool();
        let work = pool.waiting.pop_front();
        if work.is_none() {
            pool.workers = pool.workers.saturating_sub(1);
        }
        work
    }
}

impl Drop for Worker {
    /// One block whose verification panics must not cost the pool a thread.
    fn drop(&mut self) {
        if std::thread::panicking() {
            self.0.start_worker();
        }
    }
}

/// A block that names a config no longer in force is nobody's fault.
fn rejection(error: &VerifyError) -> Rejection {
    match error {
        VerifyError::OtherConfig { .. } => Rejection::Untimely(error.to_string()),
        _ => Rejection::Forged(error.to_string()),
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

#[cfg(test)]
mod tests;
