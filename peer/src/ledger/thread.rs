//! The ledger thread: the one place that appends blocks while a peer runs, so that no async task ever waits for a disk.
//!
//! - **Queue** bounded in commits and bytes ([`LedgerLimits`]); when it is full [`LedgerThread::try_commit`] says so at once, the
//!   caller keeps its blocks and tries again after the next report. What is being written counts until it is written. A commit
//!   larger than the byte bound is taken when the queue is empty, so that no block is too large to be committed.
//! - **Group commit**: whatever waits, over all channels and up to the group bound, goes to the disk with one sync.
//! - **Reports** come in the order of the commits; commits of one channel that were written together and follow each other get one, which tells
//!   the last height. The report channel is bounded too: while nobody reads reports the thread
//!   waits, the queue fills, and the caller feels it. If the receiver is dropped the thread goes on without reporting.
//! - **Group commit adds no delay**: nothing waits for company. While one group is being synced the next gathers, so a commit
//!   waits for at most one sync that it is not part of, and for those of the groups before it in the bounded queue.
//! - **Room**: while less is free on the disk than [`LedgerLimits::free_bytes_min`], nothing is written; the queue fills and the
//!   caller feels it. It goes on by itself ([`LedgerState::LowDisk`] meanwhile).
//! - **A failed write is not the end**: the ledger is opened again, which makes certain what is on the disk, and the group is
//!   written again, after a wait that doubles up to [`RETRY_MAX`] ([`LedgerState::Failing`] meanwhile). Only if blocks that were
//!   reported are gone does it end, with one [`LedgerReport::Failed`]: others have been told of them.
//! - A block that does not follow its channel's tip is only refused itself.
//! - **Shutdown** finishes what is queued, unless the disk is full or fails: then what is queued is dropped, to be fetched
//!   again. Dropping the [`LedgerThread`] does the same without waiting for it.

use std::collections::VecDeque;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::thread::JoinHandle;
use std::time::Duration;

use grapevine_channels::ChannelId;
use grapevine_channels::block::AuthenticBlock;
use grapevine_crypto::Digest;
use tokio::sync::mpsc;

use super::failpoint::{self, Failpoint};
use super::space::{self, Room};
use super::{ChannelHead, Commit, Ledger, LedgerError};

/// How much lower the priority of the ledger thread is.
const NICE: i32 = 5;

/// First wait after a failed write.
const RETRY_MIN: Duration = Duration::from_millis(200);
/// Longest wait between attempts to write again.
pub const RETRY_MAX: Duration = Duration::from_secs(5);
/// How often the disk is looked at while it has too little room.
const ROOM_INTERVAL: Duration = Duration::from_millis(200);
/// How often an idle thread looks whether a write of somebody else has failed.
const IDLE_INTERVAL: Duration = Duration::from_secs(1);

/// Bounds of the ledger thread.
#[derive(Clone, Copy, Debug)]
pub struct LedgerLimits {
    /// Commits waiting or being written.
    pub queue_commits_max: usize,
    /// Encoded blocks waiting or being written, in bytes.
    pub queue_bytes_max: usize,
    /// Encoded blocks written with one sync, in bytes; a single larger commit makes a group of its own.
    pub group_bytes_max: usize,
    /// Bytes that must stay free on the ledger's disk; 0: as many as there are may be used.
    pub free_bytes_min: u64,
}

impl Default for LedgerLimits {
    fn default() -> Self {
        Self {
            queue_commits_max: 1_024,
            queue_bytes_max: 16 << 20,
            group_bytes_max: 4 << 20,
            free_bytes_min: 256 << 20,
        }
    }
}

/// What became of commits.
#[derive(Debug)]
pub enum LedgerReport {
    /// Blocks are on the disk.
    Committed {
        /// Channel appended to.
        channel: ChannelId,
        /// Number of blocks it now has.
        height: u64,
        /// Header hash of its last block.
        tip: Digest,
    },
    /// A commit did not follow its channel's tip and was left out.
    Refused {
        /// Channel it was for.
        channel: ChannelId,
        /// Number of its first block.
        number: u64,
        /// Why.
        error: LedgerError,
    },
    /// Blocks that were reported as committed are gone from the disk, and nothing more is written.
    Failed {
        /// What the store said.
        error: LedgerError,
    },
}

impl LedgerReport {
    /// The channel in which blocks were committed.
    fn committed(&self) -> Option<&ChannelId> {
        if let Self::Committed { channel, .. } = self { Some(channel) } else { None }
    }
}

/// Whether blocks are being taken in.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub enum LedgerState {
    /// They are.
    #[default]
    Writing,
    /// The disk has too little room.
    LowDisk {
        /// Bytes free.
        free: u64,
        /// Bytes that must be free before it goes on.
        needed: u64,
    },
    /// Writing fails and is tried again.
    Failing {
        /// What the store said last.
        error: String,
    },
}

/// Why a commit was not queued.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum CommitRefused {
    /// The queue is at its bound; try again after the next report.
    #[error("the ledger's queue is full; try again when it has written some")]
    QueueFull,
    /// The thread is shutting down or has stopped after a failed write.
    #[error("the ledger thread has stopped; restart the peer after reading its last error")]
    Stopped,
}

/// Counters of the ledger thread since its start.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct LedgerCounters {
    /// Commits refused because the queue was full.
    pub queue_full: u64,
    /// Commits refused because they did not follow the tip.
    pub refused: u64,
    /// Blocks committed.
    pub blocks: u64,
    /// Encoded bytes committed.
    pub bytes: u64,
    /// Synced writes; blocks ÷ syncs is the group size.
    pub syncs: u64,
    /// How often the disk had too little room.
    pub low_disk: u64,
    /// How often the ledger was opened again after a failed write.
    pub reopened: u64,
}

/// The thread that appends blocks to a [`Ledger`].
#[derive(Debug)]
pub struct LedgerThread {
    shared: Arc<Shared>,
    thread: Option<JoinHandle<()>>,
}

#[derive(Debug)]
struct Shared {
    limits: LedgerLimits,
    queue: Mutex<Queue>,
    wake: Condvar,
    queue_full: AtomicU64,
    refused: AtomicU64,
    blocks: AtomicU64,
    bytes: AtomicU64,
    syncs: AtomicU64,
    low_disk: AtomicU64,
    reopened: AtomicU64,
    state: Mutex<LedgerState>,
}

#[derive(Debug, Default)]
struct Queue {
    waiting: VecDeque<Commit>,
    /// Commits waiting and being written.
    commits: usize,
    /// Their bytes.
    bytes: usize,
    closed: bool,
}

/// Lets the scheduler prefer the threads that bring blocks to other peers: nobody waits for this one. On Linux a priority is the calling
/// thread's own, and where there is none to give, things go on as they are.
fn yield_to_delivery() {
    let own = rustix::process::getpriority_process(None).unwrap_or(0);
    if let Err(error) = rustix::process::setpriority_process(None, own.saturating_add(NICE)) {
        tracing::debug!(%error, "the ledger thread keeps its priority");
    }
}

impl LedgerThread {
    /// Starts the thread; it owns all appending to `ledger` from now on. Reports arrive at the receiver.
    ///
    /// # Errors
    /// [`LedgerError::Thread`] if the operating system gives no thread.
    pub fn spawn(
        ledger: Ledger,
        limits: LedgerLimits,
    ) -> Result<(Self, mpsc::Receiver<LedgerReport>), LedgerError> {
        let shared = Arc::new(Shared {
            limits,
            queue: Mutex::default(),
            wake: Condvar::new(),
            queue_full: AtomicU64::new(0),
            refused: AtomicU64::new(0),
            blocks: AtomicU64::new(0),
            bytes: AtomicU64::new(0),
            syncs: AtomicU64::new(0),
            low_disk: AtomicU64::new(0),
            reopened: AtomicU64::new(0),
            state: Mutex::default(),
        });
        let (reports, receiver) = mpsc::channel(limits.queue_commits_max.max(1));
        let for_thread = Arc::clone(&shared);
        let thread = std::thread::Builder::new()
            .name("ledger".to_owned())
            .spawn(move || {
                yield_to_delivery();
                Writer { shared: &for_thread, ledger: &ledger, wait: RETRY_MIN }.run(&reports)
            })
            .map_err(LedgerError::Thread)?;
        Ok((Self { shared, thread: Some(thread) }, receiver))
    }

    /// Queues consecutive blocks of one channel; never waits. An empty commit is nothing to do.
    ///
    /// # Errors
    /// [`CommitRefused::QueueFull`] (counted) and [`CommitRefused::Stopped`].
    pub fn try_commit(&self, channel: &ChannelId, blocks: Vec<AuthenticBlock>) -> Result<(), CommitRefused> {
        if blocks.is_empty() {
            return Ok(());
        }
        let commit = Commit { channel: channel.clone(), blocks };
        let bytes = size(&commit);
        let limits = &self.shared.limits;
        let mut queue = self.shared.queue();
        if queue.closed {
            return Err(CommitRefused::Stopped);
        }
        let too_many = queue.commits >= limits.queue_commits_max;
        let too_large = queue.bytes.saturating_add(bytes) > limits.queue_bytes_max;
        if queue.commits > 0 && (too_many || too_large) {
            self.shared.queue_full.fetch_add(1, Ordering::Relaxed);
            return Err(CommitRefused::QueueFull);
        }
        queue.commits = queue.commits.saturating_add(1);
        queue.bytes = queue.bytes.saturating_add(bytes);
        queue.waiting.push_back(commit);
        drop(queue);
        self.shared.wake.notify_one();
        Ok(())
    }

    /// Commits waiting or being written.
    #[must_use]
    pub fn queued(&self) -> usize {
        self.shared.queue().commits
    }

    /// Counters since the start.
    #[must_use]
    pub fn counters(&self) -> LedgerCounters {
        let read = |counter: &AtomicU64| counter.load(Ordering::Relaxed);
        let shared = &self.shared;
        LedgerCounters {
            queue_full: read(&shared.queue_full),
            refused: read(&shared.refused),
            blocks: read(&shared.blocks),
            bytes: read(&shared.bytes),
            syncs: read(&shared.syncs),
            low_disk: read(&shared.low_disk),
            reopened: read(&shared.reopened),
        }
    }

    /// Whether blocks are being taken in.
    #[must_use]
    pub fn state(&self) -> LedgerState {
        self.shared.state.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }

    /// Takes no more commits, finishes what is queued and ends the thread. Returns the reports not yet read.
    pub async fn shutdown(mut self, mut reports: mpsc::Receiver<LedgerReport>) -> Vec<LedgerReport> {
        self.shared.close();
        let mut left = Vec::new();
        while let Some(report) = reports.recv().await {
            left.push(report);
        }
        // The thread drops its sender as its last act, so this does not wait.
        if let Some(thread) = self.thread.take()
            && thread.join().is_err()
        {
            tracing::error!(
                "the ledger thread panicked; blocks queued last may be missing, they will be fetched again"
            );
        }
        left
    }
}

impl Drop for LedgerThread {
    fn drop(&mut self) {
        self.shared.close();
    }
}

impl Shared {
    fn queue(&self) -> MutexGuard<'_, Queue> {
        self.queue.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn close(&self) {
        self.queue().closed = true;
        self.wake.notify_all();
    }

    /// Waits for commits and takes as many as fit into one group; none after a while without any, `None` when closed and empty.
    fn next_group(&self) -> Option<Vec<Commit>> {
        let mut queue = self.queue();
        if queue.waiting.is_empty() {
            if queue.closed {
                return None;
            }
            let waited = self.wake.wait_timeout(queue, IDLE_INTERVAL);
            queue = waited.unwrap_or_else(PoisonError::into_inner).0;
        }
        let mut group = Vec::new();
        let mut bytes = 0usize;
        while let Some(commit) = queue.waiting.front() {
            bytes = bytes.saturating_add(size(commit));
            if !group.is_empty() && bytes > self.limits.group_bytes_max {
                break;
            }
            group.extend(queue.waiting.pop_front());
        }
        Some(group)
    }

    fn release(&self, group: &[Commit]) {
        let mut queue = self.queue();
        queue.commits = queue.commits.saturating_sub(group.len());
        queue.bytes = queue.bytes.saturating_sub(group.iter().map(size).sum());
    }

    /// Waits, but no longer than until it is closed. Says whether it is still open.
    fn pause(&self, time: Duration) -> bool {
        let queue = self.queue();
        let waited = self.wake.wait_timeout_while(queue, time, |queue| !queue.closed);
        !waited.unwrap_or_else(PoisonError::into_inner).0.closed
    }

    fn set_state(&self, state: LedgerState) {
        *self.state.lock().unwrap_or_else(PoisonError::into_inner) = state;
    }

    /// Nothing more is taken, what waits is dropped.
    fn stop(&self) {
        let mut queue = self.queue();
        queue.closed = true;
        queue.waiting.clear();
    }
}

fn size(commit: &Commit) -> usize {
    commit.blocks.iter().fold(0, |sum, block| sum.saturating_add(block.encoded().len()))
}

/// Of commits to one channel that follow each other, the last tells it all.
fn last_of_each_run(reports: impl Iterator<Item = LedgerReport>) -> Vec<LedgerReport> {
    let mut kept: Vec<LedgerReport> = Vec::new();
    for report in reports {
        let channel = report.committed();
        if channel.is_some() && channel == kept.last().and_then(LedgerReport::committed) {
            kept.pop();
        }
        kept.push(report);
    }
    kept
}

/// What the thread does.
struct Writer<'a> {
    shared: &'a Shared,
    ledger: &'a Ledger,
    /// Next wait after a failed write.
    wait: Duration,
}

/// Why the thread ends before it is closed and empty.
enum End {
    /// It was closed while it could not write.
    Closed,
    /// What was reported is gone.
    Lost(LedgerError),
}

impl Writer<'_> {
    fn run(mut self, reports: &mpsc::Sender<LedgerReport>) {
        while let Some(mut group) = self.shared.next_group() {
            if !group.is_empty() {
                failpoint::reach(Failpoint::Taken);
            }
            let outcomes = match self.write(&mut group) {
                Ok(outcomes) => outcomes,
                Err(end) => {
                    self.shared.release(&group);
                    self.shared.stop();
                    if let End::Lost(error) = end {
                        let _receiver_gone = reports.blocking_send(LedgerReport::Failed { error });
                    }
                    return;
                }
            };
            self.shared.release(&group);
            if group.is_empty() {
                continue;
            }
            self.shared.syncs.fetch_add(1, Ordering::Relaxed);
            let all = group.into_iter().zip(outcomes);
            let all = all.map(|(commit, outcome)| self.shared.account(commit, outcome));
            for report in last_of_each_run(all) {
                // Without a receiver the blocks are still to be written.
                let _receiver_gone = reports.blocking_send(report);
            }
            failpoint::reach(Failpoint::Reported);
        }
    }

    /// Writes a group, however long it takes.
    fn write(&mut self, group: &mut [Commit]) -> Result<Vec<Result<ChannelHead, LedgerError>>, End> {
        loop {
            self.wait_for_room(group)?;
            let written = if self.ledger.is_stopped() {
                Err(LedgerError::Stopped)
            } else {
                self.ledger.append_group(&self.without_committed(group))
            };
            match written {
                Ok(outcomes) => {
                    if self.wait > RETRY_MIN {
                        tracing::info!("the ledger is writing again");
                        self.shared.set_state(LedgerState::Writing);
                        self.wait = RETRY_MIN;
                    }
                    return Ok(outcomes);
                }
                Err(error) => self.recover(error)?,
            }
        }
    }

    /// What a failed write has left in the log is there after opening again and need not be written twice.
    fn without_committed(&self, group: &[Commit]) -> Vec<Commit> {
        let is_there = |channel: &ChannelId, block: &AuthenticBlock| {
            block.number() < self.ledger.height(channel)
                && matches!(self.ledger.header_hash(channel, block.number()), Ok(Some(hash)) if hash == block.hash())
        };
        if self.wait == RETRY_MIN {
            return group.to_vec();
        }
        let rest = group.iter().map(|commit| {
            let blocks = commit.blocks.iter().filter(|block| !is_there(&commit.channel, block));
            Commit { channel: commit.channel.clone(), blocks: blocks.cloned().collect() }
        });
        rest.collect()
    }

    fn wait_for_room(&self, group: &[Commit]) -> Result<(), End> {
        let wanted = group.iter().map(size).fold(0_usize, usize::saturating_add);
        // Once to the log, once to a file.
        let wanted = u64::try_from(wanted).unwrap_or(u64::MAX).saturating_mul(2);
        let mut paused = false;
        loop {
            let free = space::free_bytes(self.ledger.path());
            let Room::Low { free, needed } =
                space::judge(free, self.shared.limits.free_bytes_min, paused, wanted)
            else {
                break;
            };
            if !paused {
                paused = true;
                self.shared.low_disk.fetch_add(1, Ordering::Relaxed);
                tracing::error!(
                    free,
                    needed,
                    path = %self.ledger.path().display(),
                    "the disk has too little room left: no more blocks are taken in until some is freed (ledger.minFreeDiskSpace)"
                );
            }
            self.shared.set_state(LedgerState::LowDisk { free, needed });
            if !self.shared.pause(ROOM_INTERVAL) {
                return Err(End::Closed);
            }
        }
        if paused {
            tracing::info!("the disk has room again: blocks are taken in");
            self.shared.set_state(LedgerState::Writing);
        }
        Ok(())
    }

    /// After a failed write: the ledger is opened again.
    fn recover(&mut self, error: LedgerError) -> Result<(), End> {
        let heights: Vec<(ChannelId, u64)> = self
            .ledger
            .channels()
            .into_iter()
            .map(|channel| (channel.clone(), self.ledger.height(&channel)))
            .collect();
        let mut damaged = error.is_damage();
        let mut error = error;
        loop {
            if matches!(error, LedgerError::Stopped) {
                tracing::warn!("a write to the ledger failed; it is opened again");
            } else {
                tracing::error!(%error, "the ledger cannot be written; it is opened again");
                self.shared.set_state(LedgerState::Failing { error: error.to_string() });
            }
            let open = self.shared.pause(self.wait);
            self.wait = self.wait.saturating_mul(2).min(RETRY_MAX);
            if !open {
                return Err(End::Closed);
            }
            match self.ledger.reopen(damaged) {
                Ok(()) => break,
                Err(refused) => {
                    damaged |= refused.is_damage();
                    error = refused;
                }
            }
        }
        self.shared.reopened.fetch_add(1, Ordering::Relaxed);
        for (channel, height) in heights {
            let left = self.ledger.height(&channel);
            if left < height {
                return Err(End::Lost(LedgerError::Shrunk { channel, height, left }));
            }
        }
        Ok(())
    }
}

impl Shared {
    fn account(&self, commit: Commit, outcome: Result<ChannelHead, LedgerError>) -> LedgerReport {
        match outcome {
            Ok(ChannelHead { height, tip }) => {
                let add = |counter: &AtomicU64, amount: usize| {
                    counter.fetch_add(u64::try_from(amount).unwrap_or(u64::MAX), Ordering::Relaxed)
                };
                add(&self.blocks, commit.blocks.len());
                add(&self.bytes, size(&commit));
                LedgerReport::Committed { channel: commit.channel, height, tip }
            }
            Err(error) => {
                self.refused.fetch_add(1, Ordering::Relaxed);
                let number = commit.blocks.first().map_or(0, AuthenticBlock::number);
                LedgerReport::Refused { channel: commit.channel, number, error }
            }
        }
    }
}
