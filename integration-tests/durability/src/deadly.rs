//! A process that kills itself, as from outside, at a failpoint of the ledger's commit path. Which one stands in its environment.

use std::sync::OnceLock;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use anyhow::Context as _;
use grapevine_peer::ledger::failpoint::{self, Failpoint};

/// The environment variable with the order.
pub const VARIABLE: &str = "GRAPEVINE_DIES_AT";

static DEADLY: OnceLock<Failpoint> = OnceLock::new();
static LEFT: AtomicU64 = AtomicU64::new(0);

/// The value of [`VARIABLE`] for a process that is to die when it reaches `point` for the n-th time.
#[must_use]
pub fn order(point: Failpoint, occurrence: u64) -> String {
    format!("{point:?}:{occurrence}")
}

/// The order given to this process, if any.
///
/// # Errors
/// If it makes no sense.
pub fn ordered() -> anyhow::Result<Option<(Failpoint, u64)>> {
    let Ok(text) = std::env::var(VARIABLE) else { return Ok(None) };
    let (name, occurrence) = text.split_once(':').context("a failpoint is NAME:N")?;
    let point = Failpoint::ALL.into_iter().find(|point| format!("{point:?}") == name);
    Ok(Some((point.with_context(|| format!("no failpoint {name}"))?, occurrence.parse()?)))
}

/// Has this process die as ordered.
///
/// # Errors
/// If it was armed before.
pub fn arm(point: Failpoint, occurrence: u64) -> anyhow::Result<()> {
    LEFT.store(occurrence, Ordering::Relaxed);
    anyhow::ensure!(DEADLY.set(point).is_ok() && failpoint::install(die_at), "a process dies once");
    Ok(())
}

fn die_at(point: Failpoint) {
    if DEADLY.get() == Some(&point) && LEFT.fetch_sub(1, Ordering::Relaxed) == 1 {
        // Nothing after this runs.
        let _killed = rustix::process::kill_process(rustix::process::getpid(), rustix::process::Signal::KILL);
        std::thread::sleep(Duration::from_secs(60));
    }
}
