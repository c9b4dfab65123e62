//! Kills, many of them, each at another moment.
//!
//! Kills take turns: at a random moment; at a failpoint of the commit path, each in turn, at a random passage; and at a
//! system call on the ledger's files, before it, after it or, for a write, halfway. Every [`KILLS_PER_LEDGER`] kills the
//! ledger begins anew, so that some hit its creation. With `drop_unsynced` whatever was not synced is lost with each kill.

use std::path::Path;
use std::process::Command;
use std::time::{Duration, Instant};

use anyhow::{Context as _, bail};
use grapevine_disk_faults::DiskFaults;
use grapevine_peer::ledger::Ledger;

use crate::death::{Death, Deaths};
use crate::expected::Expected;
use crate::load::Random;
use crate::process::{Line, WriterProcess};
use crate::writer::Orders;

/// Kills after which the ledger begins anew.
const KILLS_PER_LEDGER: u64 = 20;
/// How the process that is killed dies.
const DEATHS: Deaths = Deaths { life_ms_max: 250, passes_max: 20, calls_max: 200 };
/// A writer whose point does not come is killed after this long.
const PATIENCE: Duration = Duration::from_secs(2);
/// Longest silence of a writer.
const SILENCE: Duration = Duration::from_secs(60);

/// What to do.
#[derive(Clone, Copy, Debug)]
pub struct Campaign {
    /// How often a writer is killed.
    pub kills: u64,
    /// Lose what was not synced.
    pub drop_unsynced: bool,
    /// Begin of the random numbers.
    pub seed: u64,
}

/// What came of it.
#[derive(Clone, Copy, Debug, Default)]
pub struct Outcome {
    /// Writers killed.
    pub kills: u64,
    /// Of those, by themselves at a failpoint.
    pub at_failpoints: u64,
    /// Of those, at a system call.
    pub at_system_calls: u64,
    /// Blocks that were reported as committed.
    pub blocks: u64,
    /// Of those, not there afterwards.
    pub lost_blocks: u64,
    /// Longest time from the start of a process on a ledger that had been killed to its being ready.
    pub restart_max: Duration,
}

impl Campaign {
    /// Runs in `directory`. `writer` gives the command of a process that calls [`crate::writer::run`]; `go_on` is asked before
    /// each kill.
    ///
    /// # Errors
    /// If a process cannot be run, a ledger not be opened, or a block is another than the one written.
    pub fn run(
        &self,
        directory: &Path,
        writer: &dyn Fn() -> anyhow::Result<Command>,
        go_on: &dyn Fn() -> bool,
    ) -> anyhow::Result<Outcome> {
        let mut random = Random(self.seed);
        let mut outcome = Outcome::default();
        let mut expected = Expected::default();
        let root = directory.join("ledger");
        let disk = DiskFaults::new(&root, &directory.join("disk"))?;
        for kill in 0..self.kills {
            if !go_on() {
                break;
            }
            if kill % KILLS_PER_LEDGER == 0 && kill > 0 {
                self.close_ledger(&root, &mut expected, &mut outcome)?;
            }
            let death = DEATHS.draw(kill, &mut random);
            let round = Round { disk: &disk, root: &root, drop_unsynced: self.drop_unsynced };
            round
                .run(writer()?, death, &mut expected, &mut outcome)
                .with_context(|| format!("kill {kill} of seed {}: {death:?}", self.seed))?;
        }
        self.close_ledger(&root, &mut expected, &mut outcome)?;
        Ok(outcome)
    }

    /// Compares everything once more, and begins anew.
    fn close_ledger(
        &self,
        root: &Path,
        expected: &mut Expected,
        outcome: &mut Outcome,
    ) -> anyhow::Result<()> {
        expected.compare_everything_again();
        outcome.lost_blocks = outcome.lost_blocks.saturating_add(expected.lost(&Ledger::open(root)?)?);
        outcome.blocks = outcome.blocks.saturating_add(expected.blocks());
        *expected = Expected::default();
        std::fs::remove_dir_all(root)?;
        std::fs::create_dir(root)?;
        Ok(())
    }
}

struct Round<'a> {
    disk: &'a DiskFaults,
    root: &'a Path,
    drop_unsynced: bool,
}

impl Round<'_> {
    fn run(
        &self,
        mut command: Command,
        death: Death,
        expected: &mut Expected,
        outcome: &mut Outcome,
    ) -> anyhow::Result<()> {
        let failpoint = match death {
            Death::AtFailpoint(point, occurrence) => Some((point, occurrence)),
            Death::After(_) | Death::AtSystemCall(..) => None,
        };
        Orders { ledger: self.root.to_owned(), failpoint, free_bytes_min: 0 }.give(&mut command);
        self.disk.attach(&mut command, self.drop_unsynced)?;
        if let Death::AtSystemCall(operation, when) = death {
            self.disk.kill_at(operation, when)?;
        }
        let mut writer = WriterProcess::start(command)?;
        let by_itself = await_death(&mut writer, death, expected, outcome)?;
        for line in writer.kill()? {
            expected.hear(&line)?;
        }
        outcome.kills = outcome.kills.saturating_add(1);
        match death {
            Death::AtFailpoint(..) if by_itself => {
                outcome.at_failpoints = outcome.at_failpoints.saturating_add(1)
            }
            Death::AtSystemCall(..) if by_itself => {
                outcome.at_system_calls = outcome.at_system_calls.saturating_add(1);
            }
            Death::After(_) if by_itself => bail!("the writer ended by itself"),
            _ => {}
        }
        if self.drop_unsynced {
            self.disk.lose_power()?;
        }
        let lost = expected.lost(&Ledger::open(self.root)?)?;
        if lost > 0 {
            eprintln!("{lost} blocks that were reported as committed are lost: {death:?}");
            outcome.lost_blocks = outcome.lost_blocks.saturating_add(lost);
            // What follows counts only what it loses itself.
            *expected = Expected::default();
            std::fs::remove_dir_all(self.root)?;
            std::fs::create_dir(self.root)?;
        }
        Ok(())
    }
}

/// Listens until the writer is to be killed or has killed itself; says which.
fn await_death(
    writer: &mut WriterProcess,
    death: Death,
    expected: &mut Expected,
    outcome: &mut Outcome,
) -> anyhow::Result<bool> {
    let mut deadline: Option<Instant> = None;
    loop {
        let left = deadline.map_or(SILENCE, |at| at.saturating_duration_since(Instant::now()));
        if deadline.is_some() && left.is_zero() {
            return Ok(false);
        }
        match writer.next(left) {
            Ok(None) => return Ok(true),
            Ok(Some(Line::Ready)) => {
                outcome.restart_max = outcome.restart_max.max(writer.age());
                let life = if let Death::After(life) = death { life } else { PATIENCE };
                deadline = Some(Instant::now() + life);
            }
            Ok(Some(Line::Ended(text))) => bail!("the ledger thread ended: {text}"),
            Ok(Some(line)) => expected.hear(&line)?,
            // Time is up, or it hangs before it is ready.
            Err(_) if deadline.is_some() => return Ok(false),
            Err(error) => return Err(error),
        }
    }
}
