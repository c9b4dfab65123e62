//! When a changed height of the own ledger is told, and to how many.
//!
//! # Promise
//! In a channel of up to [`EVERYBODY_MAX`] members everybody hears of a change half an interval later, and at most once in an interval. In
//! a larger one the leader and [`LISTENERS`] random members hear that often, and everybody once in an interval for each
//! member: what a peer sends and gets does not grow with the channel.

use std::time::Duration;

use crate::time::{Time, earliest};

/// Members of a channel that are all told of every change.
pub(super) const EVERYBODY_MAX: usize = 16;
/// Random members of a larger channel that are told of every change.
pub(super) const LISTENERS: usize = 8;

/// Who is told.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Audience {
    /// The leader and [`LISTENERS`] members.
    Few,
    /// Every member.
    Everybody,
}

/// See the module's header.
#[derive(Debug)]
pub(super) struct Heights {
    interval: Duration,
    /// When a change is told; `None`: there is none.
    due: Option<Time>,
    /// When those that have not heard of the last changes do; `None`: all have.
    round_due: Option<Time>,
    told_at: Time,
    round_at: Time,
}

impl Heights {
    /// Nothing to tell at `now`. Few frames go out for many changes: one to each listener in an `interval`.
    pub(super) fn new(interval: Duration, now: Time) -> Self {
        Self { interval, due: None, round_due: None, told_at: now, round_at: now }
    }

    /// The height has changed.
    pub(super) fn handle_changed(&mut self, now: Time) {
        // Not while the block itself is still spreading, to which this would be in the way.
        let due = (self.told_at + self.interval).max(now + self.interval / 2);
        self.due.get_or_insert(due);
    }

    /// Whom to tell now, in a channel of so many members, if anybody.
    pub(super) fn take(&mut self, now: Time, members: usize) -> Option<Audience> {
        let is_due = self.due.take_if(|due| *due <= now).is_some();
        let round = self.round_due.is_some_and(|due| due <= now);
        if !is_due && !round {
            return None;
        }
        self.told_at = now;
        if round || members <= EVERYBODY_MAX {
            (self.due, self.round_due, self.round_at) = (None, None, now);
            return Some(Audience::Everybody);
        }
        let pace = self.interval.saturating_mul(u32::try_from(members).unwrap_or(u32::MAX));
        let round_due = (self.round_at + pace).max(now + self.interval);
        self.round_due.get_or_insert(round_due);
        Some(Audience::Few)
    }

    /// When [`Heights::take`] is due.
    pub(super) fn next_deadline(&self) -> Option<Time> {
        earliest(self.due, self.round_due)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn at(milliseconds: u64) -> Time {
        Time::from_millis(milliseconds)
    }

    /// Tellings of a channel that changes every 20 ms for `seconds`, and until all is told: to few, and to everybody.
    fn told(members: usize, seconds: u64) -> (usize, usize) {
        let mut heights = Heights::new(Duration::from_millis(100), Time::ZERO);
        let (mut few, mut everybody) = (0, 0);
        for step in 0..50 * seconds {
            let now = at(step * 20);
            heights.handle_changed(now);
            match heights.take(now, members) {
                Some(Audience::Few) => few += 1,
                Some(Audience::Everybody) => everybody += 1,
                None => {}
            }
        }
        while let Some(due) = heights.next_deadline() {
            match heights.take(due, members) {
                Some(Audience::Few) => few += 1,
                Some(Audience::Everybody) => everybody += 1,
                None => panic!("due in vain"),
            }
        }
        (few, everybody)
    }

    #[test]
    fn a_small_channel_hears_everything_and_a_large_one_now_and_then() {
        assert_eq!(told(EVERYBODY_MAX, 20), (0, 200));
        let (few, everybody) = told(100, 20);
        assert_eq!(everybody, 2, "every ten seconds, the last change included");
        assert!((200..=202).contains(&(few + everybody)), "{few} and {everybody}");
    }

    #[test]
    fn frames_do_not_grow_with_the_channel() {
        for members in [20, 100, 1_000, 10_000] {
            let (few, everybody) = told(members, 100);
            let frames = few * (LISTENERS + 1) + everybody.saturating_sub(1) * members;
            assert!(frames <= 100 * (10 * (LISTENERS + 1) + 11), "{members} members: {frames}");
        }
    }

    #[test]
    fn a_quiet_channel_tells_soon() {
        let mut heights = Heights::new(Duration::from_millis(100), Time::ZERO);
        heights.handle_changed(at(5_000));
        assert_eq!(heights.next_deadline(), Some(at(5_050)));
        assert_eq!(heights.take(at(5_050), 50), Some(Audience::Few));
        assert_eq!(heights.take(at(5_050), 50), None);
        assert_eq!(heights.next_deadline(), Some(at(5_150)), "and to the others soon");
        assert_eq!(heights.take(at(5_150), 50), Some(Audience::Everybody));
        assert_eq!(heights.next_deadline(), None);
    }
}
