//! The ledger: a file to which blocks are appended, and synced before they count as committed.

use std::fs::{File, OpenOptions};
use std::io::Write as _;
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::thread::JoinHandle;

use grapevine_block_trace::{BlockTrace, Station};
use grapevine_channels::block::AuthenticBlock;
use tokio::sync::mpsc;

/// The way into the ledger. The thread ends when all of these are dropped.
#[derive(Debug, Clone)]
pub(super) struct Ledger {
    blocks: mpsc::Sender<AuthenticBlock>,
    height: Arc<AtomicU64>,
}

impl Ledger {
    /// Hands over the next block; waits while the queue is full. False if the thread has ended.
    pub(super) async fn append(&self, block: AuthenticBlock) -> bool {
        self.blocks.send(block).await.is_ok()
    }

    /// Blocks committed, the genesis block among them.
    pub(super) fn height(&self) -> u64 {
        self.height.load(Ordering::Acquire)
    }
}

/// Starts a ledger that holds `height` blocks already, though not in its file.
pub(super) fn spawn(
    path: &Path,
    height: u64,
    channel: String,
    trace: BlockTrace,
    queue_max: usize,
) -> std::io::Result<(Ledger, JoinHandle<std::io::Result<()>>)> {
    let file = OpenOptions::new().create(true).append(true).open(path)?;
    let (blocks, queue) = mpsc::channel(queue_max);
    let height = Arc::new(AtomicU64::new(height));
    let shared = Arc::clone(&height);
    let thread = std::thread::Builder::new()
        .name("ledger".to_owned())
        .spawn(move || write(file, queue, &shared, &channel, &trace))?;
    Ok((Ledger { blocks, height }, thread))
}

/// One sync for all blocks that wait, as our ledger does it.
fn write(
    mut file: File,
    mut queue: mpsc::Receiver<AuthenticBlock>,
    height: &AtomicU64,
    channel: &str,
    trace: &BlockTrace,
) -> std::io::Result<()> {
    while let Some(first) = queue.blocking_recv() {
        let mut batch = vec![first];
        while let Ok(block) = queue.try_recv() {
            batch.push(block);
        }
        for block in &batch {
            file.write_all(block.encoded())?;
        }
        file.sync_data()?;
        for block in &batch {
            trace.note(channel, block.number(), Station::Committed);
            height.store(block.number().saturating_add(1), Ordering::Release);
        }
    }
    Ok(())
}
