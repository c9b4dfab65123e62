//! How a process dies: at a random moment, at a named point of the commit path, or around a system call.

use std::time::Duration;

use grapevine_disk_faults::When;
use grapevine_peer::ledger::failpoint::Failpoint;

use crate::load::Random;

/// One death.
#[derive(Clone, Copy, Debug)]
pub enum Death {
    /// This long after the process is ready.
    After(Duration),
    /// When it passes a point for the given time.
    AtFailpoint(Failpoint, u64),
    /// At its system call of this number that changes a file.
    AtSystemCall(u64, When),
}

/// The range of deaths to draw from.
#[derive(Clone, Copy, Debug)]
pub struct Deaths {
    /// Longest life that a random moment ends, in milliseconds.
    pub life_ms_max: u64,
    /// Most times a point is passed.
    pub passes_max: u64,
    /// Greatest number of a system call.
    pub calls_max: u64,
}

impl Deaths {
    /// The death of a kill. The kinds, points and sides of a call take turns; the rest is random.
    pub fn draw(&self, kill: u64, random: &mut Random) -> Death {
        let turn = usize::try_from(kill / 3).unwrap_or(0);
        match kill % 3 {
            0 => Death::After(Duration::from_millis(random.below(self.life_ms_max))),
            1 => {
                let point =
                    Failpoint::ALL.get(turn % Failpoint::ALL.len()).copied().unwrap_or(Failpoint::Staged);
                Death::AtFailpoint(point, 1 + random.below(self.passes_max))
            }
            _ => {
                let when = When::ALL.get(turn % When::ALL.len()).copied().unwrap_or(When::Before);
                Death::AtSystemCall(1 + random.below(self.calls_max), when)
            }
        }
    }
}
