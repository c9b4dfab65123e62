//! One channel as the ordering service runs it: a queue of transactions, the batch cutter with its timer, and the writer
//! that makes signed blocks of batches and stores them.
//!
//! Promises: transactions of one stream are ordered as they came; a block is visible ([`Chain::state`]) only after it is
//! synced to disk; on an orderly stop everything that was accepted is written as a last block. An accepted transaction that
//! is not yet in a block is lost by `kill -9`, as in Fabric.
//!
//! Bounds: at most [`QUEUE_MESSAGES_MAX`] transactions and [`QUEUE_BYTES_MAX`] bytes wait in a channel's queue and batch;
//! a sender beyond that waits, so the client's stream stalls and nothing is dropped.
//!
//! A write error stops the channel, not the process: from then on it answers 503 and serves what it has to readers that
//! ask for best effort.

use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use grapevine_channels::ChannelId;
use grapevine_channels::block::Block;
use grapevine_channels::config::ChannelConfig;
use grapevine_crypto::Signer;
use tokio::sync::{OwnedSemaphorePermit, Semaphore, mpsc, watch};
use tokio::task::JoinHandle;
use tokio::time::Instant;
use tokio_util::sync::CancellationToken;

use crate::cutter::{BatchCutter, BatchLimits};
use crate::rpc::MESSAGE_BYTES_MAX;
use crate::store::{BlockReader, BlockStore};
use crate::writer::BlockWriter;

/// Most transactions that wait in a channel's queue, beyond those in the pending batch.
pub const QUEUE_MESSAGES_MAX: usize = 1024;

/// Most bytes of transactions that wait in a channel's queue and pending batch. At least one transaction of any size
/// fits.
pub const QUEUE_BYTES_MAX: usize = MESSAGE_BYTES_MAX;

/// Why a channel cannot be opened.
#[derive(Debug, thiserror::Error)]
pub enum ChainError {
    /// The genesis file is no block.
    #[error(
        "the genesis block is not a block: {0}; make it with `grapevine net init` or Fabric's configtxgen"
    )]
    Genesis(#[source] grapevine_channels::block::BlockError),
    /// The genesis file is a block of a running chain.
    #[error("the genesis block has number {0}; give the channel's block 0")]
    NotGenesis(u64),
    /// A config block holds no usable config.
    #[error("block {number} holds no usable channel config: {source}")]
    Config {
        /// Number of the config block.
        number: u64,
        /// What is wrong with it.
        source: grapevine_channels::config::ConfigError,
    },
    /// The channel's directory.
    #[error(transparent)]
    Store(#[from] crate::store::StoreError),
}

/// What an operator sets in place of the channel's batch parameters.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct BatchOverrides {
    /// Longest wait of a transaction for others.
    pub timeout: Option<Duration>,
    /// Most transactions in a block.
    pub max_message_count: Option<usize>,
    /// Bytes above which a transaction is refused; the channel's own limit stays the upper bound.
    pub absolute_max_bytes: Option<usize>,
    /// Bytes above which a batch is cut.
    pub preferred_max_bytes: Option<usize>,
}

/// What everyone who waits for a channel looks at.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct ChainState {
    /// Number of synced blocks.
    pub height: u64,
    /// Whether a write failed, so that no block will follow until a restart.
    pub failed: bool,
}

/// The channel cannot take a transaction: it is stopping or its disk failed.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("the channel takes no more transactions")]
pub struct Stopped;

/// A transaction in the queue.
#[derive(Debug)]
struct Queued {
    envelope: Bytes,
    size_bytes: usize,
    /// Held until the transaction is in a synced block.
    permit: OwnedSemaphorePermit,
}

/// A running channel. Shared by all streams.
#[derive(Debug)]
pub struct Chain {
    channel: ChannelId,
    config: Arc<ChannelConfig>,
    limits: BatchLimits,
    reader: BlockReader,
    state: watch::Receiver<ChainState>,
    queue: mpsc::Sender<Queued>,
    budget: Arc<Semaphore>,
}

impl Chain {
    /// Opens the channel of a genesis block file below `location` and starts its task. The task ends, with all accepted
    /// transactions written, when `stop` is cancelled or the last [`Chain`] is dropped. Blocks; call it before serving.
    pub fn start(
        location: &std::path::Path,
        genesis_bytes: Bytes,
        signer: Arc<Signer>,
        overrides: BatchOverrides,
        stop: CancellationToken,
    ) -> Result<(Self, JoinHandle<()>), ChainError> {
        let genesis = Block::decode(genesis_bytes.clone(), MESSAGE_BYTES_MAX).map_err(ChainError::Genesis)?;
        if genesis.header().number != 0 {
            return Err(ChainError::NotGenesis(genesis.header().number));
        }
        let first = config_of(&genesis)?;
        let channel = first.channel_id().clone();
        let store = BlockStore::open(&location.join(channel.as_str()), &genesis_bytes, &genesis)?;
        let reader = store.reader();
        let config = match store.last_config() {
            0 => first,
            number => {
                let bytes = reader.read(number)?;
                config_of(&Block::decode(bytes, MESSAGE_BYTES_MAX).map_err(ChainError::Genesis)?)?
            }
        };
        let config = Arc::new(config);
        let limits = limits(&config, &overrides);
        let (state_sender, state) = watch::channel(ChainState { height: store.height(), failed: false });
        let (queue, receiver) = mpsc::channel(QUEUE_MESSAGES_MAX);
        let task = Orderer {
            channel: channel.clone(),
            limits,
            timeout: overrides.timeout.unwrap_or_else(|| Duration::from_millis(config.batch_timeout_ms())),
            cutter: BatchCutter::default(),
            writer: Some(BlockWriter::new(store, signer)),
            state: state_sender,
            stop,
        };
        tracing::info!(%channel, height = state.borrow().height, "channel is open");
        let handle = tokio::spawn(task.run(receiver));
        let budget = Arc::new(Semaphore::new(QUEUE_BYTES_MAX));
        Ok((Self { channel, config, limits, reader, state, queue, budget }, handle))
    }

    /// The channel's name.
    pub fn channel(&self) -> &ChannelId {
        &self.channel
    }

    /// The config in force.
    pub fn config(&self) -> Arc<ChannelConfig> {
        self.config.clone()
    }

    /// Height and health, to look at or to wait on.
    pub fn state(&self) -> watch::Receiver<ChainState> {
        self.state.clone()
    }

    /// Reads stored blocks; ask only for numbers below [`ChainState::height`].
    pub fn reader(&self) -> &BlockReader {
        &self.reader
    }

    /// Limits of this channel's batches.
    pub fn limits(&self) -> BatchLimits {
        self.limits
    }

    /// Queues a checked transaction: `envelope` is the marshalled `common.Envelope`, `size_bytes` its payload and
    /// signature together. Waits while the queue is full.
    pub async fn order(&self, envelope: Bytes, size_bytes: usize) -> Result<(), Stopped> {
        if self.state.borrow().failed {
            return Err(Stopped);
        }
        let bytes = envelope.len().clamp(1, QUEUE_BYTES_MAX);
        let permits = u32::try_from(bytes).unwrap_or(u32::MAX);
        let permit = self.budget.clone().acquire_many_owned(permits).await.map_err(|_| Stopped)?;
        self.queue.send(Queued { envelope, size_bytes, permit }).await.map_err(|_| Stopped)
    }
}

fn config_of(block: &Block) -> Result<ChannelConfig, ChainError> {
    let number = block.header().number;
    ChannelConfig::from_block(block).map_err(|source| ChainError::Config { number, source })
}

/// The channel's limits with the operator's overrides. Peers refuse blocks above the channel's `absolute_max_bytes`, so an
/// override cannot raise that.
fn limits(config: &ChannelConfig, overrides: &BatchOverrides) -> BatchLimits {
    let size = config.batch_size();
    let whole = |value: u32| usize::try_from(value).unwrap_or(usize::MAX);
    let absolute_max_bytes = whole(size.absolute_max_bytes);
    let at_most = |wanted: Option<usize>, otherwise: u32| match wanted {
        Some(bytes) if bytes > absolute_max_bytes => {
            tracing::warn!(
                bytes,
                absolute_max_bytes,
                "a batch override is above what the channel allows; lowered"
            );
            absolute_max_bytes
        }
        Some(bytes) => bytes,
        None => whole(otherwise),
    };
    BatchLimits {
        max_message_count: overrides.max_message_count.unwrap_or_else(|| whole(size.max_message_count)),
        preferred_max_bytes: at_most(overrides.preferred_max_bytes, size.preferred_max_bytes),
        absolute_max_bytes: at_most(overrides.absolute_max_bytes, size.absolute_max_bytes),
    }
}

/// The task that turns a queue into blocks.
struct Orderer {
    channel: ChannelId,
    limits: BatchLimits,
    timeout: Duration,
    cutter: BatchCutter<Queued>,
    /// `None` only while a write runs on another thread, or after one panicked.
    writer: Option<BlockWriter>,
    state: watch::Sender<ChainState>,
    stop: CancellationToken,
}

impl Orderer {
    async fn run(mut self, mut queue: mpsc::Receiver<Queued>) {
        let mut deadline: Option<Instant> = None;
        let stop = self.stop.clone();
        loop {
            let batches = tokio::select! {
                // Closing keeps what is queued: `recv` yields it before it yields `None`.
                () = stop.cancelled(), if !queue.is_closed() => {
                    queue.close();
                    Vec::new()
                }
                queued = queue.recv() => match queued {
                    None => break,
                    Some(queued) => {
                        let size_bytes = queued.size_bytes;
                        let cut = self.cutter.add(&self.limits, queued, size_bytes);
                        deadline = cut.pending.then(|| deadline.unwrap_or_else(|| Instant::now() + self.timeout));
                        cut.batches
                    }
                },
                () = sleep_until(deadline) => {
                    deadline = None;
                    self.cutter.cut().into_iter().collect()
                }
            };
            for batch in batches {
                if !self.write(batch).await {
                    return;
                }
            }
        }
        if let Some(batch) = self.cutter.cut() {
            self.write(batch).await;
        }
        tracing::info!(channel = %self.channel, height = self.state.borrow().height, "channel is closed");
    }

    /// Writes one block; false if the channel has failed.
    async fn write(&mut self, batch: Vec<Queued>) -> bool {
        let Some(mut writer) = self.writer.take() else { return false };
        let mut permits = Vec::with_capacity(batch.len());
        let mut envelopes = Vec::with_capacity(batch.len());
        for queued in batch {
            envelopes.push(queued.envelope);
            permits.push(queued.permit);
        }
        let transactions = envelopes.len();
        let written = tokio::task::spawn_blocking(move || {
            let result = writer.write(envelopes);
            (writer, result)
        })
        .await;
        drop(permits);
        let error = match written {
            Ok((writer, Ok(height))) => {
                self.writer = Some(writer);
                self.state.send_replace(ChainState { height, failed: false });
                tracing::debug!(channel = %self.channel, height, transactions, "block written");
                return true;
            }
            Ok((_, Err(error))) => error.to_string(),
            Err(error) => error.to_string(),
        };
        tracing::error!(channel = %self.channel, error, "cannot write a block; the channel stands still until a restart");
        self.state.send_modify(|state| state.failed = true);
        false
    }
}

async fn sleep_until(deadline: Option<Instant>) {
    match deadline {
        Some(deadline) => tokio::time::sleep_until(deadline).await,
        None => std::future::pending().await,
    }
}
