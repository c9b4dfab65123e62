//! How long a promised block is waited for: learned, as TCP learns its retransmission timer.
//!
//! The leader promises when a block should arrive. How far that is off depends on what it does not know: links between others,
//! processors that are busy. Each pushed block that comes teaches (RFC 6298's gains): the mean and deviation of how late
//! it is, as a share of the promised time. The wait is the promised time and mean + 4 deviations more: at least
//! [`SLACK_MIN`] times the promise, at most [`SLACK_MAX`] times, or [`LATENESS_MAX`] more where promises are short. Blocks that were
//! asked for and then came by push after all teach too, so that a wait too short grows.

use std::time::Duration;

/// Least wait, as a multiple of the promised time.
pub(super) const SLACK_MIN: f64 = 1.1;
/// Greatest wait, as a multiple of the promised time.
pub(super) const SLACK_MAX: f64 = 2.5;
/// What is waited beyond the promised time at most, where that is more than [`SLACK_MAX`] gives: a busy machine is late by
/// milliseconds, however short the promise.
pub(super) const LATENESS_MAX: Duration = Duration::from_millis(100);
/// Deviation before anything is learned: 1 + 4 of them are 1.25.
const DEVIATION_INITIAL: f64 = 1.0 / 16.0;
/// Greatest lateness that one block teaches, as a share of the promised time.
const SAMPLE_MAX: f64 = 40.0;

/// What was learned.
#[derive(Debug, Clone, Copy)]
pub(super) struct Slack {
    mean: f64,
    deviation: f64,
}

impl Slack {
    pub(super) fn new() -> Self {
        Self { mean: 0.0, deviation: DEVIATION_INITIAL }
    }

    /// A block promised after `promised` came after `took`.
    pub(super) fn learn(&mut self, promised: Duration, took: Duration) {
        if promised.is_zero() {
            return;
        }
        let late = (took.as_secs_f64() / promised.as_secs_f64() - 1.0).min(SAMPLE_MAX);
        self.deviation += ((late - self.mean).abs() - self.deviation) / 4.0;
        self.mean += (late - self.mean) / 8.0;
    }

    /// How long to wait for a block promised after `promised`.
    pub(super) fn wait(&self, promised: Duration) -> Duration {
        let learned = promised.mul_f64((1.0 + self.mean + 4.0 * self.deviation).max(SLACK_MIN));
        learned.min(promised.mul_f64(SLACK_MAX).max(promised + LATENESS_MAX))
    }

    /// The part of the wait beyond the promised time.
    pub(super) fn margin(&self, promised: Duration) -> Duration {
        self.wait(promised).saturating_sub(promised)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const MS: Duration = Duration::from_millis(1);

    #[test]
    fn before_anything_is_learned_a_quarter_more() {
        assert_eq!(Slack::new().wait(100 * MS), 125 * MS);
    }

    #[test]
    fn punctual_blocks_shorten_the_wait_to_the_least() {
        let mut slack = Slack::new();
        (0..50).for_each(|_| slack.learn(100 * MS, 100 * MS));
        assert_eq!(slack.wait(100 * MS), 110 * MS);
        (0..50).for_each(|_| slack.learn(100 * MS, 40 * MS));
        assert_eq!(slack.wait(100 * MS), 110 * MS, "not less for blocks that come early");
    }

    #[test]
    fn late_blocks_lengthen_it_within_bounds() {
        let mut slack = Slack::new();
        (0..10).for_each(|_| slack.learn(100 * MS, 140 * MS));
        let wait = slack.wait(100 * MS);
        assert!(wait > 140 * MS && wait <= 250 * MS, "{wait:?}");
        (0..50).for_each(|_| slack.learn(100 * MS, 1_000 * MS));
        assert_eq!(slack.wait(100 * MS), 250 * MS);
        assert!(slack.wait(2 * MS) > 19 * MS, "short promises may be late by ten times");
        assert_eq!(slack.wait(20 * MS), 120 * MS);
    }

    #[test]
    fn one_absurd_sample_is_forgotten() {
        let mut slack = Slack::new();
        slack.learn(MS, Duration::from_secs(3_600));
        (0..100).for_each(|_| slack.learn(100 * MS, 100 * MS));
        assert_eq!(slack.wait(100 * MS), 110 * MS);
    }
}
