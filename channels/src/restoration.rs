//! Restoration: blocks that the own ledger has lost come again from other peers.
//!
//! # Promise
//! A number the driver reported as lost is asked of one connected member of the channel after the other until the driver says
//! that the block is in its place. It never gives up: when all have been asked in vain it rests and begins again.
//! What arrives is not looked at here: the driver compares it with the hash the chain demands and checks its signatures.
//!
//! This is apart from reconciliation, which fetches what comes after the ledger's end: here the numbers are known, the hashes
//! too, and they are few. A peer restores at leisure: at most [`ASKED_MAX`] blocks are asked for at a time.
//!
//! # Failures and attacks
//! Silence for [`RESPONSE_TIMEOUT`], a refusal, a wrong block or a lost connection: the next member is asked. A block that
//! nobody was asked for is none of this machine's business. Members that all refuse cost one request each in [`REST_MAX`].
//!
//! # Bounds
//! [`LOST_MAX`] numbers; more are refused and counted: the driver finds them again.

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use grapevine_crypto::PkiId;

use crate::time::Time;

/// Most blocks of a channel waiting to be restored.
pub const LOST_MAX: usize = 4_096;
/// Most blocks of a channel asked for, or being checked, at a time.
pub const ASKED_MAX: usize = 8;
/// Silence after which another member is asked.
pub const RESPONSE_TIMEOUT: Duration = Duration::from_secs(3);
/// First rest of a block that all members were asked for in vain.
pub const REST_MIN: Duration = Duration::from_secs(1);
/// Longest rest.
pub const REST_MAX: Duration = Duration::from_secs(30);

/// Ask a peer for blocks.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Ask {
    /// The peer.
    pub peer: PkiId,
    /// The blocks, ascending.
    pub numbers: Vec<u64>,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Stage {
    /// Not asked for before this time.
    Waits(Time),
    /// Asked of a peer, which has until then.
    Asked(PkiId, Time),
    /// The driver has what came.
    Checked,
}

#[derive(Debug)]
struct Lost {
    stage: Stage,
    tried: BTreeSet<PkiId>,
    rest: Duration,
}

/// The restoration machine of one channel. See the module's header.
#[derive(Debug, Default)]
pub struct Restoration {
    lost: BTreeMap<u64, Lost>,
    over_bound: u64,
    restored: u64,
}

impl Restoration {
    /// The ledger has lost these blocks.
    pub fn handle_lost(&mut self, now: Time, numbers: &[u64]) {
        for number in numbers {
            if self.lost.contains_key(number) {
                continue;
            }
            if self.lost.len() >= LOST_MAX {
                self.over_bound += 1;
                continue;
            }
            let lost = Lost { stage: Stage::Waits(now), tried: BTreeSet::new(), rest: REST_MIN };
            self.lost.insert(*number, lost);
        }
    }

    /// A block came from a peer. Says whether it was asked for; then the driver has to check it and to answer with
    /// [`Self::handle_restored`] or [`Self::handle_failed`].
    pub fn take(&mut self, peer: PkiId, number: u64) -> bool {
        let Some(lost) = self.lost.get_mut(&number) else { return false };
        let is_expected = matches!(lost.stage, Stage::Asked(asked, _) if asked == peer);
        if is_expected {
            lost.stage = Stage::Checked;
        }
        is_expected
    }

    /// The block is in its place.
    pub fn handle_restored(&mut self, number: u64) {
        if self.lost.remove(&number).is_some() {
            self.restored += 1;
        }
    }

    /// What came did not serve, or not yet.
    pub fn handle_failed(&mut self, now: Time, number: u64) {
        if let Some(lost) = self.lost.get_mut(&number) {
            lost.stage = Stage::Waits(now);
        }
    }

    /// A peer will not send these blocks now.
    pub fn handle_refusal(&mut self, now: Time, peer: PkiId, numbers: &[u64]) {
        for number in numbers {
            if let Some(lost) = self.lost.get_mut(number)
                && matches!(lost.stage, Stage::Asked(asked, _) if asked == peer)
            {
                lost.stage = Stage::Waits(now);
            }
        }
    }

    /// A peer is gone.
    pub fn handle_peer_gone(&mut self, now: Time, peer: PkiId) {
        for lost in self.lost.values_mut() {
            if matches!(lost.stage, Stage::Asked(asked, _) if asked == peer) {
                lost.stage = Stage::Waits(now);
            }
        }
    }

    /// Whom to ask for what now; `members` are the connected members of the channel, in a stable order.
    pub fn handle_timeout(&mut self, now: Time, members: &[PkiId]) -> Vec<Ask> {
        for lost in self.lost.values_mut() {
            if matches!(lost.stage, Stage::Asked(_, until) if until <= now) {
                lost.stage = Stage::Waits(now);
            }
        }
        let busy = self.lost.values().filter(|lost| !matches!(lost.stage, Stage::Waits(_))).count();
        let mut free = ASKED_MAX.saturating_sub(busy);
        let mut asks: BTreeMap<PkiId, Vec<u64>> = BTreeMap::new();
        for (number, lost) in &mut self.lost {
            let Stage::Waits(from) = lost.stage else { continue };
            if from > now {
                continue;
            }
            if free == 0 {
                break;
            }
            let Some(peer) = choose(members, &lost.tried, *number) else {
                lost.tried.clear();
                lost.stage = Stage::Waits(now + lost.rest);
                lost.rest = lost.rest.saturating_mul(2).min(REST_MAX);
                continue;
            };
            lost.tried.insert(peer);
            lost.stage = Stage::Asked(peer, now + RESPONSE_TIMEOUT);
            free = free.saturating_sub(1);
            asks.entry(peer).or_default().push(*number);
        }
        asks.into_iter().map(|(peer, numbers)| Ask { peer, numbers }).collect()
    }

    /// When [`Self::handle_timeout`] is due next.
    pub fn next_deadline(&self) -> Option<Time> {
        let busy = self.lost.values().filter(|lost| !matches!(lost.stage, Stage::Waits(_))).count();
        let is_full = busy >= ASKED_MAX;
        let deadlines = self.lost.values().filter_map(|lost| match lost.stage {
            Stage::Waits(from) if !is_full => Some(from),
            Stage::Asked(_, until) => Some(until),
            Stage::Waits(_) | Stage::Checked => None,
        });
        deadlines.min()
    }

    /// Blocks waiting to be restored.
    pub fn waiting(&self) -> usize {
        self.lost.len()
    }

    /// Blocks restored.
    pub fn restored(&self) -> u64 {
        self.restored
    }

    /// Lost blocks that were one too many.
    pub fn over_bound(&self) -> u64 {
        self.over_bound
    }
}

/// A member not tried yet; different blocks begin with different ones.
fn choose(members: &[PkiId], tried: &BTreeSet<PkiId>, number: u64) -> Option<PkiId> {
    let count = u64::try_from(members.len()).ok().filter(|count| *count > 0)?;
    let start = usize::try_from(number % count).ok()?;
    let (before, after) = members.split_at_checked(start)?;
    after.iter().chain(before).find(|member| !tried.contains(member)).copied()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn members(count: usize) -> Vec<PkiId> {
        let mut members: Vec<PkiId> =
            (0..count).map(|index| PkiId::new(&"Org1MSP".into(), &format!("peer{index}"))).collect();
        members.sort();
        members
    }

    fn at(ms: u64) -> Time {
        Time::ZERO + Duration::from_millis(ms)
    }

    #[test]
    fn a_lost_block_is_asked_of_one_member_after_the_other_until_it_is_there() {
        let members = members(3);
        let mut machine = Restoration::default();
        assert_eq!(machine.next_deadline(), None);
        machine.handle_lost(at(0), &[4, 4]);
        assert_eq!(machine.next_deadline(), Some(at(0)));
        let ask = machine.handle_timeout(at(0), &members);
        assert_eq!(ask, [Ask { peer: members[1], numbers: vec![4] }]);
        assert!(machine.handle_timeout(at(1), &members).is_empty());
        // A refusal, then silence, then a wrong block.
        machine.handle_refusal(at(2), members[0], &[4]);
        assert!(machine.handle_timeout(at(2), &members).is_empty(), "who was not asked cannot refuse");
        machine.handle_refusal(at(2), members[1], &[4, 5]);
        assert_eq!(machine.handle_timeout(at(2), &members), [Ask { peer: members[2], numbers: vec![4] }]);
        assert_eq!(machine.next_deadline(), Some(at(3_002)));
        assert_eq!(machine.handle_timeout(at(3_002), &members), [Ask { peer: members[0], numbers: vec![4] }]);
        assert!(!machine.take(members[2], 4) && !machine.take(members[0], 5));
        assert!(machine.take(members[0], 4));
        assert!(!machine.take(members[0], 4), "one answer to one question");
        machine.handle_failed(at(3_100), 4);
        // All were asked: a rest, then from the beginning.
        assert!(machine.handle_timeout(at(3_100), &members).is_empty());
        assert_eq!(machine.next_deadline(), Some(at(4_100)));
        assert_eq!(machine.handle_timeout(at(4_100), &members).len(), 1);
        machine.handle_peer_gone(at(4_200), members[1]);
        assert_eq!(machine.handle_timeout(at(4_200), &members), [Ask { peer: members[2], numbers: vec![4] }]);
        assert!(machine.take(members[2], 4));
        machine.handle_restored(4);
        assert_eq!((machine.waiting(), machine.restored(), machine.next_deadline()), (0, 1, None));
    }

    #[test]
    fn without_members_it_rests_longer_and_longer() {
        let mut machine = Restoration::default();
        machine.handle_lost(at(0), &[1]);
        let mut now = at(0);
        let mut rests = Vec::new();
        for _ in 0..8 {
            assert!(machine.handle_timeout(now, &[]).is_empty());
            let next = machine.next_deadline().unwrap();
            rests.push(next.since(now).as_secs());
            now = next;
        }
        assert_eq!(rests, [1, 2, 4, 8, 16, 30, 30, 30]);
    }

    #[test]
    fn what_is_asked_and_what_is_remembered_is_bounded() {
        let members = members(2);
        let mut machine = Restoration::default();
        let numbers: Vec<u64> = (0..5_000).collect();
        machine.handle_lost(at(0), &numbers);
        assert_eq!((machine.waiting(), machine.over_bound()), (LOST_MAX, 904));
        let asked: usize = machine.handle_timeout(at(0), &members).iter().map(|ask| ask.numbers.len()).sum();
        assert_eq!(asked, ASKED_MAX);
        assert!(machine.handle_timeout(at(1), &members).is_empty());
        let mut done = 0u64;
        for (round, number) in (0..100u64).enumerate() {
            for member in &members {
                if machine.take(*member, number) {
                    machine.handle_restored(number);
                    done += 1;
                }
            }
            machine.handle_timeout(at(2 + round as u64), &members);
        }
        assert_eq!(done, 100);
    }
}
