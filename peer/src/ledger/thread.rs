//! The ledger thread: the one place that appends blocks while a peer runs, so that no async task ever waits for a disk.
//!
//! - **Queue** bounded in commits and bytes ([`LedgerLimits`]); when it is full [`LedgerThread::try_commit`] says so at once, the
//!   caller keeps its blocks and tries again after the next report. What is being written counts until it is written. A commit
//!   larger than the byte bound is taken when the queue is empty, so that no block is too large to be committed.
//! - **Group commit**: whatever waits, over all channels and up to the group bound, goes to the disk with one sync.
//! - **Reports** come in the order of the commits. The report channel is bounded too: while nobody reads reports the thread
//!   waits, the queue fills, and the caller feels it. If the receiver is dropped the thread goes on without reporting.
//! - **A failed write ends it**: one [`LedgerReport::Failed`], and every later commit is refused. A block that does not follow
//!   its channel's tip is only refused itself.
//! - **Shutdown** finishes what is queued. Dropping the [`LedgerThread`] does the same without waiting for it.

use std::collections::VecDeque;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::thread::JoinHandle;

use grapevine_channels::ChannelId;
use grapevine_channels::block::AuthenticBlock;
use grapevine_crypto::Digest;
use tokio::sync::mpsc;

use super::{ChannelHead, Commit, Ledger, LedgerError};

/// Bounds of the ledger thread.
#[derive(Clone, Copy, Debug)]
pub struct LedgerLimits {
    /// Commits waiting or being written.
    pub queue_commits_max: usize,
    /// Encoded blocks waiting or being written, in bytes.
    pub queue_bytes_max: usize,
    /// Encoded blocks written with one sync, in bytes; a single larger commit makes a group of its own.
    pub group_bytes_max: usize,
}

impl Default for LedgerLimits {
    fn default() -> Self {
        Self { queue_commits_max: 256, queue_bytes_max: 16 * 1024 * 1024, group_bytes_max: 4 * 1024 * 1024 }
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
    /// Writing failed. Nothing since the last report is certain to be on the disk, and nothing more is written.
    Failed {
        /// What the store said.
        error: LedgerError,
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
        });
        let (reports, receiver) = mpsc::channel(limits.queue_commits_max.max(1));
        let for_thread = Arc::clone(&shared);
        let thread = std::thread::Builder::new()
            .name("ledger".to_owned())
            .spawn(move || write_until_closed(&for_thread, &ledger, &reports))
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
        }
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

    /// Waits for commits and takes as many as fit into one group; `None` when closed and empty.
    fn next_group(&self) -> Option<Vec<Commit>> {
        let mut queue = self.queue();
        while queue.waiting.is_empty() {
            if queue.closed {
                return None;
            }
            queue = self.wake.wait(queue).unwrap_or_else(PoisonError::into_inner);
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

    /// After a failed write: nothing more is taken, what waits is dropped.
    fn stop(&self) {
        let mut queue = self.queue();
        queue.closed = true;
        queue.waiting.clear();
    }
}

fn size(commit: &Commit) -> usize {
    commit.blocks.iter().fold(0, |sum, block| sum.saturating_add(block.encoded().len()))
}

fn write_until_closed(shared: &Shared, ledger: &Ledger, reports: &mpsc::Sender<LedgerReport>) {
    while let Some(group) = shared.next_group() {
        let outcome = ledger.append_group(&group);
        shared.release(&group);
        let outcomes = match outcome {
            Ok(outcomes) => outcomes,
            Err(error) => {
                shared.stop();
                let _receiver_gone = reports.blocking_send(LedgerReport::Failed { error });
                return;
            }
        };
        shared.syncs.fetch_add(1, Ordering::Relaxed);
        for (commit, outcome) in group.into_iter().zip(outcomes) {
            let report = shared.account(commit, outcome);
            // Without a receiver the blocks are still to be written.
            let _receiver_gone = reports.blocking_send(report);
        }
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
