//! How far a long walk is: a bar on a terminal, nothing elsewhere.

use std::io::{IsTerminal as _, Write as _};
use std::time::{Duration, Instant};

use crate::ledger::Progress;

/// How often the bar is drawn.
const INTERVAL: Duration = Duration::from_millis(200);
/// Width of the bar.
const CELLS: u64 = 30;

/// See the module's header.
#[derive(Debug)]
pub(super) struct ProgressBar {
    started: Instant,
    drawn: Option<Instant>,
    terminal: bool,
}

impl ProgressBar {
    pub(super) fn new() -> Self {
        Self { started: Instant::now(), drawn: None, terminal: std::io::stderr().is_terminal() }
    }

    /// Draws, if it is time to.
    pub(super) fn show(&mut self, progress: Progress) {
        if !self.terminal || self.drawn.is_some_and(|drawn| drawn.elapsed() < INTERVAL) {
            return;
        }
        self.drawn = Some(Instant::now());
        // A closed standard error is nobody's concern.
        let _closed = write!(std::io::stderr(), "\r{}\x1b[K", line(progress, self.started.elapsed()));
    }

    /// Leaves the line to whatever is printed next.
    pub(super) fn finish(&self) {
        if self.drawn.is_some() {
            let _closed = write!(std::io::stderr(), "\r\x1b[K");
        }
    }
}

fn line(progress: Progress, elapsed: Duration) -> String {
    let Progress { blocks, height, bytes } = progress;
    let filled = blocks.saturating_mul(CELLS).checked_div(height).unwrap_or(CELLS).min(CELLS);
    let bar: String = (0..CELLS).map(|cell| if cell < filled { '#' } else { '.' }).collect();
    let seconds = elapsed.as_secs_f64().max(0.001);
    #[expect(clippy::cast_precision_loss, reason = "a display")]
    let (rate, left) =
        (bytes as f64 / 1e6 / seconds, height.saturating_sub(blocks) as f64 * seconds / blocks.max(1) as f64);
    format!("[{bar}] {blocks} of {height} blocks, {rate:.0} MB/s, {left:.0} s left")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_line_says_how_far_how_fast_and_how_long_it_takes() {
        let progress = Progress { blocks: 50, height: 200, bytes: 100_000_000 };
        let line = line(progress, Duration::from_secs(2));
        assert_eq!(line, "[#######.......................] 50 of 200 blocks, 50 MB/s, 6 s left");
    }

    #[test]
    fn nothing_is_divided_by_nothing() {
        let line = line(Progress::default(), Duration::ZERO);
        assert!(line.ends_with("0 of 0 blocks, 0 MB/s, 0 s left"), "{line}");
    }
}
