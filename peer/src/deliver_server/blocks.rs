//! From the ledger to frames, in bounded memory.
//!
//! - **Read once**: of a channel's last [`RECENT_BLOCKS`] blocks each form is read once for all streams that want it
//!   while it stays in the cache; those that ask at the same moment wait for one reading.
//! - **Memory**: all frames that any stream, connection or the cache holds are at most [`FRAME_BYTES_MAX`] together.
//!   At most [`READERS_MAX`] more blocks are being read. Who finds no room empties the cache and waits; meanwhile
//!   [`Blocks::is_contended`] tells streams whose clients take nothing to end.

use std::collections::VecDeque;
use std::sync::atomic::{AtomicU64, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use grapevine_channels::ChannelId;
use tokio::sync::{OnceCell, OwnedSemaphorePermit, Semaphore};

use super::frame::{self, Form, Frame};
use crate::ledger::Ledger;

/// Most bytes of frames held at a time, over all streams.
pub const FRAME_BYTES_MAX: u32 = 256 << 20;
/// Blocks of a channel, counted from its tip, that are kept for others.
pub const RECENT_BLOCKS: u64 = 32;
/// Most blocks in the cache.
const CACHE_ENTRIES_MAX: usize = 64;
/// Most bytes in the cache; the newest block stays whatever its size.
const CACHE_BYTES_MAX: usize = 16 << 20;
/// Most blocks being read at a time.
const READERS_MAX: usize = 4;

/// A stored block cannot be served.
#[derive(Debug, thiserror::Error)]
#[error("block {number} of channel {channel} cannot be read: {reason}")]
pub(super) struct ReadError {
    channel: ChannelId,
    number: u64,
    reason: String,
}

/// A block in one form.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Wanted {
    pub(super) channel: ChannelId,
    pub(super) number: u64,
    pub(super) form: Form,
}

/// See the module.
#[derive(Debug)]
pub(super) struct Blocks {
    ledger: Ledger,
    cache: Mutex<VecDeque<(Wanted, Arc<OnceCell<Frame>>)>>,
    readers: Semaphore,
    memory: Arc<Semaphore>,
    memory_bytes_max: u32,
    starving: AtomicUsize,
    reads: AtomicU64,
}

impl Blocks {
    pub(super) fn new(ledger: Ledger, memory_bytes_max: u32) -> Self {
        Self {
            ledger,
            cache: Mutex::default(),
            readers: Semaphore::new(READERS_MAX),
            memory: Arc::new(Semaphore::new(usize::try_from(memory_bytes_max).unwrap_or(usize::MAX))),
            memory_bytes_max,
            starving: AtomicUsize::new(0),
            reads: AtomicU64::new(0),
        }
    }

    /// The frame of a block below `height`, the channel's. Cancel safe.
    pub(super) async fn frame(&self, wanted: Wanted, height: u64) -> Result<Frame, ReadError> {
        if wanted.number.saturating_add(RECENT_BLOCKS) < height {
            return self.read(&wanted).await;
        }
        let cell = self.cell(&wanted);
        let frame = cell.get_or_try_init(|| self.read(&wanted)).await.cloned();
        self.trim();
        frame
    }

    /// Whether somebody waits for memory.
    pub(super) fn is_contended(&self) -> bool {
        self.starving.load(Ordering::Relaxed) > 0
    }

    /// Blocks read from the ledger since the start.
    pub(super) fn reads(&self) -> u64 {
        self.reads.load(Ordering::Relaxed)
    }

    /// Bytes of frames held by anyone.
    pub(super) fn held_bytes(&self) -> usize {
        usize::try_from(self.memory_bytes_max)
            .unwrap_or(usize::MAX)
            .saturating_sub(self.memory.available_permits())
    }

    fn cell(&self, wanted: &Wanted) -> Arc<OnceCell<Frame>> {
        let mut cache = self.lock();
        if let Some((_, cell)) = cache.iter().find(|(key, _)| key == wanted) {
            return cell.clone();
        }
        if cache.len() >= CACHE_ENTRIES_MAX {
            cache.pop_front();
        }
        let cell = Arc::new(OnceCell::new());
        cache.push_back((wanted.clone(), cell.clone()));
        cell
    }

    fn trim(&self) {
        let mut cache = self.lock();
        let held = |cell: &OnceCell<Frame>| cell.get().map_or(0, Frame::length);
        let mut bytes = cache.iter().fold(0_usize, |sum, (_, cell)| sum.saturating_add(held(cell)));
        while bytes > CACHE_BYTES_MAX && cache.len() > 1 {
            let Some((_, cell)) = cache.pop_front() else { return };
            bytes = bytes.saturating_sub(held(&cell));
        }
    }

    async fn read(&self, wanted: &Wanted) -> Result<Frame, ReadError> {
        let failed =
            |reason: String| ReadError { channel: wanted.channel.clone(), number: wanted.number, reason };
        let _reader = self.readers.acquire().await.map_err(|closed| failed(closed.to_string()))?;
        let (ledger, Wanted { channel, number, form }) = (self.ledger.clone(), wanted.clone());
        self.reads.fetch_add(1, Ordering::Relaxed);
        let message = tokio::task::spawn_blocking(move || {
            let stored = ledger.block(&channel, number).map_err(|error| error.to_string())?;
            let stored = stored.ok_or_else(|| "it is missing".to_owned())?;
            frame::block(form, &channel, stored).map_err(|error| error.to_string())
        });
        let message = message.await.map_err(|error| failed(error.to_string()))?.map_err(failed)?;
        let granted = self.grant(message.len()).await.map_err(failed)?;
        Ok(Frame::new(&message, granted))
    }

    async fn grant(&self, bytes: usize) -> Result<OwnedSemaphorePermit, String> {
        let bytes = u32::try_from(bytes).unwrap_or(u32::MAX).min(self.memory_bytes_max);
        if let Ok(granted) = self.memory.clone().try_acquire_many_owned(bytes) {
            return Ok(granted);
        }
        self.lock().retain(|(_, cell)| !cell.initialized());
        let _starving = Starving::new(&self.starving);
        self.memory.clone().acquire_many_owned(bytes).await.map_err(|closed| closed.to_string())
    }

    fn lock(&self) -> MutexGuard<'_, VecDeque<(Wanted, Arc<OnceCell<Frame>>)>> {
        self.cache.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Counts one that waits, also if the waiting is given up.
struct Starving<'a>(&'a AtomicUsize);

impl<'a> Starving<'a> {
    fn new(count: &'a AtomicUsize) -> Self {
        count.fetch_add(1, Ordering::Relaxed);
        Self(count)
    }
}

impl Drop for Starving<'_> {
    fn drop(&mut self) {
        self.0.fetch_sub(1, Ordering::Relaxed);
    }
}
