//! The child process that writes.
//!
//! It takes its orders from the environment, and says on standard output, a line each, always written whole:
//!
//! ```text
//! ready                           the ledger is open
//! committed CHANNEL HEIGHT TIP    the ledger thread has reported it
//! counted N                       the peer's own state was written: the counter N
//! state TEXT                      whether blocks are taken in has changed
//! wrong TEXT                      a block that was read was not the right one
//! ended TEXT                      the ledger thread has given up
//! ```

use std::collections::BTreeMap;
use std::io::Write as _;
use std::path::PathBuf;
use std::process::Command;
use std::time::Duration;

use anyhow::Context as _;
use grapevine_channels::ChannelId;
use grapevine_crypto::Digest;
use grapevine_peer::ledger::failpoint::Failpoint;
use grapevine_peer::ledger::{CommitRefused, Ledger, LedgerLimits, LedgerReport, LedgerThread};

use crate::{deadly, load};

const LEDGER: &str = "GRAPEVINE_WRITER_LEDGER";
const ROOM: &str = "GRAPEVINE_WRITER_ROOM";
/// Where the counter stands in the ledger.
pub const COUNTER_KEY: &[u8] = b"counter";
/// A block of the past is read and compared after so many that were written.
const READ_EVERY: u64 = 16;

/// What a writer is to do.
#[derive(Clone, Debug)]
pub struct Orders {
    /// Directory of the ledger.
    pub ledger: PathBuf,
    /// Kill itself when it reaches this point for the n-th time.
    pub failpoint: Option<(Failpoint, u64)>,
    /// Bytes that must stay free on the disk; 0: all may be used.
    pub free_bytes_min: u64,
}

impl Orders {
    /// Gives the orders to the process that `command` starts.
    pub fn give(&self, command: &mut Command) {
        command.env(LEDGER, &self.ledger).env(ROOM, self.free_bytes_min.to_string());
        command.env_remove(deadly::VARIABLE);
        if let Some((point, occurrence)) = self.failpoint {
            command.env(deadly::VARIABLE, deadly::order(point, occurrence));
        }
    }

    /// The orders given to this process, if any.
    ///
    /// # Errors
    /// If they make no sense.
    pub fn taken() -> anyhow::Result<Option<Self>> {
        let Some(ledger) = std::env::var_os(LEDGER) else { return Ok(None) };
        let failpoint = deadly::ordered()?;
        let free_bytes_min = std::env::var(ROOM).unwrap_or_default().parse().unwrap_or(0);
        Ok(Some(Self { ledger: ledger.into(), failpoint, free_bytes_min }))
    }
}

/// Writes until it is killed, or until nobody reads what it says.
///
/// # Errors
/// If the ledger cannot be opened.
pub fn run(orders: &Orders) -> anyhow::Result<()> {
    if let Some((point, occurrence)) = orders.failpoint {
        deadly::arm(point, occurrence)?;
    }
    let ledger = Ledger::open(&orders.ledger)?;
    if !say("ready") {
        return Ok(());
    }
    let mut next: BTreeMap<&str, (ChannelId, u64, Digest)> = BTreeMap::new();
    for name in load::CHANNELS {
        let channel = load::channel(name)?;
        ledger.create_channel(&channel, &load::block(name, 0, None)?)?;
        let (number, tip) = ledger.tip(&channel).context("a channel that was joined has a block")?;
        say(&format!("committed {name} {} {tip}", number.saturating_add(1)));
        next.insert(name, (channel, number.saturating_add(1), tip));
    }
    let limits = LedgerLimits { free_bytes_min: orders.free_bytes_min, ..LedgerLimits::default() };
    let (thread, mut reports) = LedgerThread::spawn(ledger.clone(), limits)?;
    let printer = std::thread::spawn(move || {
        while let Some(report) = reports.blocking_recv() {
            let heard = match report {
                LedgerReport::Committed { channel, height, tip } => {
                    say(&format!("committed {channel} {height} {tip}"))
                }
                LedgerReport::Refused { error, .. } => say(&format!("wrong {error}")),
                LedgerReport::Failed { error } => say(&format!("ended {error}")),
            };
            if !heard {
                return;
            }
        }
    });
    let mut written = 0u64;
    let mut state = thread.state();
    while !printer.is_finished() {
        for (name, (channel, number, tip)) in &mut next {
            let block = load::block(name, *number, Some(*tip))?;
            (*number, *tip) = (number.saturating_add(1), block.hash());
            while thread.try_commit(channel, vec![block.clone()]) == Err(CommitRefused::QueueFull) {
                std::thread::sleep(Duration::from_millis(1));
                if thread.state() != state {
                    state = thread.state();
                    say(&format!("state {state:?}"));
                }
                if printer.is_finished() {
                    return Ok(());
                }
            }
        }
        written = written.saturating_add(1);
        if written.is_multiple_of(READ_EVERY) {
            look_back(&ledger, written);
            count(&ledger);
        }
        if thread.state() != state {
            state = thread.state();
            say(&format!("state {state:?}"));
        }
    }
    Ok(())
}

/// Reads a block that was written some time ago. That it cannot be read is no fault; that it is another one is.
fn look_back(ledger: &Ledger, seed: u64) {
    for name in load::CHANNELS {
        let Ok(channel) = load::channel(name) else { continue };
        let number = load::Random(seed).below(ledger.height(&channel));
        let Ok(Some(stored)) = ledger.block(&channel, number) else { continue };
        let previous = number.checked_sub(1).map(|before| ledger.header_hash(&channel, before));
        let previous = match previous {
            None => None,
            Some(Ok(Some(hash))) => Some(hash),
            Some(_) => continue,
        };
        if load::block(name, number, previous).map(|block| block.encoded().clone()).ok() != Some(stored) {
            say(&format!("wrong block {number} of {name}"));
        }
    }
}

/// Counts in the peer's own state; a ledger that cannot be written just now does not count.
fn count(ledger: &Ledger) {
    let stored = ledger.meta_get(COUNTER_KEY).ok().flatten();
    let stored = stored.and_then(|bytes| Some(u64::from_be_bytes(bytes.try_into().ok()?)));
    let next = stored.unwrap_or(0).saturating_add(1);
    if ledger.meta_put(COUNTER_KEY, &next.to_be_bytes()).is_ok() {
        say(&format!("counted {next}"));
    }
}

/// One line with one write, so that it is there or is not. Says whether anybody reads.
fn say(line: &str) -> bool {
    // The first line end is for whatever stood there before.
    std::io::stdout().lock().write_all(format!("\n{line}\n").as_bytes()).is_ok()
}
