//! The watch on withholding: when nothing has been verified for a while, one member asks the orderer.

use std::time::Duration;

use grapevine_crypto::{PkiId, sha256_of};

use crate::time::{Time, earliest};

/// Leases without a block after which the orderer is asked.
const LEASES_WITHOUT_BLOCK: u32 = 2;
/// On an idle channel the questions become rarer, down to one in so many times [`LEASES_WITHOUT_BLOCK`].
const FACTOR_MAX: u32 = 16;

#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub(super) struct Watch {
    verified: u64,
    /// When `verified` grew last, or a new leader was followed.
    progressed: Time,
    /// Counts the looks since then.
    round: u32,
    looks: Option<Time>,
    /// The orderer has this many blocks; if they are not known at that time, somebody withholds them.
    suspicion: Option<(u64, Time)>,
}

impl Watch {
    pub(super) fn new(now: Time, verified: u64) -> Self {
        Self { verified, progressed: now, round: 0, looks: None, suspicion: None }
    }

    pub(super) fn verified(&self) -> u64 {
        self.verified
    }

    pub(super) fn progress(&mut self, now: Time, verified: u64) {
        if verified > self.verified {
            self.verified = verified;
            self.restart(now);
        }
    }

    /// A new leader gets the same patience as one that sent a block just now.
    pub(super) fn restart(&mut self, now: Time) {
        self.progressed = now;
        self.round = 0;
        self.looks = None;
        if self.suspicion.is_some_and(|(height, _)| height <= self.verified) {
            self.suspicion = None;
        }
    }

    /// Whether nothing came for so long that withholding is believable.
    pub(super) fn is_quiet(&self, now: Time, lease: Duration) -> bool {
        now.since(self.progressed) >= lease * LEASES_WITHOUT_BLOCK
    }

    pub(super) fn suspect(&mut self, height: u64, until: Time) {
        if self.suspicion.is_none() {
            self.suspicion = Some((height, until));
        }
    }

    /// Whether the suspicion has come true.
    pub(super) fn convicts(&mut self, now: Time) -> bool {
        match self.suspicion {
            Some((height, until)) if until <= now => {
                self.suspicion = None;
                height > self.verified
            }
            _ => false,
        }
    }

    pub(super) fn deadline(&self, lease: Duration) -> Time {
        let looks = self.looks.unwrap_or(self.progressed + lease * LEASES_WITHOUT_BLOCK);
        earliest(Some(looks), self.suspicion.map(|(_, until)| until)).unwrap_or(looks)
    }

    /// The round of a look that is due now; the next one is later than the one before.
    pub(super) fn take_look(&mut self, now: Time, lease: Duration) -> Option<u32> {
        if self.looks.unwrap_or(self.progressed + lease * LEASES_WITHOUT_BLOCK) > now {
            return None;
        }
        let round = self.round;
        self.round = round.saturating_add(1);
        let factor = 2u32.saturating_pow(self.round).min(FACTOR_MAX);
        self.looks = Some(now + lease * LEASES_WITHOUT_BLOCK * factor);
        Some(round)
    }

    #[cfg(test)]
    pub(super) fn map_times(&mut self, map: &dyn Fn(Time) -> Time) {
        self.progressed = map(self.progressed);
        self.looks = self.looks.map(map);
        self.suspicion = self.suspicion.map(|(height, until)| (height, map(until)));
    }
}

/// Who asks the orderer in a round: the same for all who know the same members, another one each round.
pub(super) fn drawn<'a>(
    members: impl Iterator<Item = &'a PkiId>,
    counter: u64,
    height: u64,
    round: u32,
) -> Option<PkiId> {
    let draw = [counter.to_be_bytes().as_slice(), &height.to_be_bytes(), &round.to_be_bytes()].concat();
    members.copied().min_by_key(|peer| sha256_of([peer.0.as_ref(), draw.as_slice()]).0)
}
