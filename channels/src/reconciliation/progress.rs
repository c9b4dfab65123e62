//! How far a channel is behind, how fast it catches up, and when it will be done.

use std::time::Duration;

use crate::time::Time;

/// Time over which the speed is averaged.
const AVERAGED_OVER_S: f64 = 5.0;
/// Least time between two samples of the speed.
const SAMPLE: Duration = Duration::from_millis(200);

/// What an operator wants to know of a channel that catches up.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Progress {
    /// Blocks committed.
    pub height: u64,
    /// Blocks that are proven to exist, by a verified header or in the in-order buffer.
    pub proven: u64,
    /// Blocks that somebody claims to hold: a hint.
    pub claimed: u64,
    /// Members that could be asked for what is missing.
    pub sources: usize,
    /// Blocks committed a second, averaged over some seconds.
    pub blocks_per_s: f64,
    /// Bytes committed a second.
    pub bytes_per_s: f64,
    /// Time until everything proven or claimed is here, at this speed.
    pub left: Option<Duration>,
}

/// Speed of the ledger.
#[derive(Debug, Default)]
pub(super) struct Speed {
    blocks_per_s: f64,
    bytes_per_s: f64,
    sampled_at: Option<Time>,
    blocks: u64,
    bytes: u64,
}

impl Speed {
    /// Blocks were committed.
    pub(super) fn committed(&mut self, now: Time, blocks: u64, bytes: u64) {
        self.blocks = self.blocks.saturating_add(blocks);
        self.bytes = self.bytes.saturating_add(bytes);
        self.sample(now);
    }

    /// Blocks and bytes a second.
    pub(super) fn speed(&self) -> (f64, f64) {
        (self.blocks_per_s, self.bytes_per_s)
    }

    fn sample(&mut self, now: Time) {
        let Some(since) = self.sampled_at else {
            self.sampled_at = Some(now);
            return;
        };
        let passed = now.since(since);
        if passed < SAMPLE {
            return;
        }
        let seconds = passed.as_secs_f64();
        let (blocks, bytes) = (self.blocks as f64 / seconds, self.bytes as f64 / seconds);
        // The first sample counts whole, later ones by the time they stand for.
        let weight = if self.bytes_per_s > 0.0 { 1.0 - (-seconds / AVERAGED_OVER_S).exp() } else { 1.0 };
        self.blocks_per_s += (blocks - self.blocks_per_s) * weight;
        self.bytes_per_s += (bytes - self.bytes_per_s) * weight;
        (self.blocks, self.bytes, self.sampled_at) = (0, 0, Some(now));
    }
}
