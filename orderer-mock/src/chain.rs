//! One channel as the ordering service runs it: a queue of transactions and config updates, the batch cutter with its
//! timer, and the writer that makes signed blocks of batches and stores them.
//!
//! A config update is judged when its turn in the queue comes, against the config of that moment, so of two racing updates
//! the second fails if the first has changed what it builds on. One that holds cuts what is pending, stands alone in a
//! config block, and is in force from then on: for the policies of clients, the sizes and the timeout of batches, and as
//! the last config of later blocks. Its sender is answered when the block is synced, other than in Fabric, which answers
//! before it orders. A transaction that was checked under an earlier config is checked again before it enters a batch and
//! dropped if it fails now, as in Fabric.
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
use grapevine_block_trace::{BlockTrace, Station};
use grapevine_channels::ChannelId;
use grapevine_channels::block::{Block, BlockHeader};
use grapevine_channels::config::{BLOCK_VALIDATION, ChannelConfig};
use grapevine_channels::deliver::Refusal;
use grapevine_channels::policy::SignedData;
use grapevine_channels::proto::common::{Envelope, HeaderType, Status};
use grapevine_channels::transaction::{EnvelopeHeader, signed_envelope};
use grapevine_crypto::Signer;
use prost::Message;
use tokio::sync::{OwnedSemaphorePermit, Semaphore, mpsc, oneshot, watch};
use tokio::task::JoinHandle;
use tokio::time::Instant;
use tokio_util::sync::CancellationToken;

use crate::broadcast;
use crate::clock::unix_seconds;
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

/// What follows from the channel config and the operator's overrides.
#[derive(Debug)]
struct Settings {
    config: Arc<ChannelConfig>,
    limits: BatchLimits,
    timeout: Duration,
}

impl Settings {
    fn new(config: ChannelConfig, overrides: &BatchOverrides) -> Self {
        let limits = limits(&config, overrides);
        let timeout = overrides.timeout.unwrap_or_else(|| Duration::from_millis(config.batch_timeout_ms()));
        Self { config: Arc::new(config), limits, timeout }
    }
}

/// A transaction in the queue.
#[derive(Debug)]
struct Queued {
    envelope: Bytes,
    size_bytes: usize,
    /// Sequence of the config under which it was checked.
    config_sequence: u64,
    /// Held until the transaction is in a synced block.
    permit: OwnedSemaphorePermit,
}

/// A config update in the queue.
#[derive(Debug)]
struct QueuedUpdate {
    update: Envelope,
    answer: oneshot::Sender<Result<(), Refusal>>,
    _permit: OwnedSemaphorePermit,
}

#[derive(Debug)]
enum QueueEntry {
    Transaction(Queued),
    Update(Box<QueuedUpdate>),
}

/// A running channel. Shared by all streams.
#[derive(Debug)]
pub struct Chain {
    channel: ChannelId,
    settings: watch::Receiver<Arc<Settings>>,
    reader: BlockReader,
    state: watch::Receiver<ChainState>,
    queue: mpsc::Sender<QueueEntry>,
    budget: Arc<Semaphore>,
}

impl Chain {
    /// Opens the channel of a genesis block file below `location` and starts its task. The task ends, with all accepted
    /// transactions written, when `stop` is cancelled or the last [`Chain`] is dropped. `trace` hears of every block written. Blocks;
    /// call it before serving.
    pub fn start(
        location: &std::path::Path,
        genesis_bytes: Bytes,
        signer: Arc<Signer>,
        overrides: BatchOverrides,
        trace: BlockTrace,
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
        let initial = Arc::new(Settings::new(config, &overrides));
        let (settings_sender, settings) = watch::channel(initial.clone());
        let (state_sender, state) = watch::channel(ChainState { height: store.height(), failed: false });
        let (queue, receiver) = mpsc::channel(QUEUE_MESSAGES_MAX);
        let task = Orderer {
            channel: channel.clone(),
            settings: initial,
            announced: settings_sender,
            overrides,
            deadline: None,
            cutter: BatchCutter::default(),
            writer: Some(BlockWriter::new(store, signer.clone())),
            signer,
            state: state_sender,
            trace,
            stop,
        };
        tracing::info!(%channel, height = state.borrow().height, "channel is open");
        warn_of_signer(&settings.borrow().config, &task.signer);
        let handle = tokio::spawn(task.run(receiver));
        let budget = Arc::new(Semaphore::new(QUEUE_BYTES_MAX));
        Ok((Self { channel, settings, reader, state, queue, budget }, handle))
    }

    /// The channel's name.
    pub fn channel(&self) -> &ChannelId {
        &self.channel
    }

    /// The config in force. Never older than that of the newest block that [`Self::state`] shows.
    pub fn config(&self) -> Arc<ChannelConfig> {
        self.settings.borrow().config.clone()
    }

    /// Height and health, to look at or to wait on.
    pub fn state(&self) -> watch::Receiver<ChainState> {
        self.state.clone()
    }

    /// Reads stored blocks; ask only for numbers below [`ChainState::height`].
    pub fn reader(&self) -> &BlockReader {
        &self.reader
    }

    /// Limits of this channel's batches under the config in force.
    pub fn limits(&self) -> BatchLimits {
        self.settings.borrow().limits
    }

    /// Queues a transaction that was checked under the config of sequence `config_sequence`: `envelope` is the marshalled
    /// `common.Envelope`, `size_bytes` its payload and signature together. Waits while the queue is full.
    pub async fn order(
        &self,
        envelope: Bytes,
        size_bytes: usize,
        config_sequence: u64,
    ) -> Result<(), Stopped> {
        let permit = self.reserve(envelope.len()).await?;
        let queued = Queued { envelope, size_bytes, config_sequence, permit };
        self.queue.send(QueueEntry::Transaction(queued)).await.map_err(|_| Stopped)
    }

    /// Queues a config update, an envelope of type CONFIG_UPDATE whose sender may write, and waits until it is in a synced
    /// config block or refused: 400 if anything is wrong with it, 503 if the channel has stopped.
    pub async fn configure(&self, update: Envelope) -> Result<(), Refusal> {
        let stopped = || Refusal::new(Status::ServiceUnavailable, Stopped.to_string());
        let permit = self.reserve(update.encoded_len()).await.map_err(|_| stopped())?;
        let (answer, answered) = oneshot::channel();
        let entry = QueueEntry::Update(QueuedUpdate { update, answer, _permit: permit }.into());
        self.queue.send(entry).await.map_err(|_| stopped())?;
        answered.await.unwrap_or_else(|_| Err(stopped()))
    }

    async fn reserve(&self, bytes: usize) -> Result<OwnedSemaphorePermit, Stopped> {
        if self.state.borrow().failed {
            return Err(Stopped);
        }
        let permits = u32::try_from(bytes.clamp(1, QUEUE_BYTES_MAX)).unwrap_or(u32::MAX);
        self.budget.clone().acquire_many_owned(permits).await.map_err(|_| Stopped)
    }
}

/// Says at once what peers would say of every block. Of a BFT channel no orderer satisfies the policy alone.
fn warn_of_signer(config: &ChannelConfig, signer: &Signer) {
    let data = Bytes::from_static(b"would this signature do?");
    let (identity, signature) = (Bytes::copy_from_slice(signer.serialized()), signer.sign(&data).into());
    if let Err(error) = config.evaluate(BLOCK_VALIDATION, &[SignedData { data, identity, signature }]) {
        let channel = config.channel_id();
        tracing::warn!(%channel, %error, "peers will refuse the blocks of this orderer: its signature does not satisfy {BLOCK_VALIDATION}; check General.LocalMSPID and LocalMSPDir");
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
    settings: Arc<Settings>,
    announced: watch::Sender<Arc<Settings>>,
    overrides: BatchOverrides,
    /// When the pending batch is cut at the latest.
    deadline: Option<Instant>,
    cutter: BatchCutter<Queued>,
    /// `None` only while a write runs on another thread, or after one panicked.
    writer: Option<BlockWriter>,
    signer: Arc<Signer>,
    state: watch::Sender<ChainState>,
    trace: BlockTrace,
    stop: CancellationToken,
}

/// A write failed; no block can follow.
struct Failed;

impl Orderer {
    async fn run(mut self, mut queue: mpsc::Receiver<QueueEntry>) {
        let stop = self.stop.clone();
        loop {
            let done = tokio::select! {
                // Closing keeps what is queued: `recv` yields it before it yields `None`.
                () = stop.cancelled(), if !queue.is_closed() => {
                    queue.close();
                    Ok(())
                }
                entry = queue.recv() => match entry {
                    None => break,
                    Some(QueueEntry::Transaction(queued)) => self.add(queued).await,
                    Some(QueueEntry::Update(queued)) => self.configure(*queued).await,
                },
                () = sleep_until(self.deadline) => self.cut().await,
            };
            if done.is_err() {
                return;
            }
        }
        if self.cut().await.is_ok() {
            let height = self.state.borrow().height;
            tracing::info!(channel = %self.channel, height, "channel is closed");
        }
    }

    async fn add(&mut self, queued: Queued) -> Result<(), Failed> {
        let config = &self.settings.config;
        if queued.config_sequence != config.sequence()
            && let Err(Refusal { info, .. }) =
                broadcast::check_again(config, &self.settings.limits, &queued.envelope, unix_seconds())
        {
            tracing::warn!(channel = %self.channel, info, "a config change came before a transaction; dropped");
            return Ok(());
        }
        let size_bytes = queued.size_bytes;
        let cut = self.cutter.add(&self.settings.limits, queued, size_bytes);
        let timeout = self.settings.timeout;
        self.deadline = cut.pending.then(|| self.deadline.unwrap_or_else(|| Instant::now() + timeout));
        for batch in cut.batches {
            self.write(batch).await?;
        }
        Ok(())
    }

    /// Writes the pending batch, if there is one.
    async fn cut(&mut self) -> Result<(), Failed> {
        self.deadline = None;
        match self.cutter.cut() {
            Some(batch) => self.write(batch).await,
            None => Ok(()),
        }
    }

    async fn configure(&mut self, queued: QueuedUpdate) -> Result<(), Failed> {
        let QueuedUpdate { update, answer, _permit } = queued;
        let (envelope, settings) = match self.judge(&update) {
            Ok(accepted) => accepted,
            Err(refusal) => {
                // A client that has gone away needs no answer.
                let _gone = answer.send(Err(refusal));
                return Ok(());
            }
        };
        self.cut().await?;
        self.write_block(vec![envelope], Some(settings)).await?;
        let _gone = answer.send(Ok(()));
        Ok(())
    }

    /// The config transaction that an update leads to, and what is in force after it.
    fn judge(&self, update: &Envelope) -> Result<(Bytes, Settings), Refusal> {
        let current = &self.settings.config;
        let config = current
            .propose_update(update)
            .map_err(|error| Refusal::new(Status::BadRequest, error.to_string()))?;
        let header = EnvelopeHeader {
            header_type: HeaderType::Config,
            channel: &self.channel,
            nonce: rand::random(),
            timestamp_seconds: unix_seconds(),
            tls_cert_hash: None,
        };
        let envelope = signed_envelope(&self.signer, header, config.encode_to_vec().into());
        // Its own limits decide, as later transactions are judged by them too.
        let bytes_max = self.settings.limits.absolute_max_bytes;
        if envelope.len() > bytes_max {
            let info =
                format!("the config would have {} bytes, the channel allows {bytes_max}", envelope.len());
            return Err(Refusal::new(Status::BadRequest, info));
        }
        // The update may cut a pending batch first, which moves the config block on by one.
        let pending = u64::from(!self.cutter.is_empty());
        let number = self.state.borrow().height.saturating_add(pending);
        let next = ChannelConfig::from_block(&draft(number, envelope.clone()))
            .map_err(|error| Refusal::new(Status::BadRequest, error.to_string()))?;
        Ok((envelope, Settings::new(next, &self.overrides)))
    }

    async fn write(&mut self, batch: Vec<Queued>) -> Result<(), Failed> {
        let mut permits = Vec::with_capacity(batch.len());
        let mut envelopes = Vec::with_capacity(batch.len());
        for queued in batch {
            envelopes.push(queued.envelope);
            permits.push(queued.permit);
        }
        let written = self.write_block(envelopes, None).await;
        drop(permits);
        written
    }

    /// Writes one block: a config block if it brings new settings, which are then in force.
    async fn write_block(&mut self, envelopes: Vec<Bytes>, config: Option<Settings>) -> Result<(), Failed> {
        let Some(mut writer) = self.writer.take() else { return Err(Failed) };
        let transactions = envelopes.len();
        let is_config = config.is_some();
        let written = tokio::task::spawn_blocking(move || {
            let result = writer.write(envelopes, is_config);
            (writer, result)
        })
        .await;
        let error = match written {
            Ok((writer, Ok(height))) => {
                self.writer = Some(writer);
                if let Some(settings) = config {
                    self.adopt(settings);
                }
                self.trace.note(self.channel.as_str(), height.saturating_sub(1), Station::Written);
                self.state.send_replace(ChainState { height, failed: false });
                tracing::debug!(channel = %self.channel, height, transactions, "block written");
                return Ok(());
            }
            Ok((_, Err(error))) => error.to_string(),
            Err(error) => error.to_string(),
        };
        tracing::error!(channel = %self.channel, error, "cannot write a block; the channel stands still until a restart");
        self.state.send_modify(|state| state.failed = true);
        Err(Failed)
    }

    fn adopt(&mut self, settings: Settings) {
        let config = &settings.config;
        let (sequence, block) = (config.sequence(), config.config_block_number());
        tracing::info!(channel = %self.channel, sequence, block, "a new channel config is in force");
        self.settings = Arc::new(settings);
        self.announced.send_replace(self.settings.clone());
    }
}

/// A block to read a config from; it has neither links nor signatures.
fn draft(number: u64, envelope: Bytes) -> Block {
    let header = BlockHeader { number, previous_hash: Vec::new(), data_hash: Vec::new() };
    Block::from_parts(header, vec![envelope], Bytes::new())
}

async fn sleep_until(deadline: Option<Instant>) {
    match deadline {
        Some(deadline) => tokio::time::sleep_until(deadline).await,
        None => std::future::pending().await,
    }
}
