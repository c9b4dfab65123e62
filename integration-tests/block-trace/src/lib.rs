//! When a block passed each station of a process, written to a file that a measurement reads.
//!
//! A trace is off unless a process is started with `--block-trace FILE`; a [`BlockTrace`] that is off costs one branch.
//! Times are nanoseconds of `CLOCK_MONOTONIC`, which all processes of one machine share, so that the files of an orderer and of
//! twenty peers can be laid side by side.
//!
//! # Format
//! A line per event, appended: `CHANNEL NUMBER STATION NANOSECONDS`, for example `trade 17 handed 81230412345678`. A restarted
//! process appends to the same file. A line without its end (the process was killed) is not an event.
//!
//! # Bounds
//! [`QUEUE_MAX`] events wait for the writing thread, further ones are dropped; a process writes [`EVENTS_MAX`] events, then no more. Both
//! are counted, and the count is the last line: `# dropped COUNT`. Events reach the file within twice [`FLUSH_INTERVAL`] or with the end of the process.

use std::fs::{File, OpenOptions};
use std::io::{self, BufWriter, Write};
use std::path::Path;
use std::str::FromStr;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::mpsc::{Receiver, RecvTimeoutError, SyncSender, sync_channel};
use std::sync::{Arc, Mutex, PoisonError};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

/// Events that wait for the writing thread.
pub const QUEUE_MAX: usize = 16_384;

/// Events a process writes at most: some 60 MB.
pub const EVENTS_MAX: u64 = 1_000_000;

/// How long an event may stay in memory.
pub const FLUSH_INTERVAL: Duration = Duration::from_millis(50);

/// A station on the way of a block.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Station {
    /// The orderer has synced it to its disk; nobody has been told yet.
    Written,
    /// The last byte of it is here; not yet verified.
    Received,
    /// It is known to be authentic.
    Verified,
    /// It follows the blocks before it and is given to the ledger.
    Handed,
    /// The ledger has synced it.
    Committed,
}

impl Station {
    const ALL: [Self; 5] = [Self::Written, Self::Received, Self::Verified, Self::Handed, Self::Committed];

    /// The word in the file.
    #[must_use]
    pub const fn name(self) -> &'static str {
        match self {
            Self::Written => "written",
            Self::Received => "received",
            Self::Verified => "verified",
            Self::Handed => "handed",
            Self::Committed => "committed",
        }
    }
}

/// A block passed a station.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Event {
    /// The channel.
    pub channel: Arc<str>,
    /// Number of the block.
    pub number: u64,
    /// Where it was.
    pub station: Station,
    /// When, in nanoseconds of `CLOCK_MONOTONIC`.
    pub at: u64,
}

impl FromStr for Event {
    type Err = String;

    fn from_str(line: &str) -> Result<Self, String> {
        let mut words = line.split(' ');
        let mut word = || words.next().ok_or_else(|| format!("`{line}` is no event of a block trace"));
        let channel = word()?.into();
        let number = word()?.parse().map_err(|error| format!("`{line}`: {error}"))?;
        let name = word()?;
        let station = Station::ALL.into_iter().find(|station| station.name() == name);
        let station = station.ok_or_else(|| format!("`{line}`: no station is called {name}"))?;
        let at = word()?.parse().map_err(|error| format!("`{line}`: {error}"))?;
        Ok(Self { channel, number, station, at })
    }
}

/// Now, in nanoseconds of `CLOCK_MONOTONIC`.
#[must_use]
pub fn now() -> u64 {
    let time = rustix::time::clock_gettime(rustix::time::ClockId::Monotonic);
    let part = |value: i64| u64::try_from(value).unwrap_or(0);
    part(time.tv_sec).saturating_mul(1_000_000_000).saturating_add(part(time.tv_nsec))
}

/// The events of a trace file, in the order they were written.
///
/// # Errors
/// If the file cannot be read or holds something else.
pub fn read(path: &Path) -> io::Result<Vec<Event>> {
    let text = std::fs::read_to_string(path)?;
    let whole = text.rfind('\n').map_or("", |end| text.get(..end).unwrap_or_default());
    whole
        .lines()
        .filter(|line| !line.starts_with('#'))
        .map(|line| line.parse().map_err(|error: String| io::Error::new(io::ErrorKind::InvalidData, error)))
        .collect()
}

/// Where a process notes the way of its blocks. Clones share one file; the last one dropped completes it.
#[derive(Debug, Clone, Default)]
pub struct BlockTrace(Option<Arc<Writing>>);

#[derive(Debug)]
struct Writing {
    events: Mutex<Option<SyncSender<Event>>>,
    dropped: Arc<AtomicU64>,
    thread: Mutex<Option<JoinHandle<()>>>,
}

impl BlockTrace {
    /// Notes nothing.
    #[must_use]
    pub const fn off() -> Self {
        Self(None)
    }

    /// Appends to `path`.
    ///
    /// # Errors
    /// If the file cannot be opened or the thread that writes it cannot be started.
    pub fn to_file(path: &Path) -> io::Result<Self> {
        let file = OpenOptions::new().create(true).append(true).open(path)?;
        let (events, queue) = sync_channel(QUEUE_MAX);
        let dropped = Arc::new(AtomicU64::new(0));
        let count = Arc::clone(&dropped);
        let thread = std::thread::Builder::new().name("block-trace".to_owned()).spawn(move || {
            // A full disk must not stop the process that is measured; the reader finds the trace too short.
            let _incomplete = write(file, &queue, &count, EVENTS_MAX);
        })?;
        let writing = Writing { events: Mutex::new(Some(events)), dropped, thread: Mutex::new(Some(thread)) };
        Ok(Self(Some(Arc::new(writing))))
    }

    /// Whether anything is noted.
    #[must_use]
    pub const fn is_on(&self) -> bool {
        self.0.is_some()
    }

    /// Notes that a block is at a station now. Never waits.
    pub fn note(&self, channel: &str, number: u64, station: Station) {
        if self.is_on() {
            self.note_at(channel, number, station, now());
        }
    }

    /// Notes that a block was at a station when [`now`] was `at`.
    pub fn note_at(&self, channel: &str, number: u64, station: Station, at: u64) {
        let Some(writing) = &self.0 else { return };
        let events = writing.events.lock().unwrap_or_else(PoisonError::into_inner);
        let event = Event { channel: channel.into(), number, station, at };
        if events.as_ref().is_none_or(|events| events.try_send(event).is_err()) {
            writing.dropped.fetch_add(1, Ordering::Relaxed);
        }
    }
}

impl Drop for Writing {
    fn drop(&mut self) {
        self.events.get_mut().unwrap_or_else(PoisonError::into_inner).take();
        if let Some(thread) = self.thread.get_mut().unwrap_or_else(PoisonError::into_inner).take() {
            // A panic in it would be seen already.
            let _ended = thread.join();
        }
    }
}

/// Writes until nobody can send any more.
fn write(file: File, queue: &Receiver<Event>, dropped: &AtomicU64, events_max: u64) -> io::Result<()> {
    let mut file = BufWriter::new(file);
    let mut written = 0u64;
    let mut flushed = Instant::now();
    loop {
        if flushed.elapsed() >= FLUSH_INTERVAL {
            file.flush()?;
            flushed = Instant::now();
        }
        match queue.recv_timeout(FLUSH_INTERVAL) {
            Ok(_) if written >= events_max => {
                dropped.fetch_add(1, Ordering::Relaxed);
            }
            Ok(Event { channel, number, station, at }) => {
                written += 1;
                writeln!(file, "{channel} {number} {} {at}", station.name())?;
            }
            Err(RecvTimeoutError::Timeout) => {}
            Err(RecvTimeoutError::Disconnected) => break,
        }
    }
    let dropped = dropped.load(Ordering::Relaxed);
    if dropped > 0 {
        writeln!(file, "# dropped {dropped}")?;
    }
    file.flush()
}

#[cfg(test)]
#[allow(clippy::unwrap_used, clippy::expect_used)]
mod tests {
    use super::*;

    #[test]
    fn what_is_noted_is_read_in_order_over_restarts() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("trace");
        let before = now();
        for run in 0..2 {
            let trace = BlockTrace::to_file(&path).unwrap();
            let clone = trace.clone();
            clone.note("trade", run, Station::Received);
            drop(clone);
            trace.note_at("audit", run, Station::Committed, 7);
        }
        let events = read(&path).unwrap();
        let seen: Vec<_> =
            events.iter().map(|event| (&*event.channel, event.number, event.station)).collect();
        assert_eq!(
            seen,
            [
                ("trade", 0, Station::Received),
                ("audit", 0, Station::Committed),
                ("trade", 1, Station::Received),
                ("audit", 1, Station::Committed)
            ]
        );
        assert!((before..=now()).contains(&events.first().unwrap().at));
        assert_eq!(events.last().unwrap().at, 7);
    }

    #[test]
    fn a_torn_last_line_is_no_event_and_junk_is_an_error() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("trace");
        std::fs::write(&path, "trade 1 handed 5\ntrade 2 han").unwrap();
        assert_eq!(read(&path).unwrap().len(), 1);
        for junk in ["trade\n", "trade x handed 1\n", "trade 1 lost 1\n", "trade 1 handed\n"] {
            std::fs::write(&path, junk).unwrap();
            assert_eq!(read(&path).unwrap_err().kind(), io::ErrorKind::InvalidData, "{junk}");
        }
    }

    #[test]
    fn events_beyond_the_bound_are_counted() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("trace");
        let (sender, queue) = sync_channel(8);
        for number in 0..5 {
            let event = Event { channel: "trade".into(), number, station: Station::Handed, at: 1 };
            sender.send(event).unwrap();
        }
        drop(sender);
        write(File::create(&path).unwrap(), &queue, &AtomicU64::new(0), 3).unwrap();
        assert_eq!(read(&path).unwrap().len(), 3);
        assert!(std::fs::read_to_string(&path).unwrap().ends_with("# dropped 2\n"));
    }

    #[test]
    fn a_trace_that_is_off_does_nothing() {
        BlockTrace::off().note("trade", 1, Station::Handed);
        assert!(!BlockTrace::default().is_on());
    }
}
