//! A writer as its parent sees it.

use std::io::{BufRead as _, BufReader};
use std::process::{Child, Command, Stdio};
use std::sync::mpsc::{Receiver, RecvTimeoutError, channel};
use std::time::{Duration, Instant};

use anyhow::{Context as _, bail};

/// What a writer says.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Line {
    /// The ledger is open.
    Ready,
    /// A channel has so many blocks, the last with this header hash.
    Committed {
        /// Name of the channel.
        channel: String,
        /// Number of blocks.
        height: u64,
        /// Header hash of the last, hex.
        tip: String,
    },
    /// The counter was written.
    Counted(u64),
    /// Whether blocks are taken in.
    State(String),
    /// A block that was read was wrong, or one was refused.
    Wrong(String),
    /// The ledger thread has given up.
    Ended(String),
}

impl Line {
    fn parse(line: &str) -> Option<Self> {
        let (word, rest) = line.split_once(' ').unwrap_or((line, ""));
        match word {
            "ready" => Some(Self::Ready),
            "committed" => {
                let mut words = rest.split(' ');
                let (channel, height) = (words.next()?.to_owned(), words.next()?.parse().ok()?);
                Some(Self::Committed { channel, height, tip: words.next()?.to_owned() })
            }
            "counted" => Some(Self::Counted(rest.parse().ok()?)),
            "state" => Some(Self::State(rest.to_owned())),
            "wrong" => Some(Self::Wrong(rest.to_owned())),
            "ended" => Some(Self::Ended(rest.to_owned())),
            _ => None,
        }
    }
}

/// A running writer. Killed and reaped when dropped.
#[derive(Debug)]
pub struct WriterProcess {
    child: Child,
    lines: Receiver<Line>,
    started: Instant,
}

impl WriterProcess {
    /// Starts it.
    ///
    /// # Errors
    /// If it cannot be started.
    pub fn start(mut command: Command) -> anyhow::Result<Self> {
        let started = Instant::now();
        let mut child = command.stdout(Stdio::piped()).spawn().context("the writer cannot be started")?;
        let output = child.stdout.take().context("the writer has an output")?;
        let (sender, lines) = channel();
        // Ends with the writer: the pipe is closed then.
        std::thread::spawn(move || {
            let mut output = BufReader::new(output);
            let mut line = String::new();
            while matches!(output.read_line(&mut line), Ok(read) if read > 0) {
                // A line without its end was not said.
                if let Some(line) = line.strip_suffix('\n').and_then(Line::parse)
                    && sender.send(line).is_err()
                {
                    return;
                }
                line.clear();
            }
        });
        Ok(Self { child, lines, started })
    }

    /// The next line; `None` when there will be none.
    ///
    /// # Errors
    /// If there is none in time.
    pub fn next(&mut self, within: Duration) -> anyhow::Result<Option<Line>> {
        match self.lines.recv_timeout(within) {
            Ok(line) => Ok(Some(line)),
            Err(RecvTimeoutError::Disconnected) => Ok(None),
            Err(RecvTimeoutError::Timeout) => bail!("the writer said nothing for {} s", within.as_secs()),
        }
    }

    /// Time since its start.
    #[must_use]
    pub fn age(&self) -> Duration {
        self.started.elapsed()
    }

    /// Kills it, if it still runs, and returns what it said that was not read yet.
    ///
    /// # Errors
    /// Those of the operating system.
    pub fn kill(mut self) -> anyhow::Result<Vec<Line>> {
        self.child.kill()?;
        self.child.wait()?;
        Ok(self.lines.iter().collect())
    }
}

impl Drop for WriterProcess {
    fn drop(&mut self) {
        // Gone already, mostly.
        let _gone = self.child.kill();
        let _reaped = self.child.wait();
    }
}
