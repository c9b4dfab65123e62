//! Certificate time: the wall clock at the start plus monotonic time since, slewed towards the wall clock.
//!
//! # Promise
//! A step of the wall clock, however wide, changes nobody's validity: certificate time goes on, at most 1/60 faster or slower
//! (1 s a minute), until both agree again. So a machine whose clock was set wrong, by mistake or by an attacker on its
//! time source, neither cuts its members off nor lets expired ones in, and one that started with a wrong clock comes right in time.
//! A step is told once ([`ClockNews::Stepped`]), and so is its end ([`ClockNews::Agrees`]).
//!
//! # Bounds
//! A single reading corrects at most [`CORRECTION_MAX_MS`], however long the one before it lies back.

use std::time::Duration;

use crate::time::Time;

/// A wall clock that moved this much against monotonic time since the last reading was stepped.
pub const STEP_MIN: Duration = Duration::from_secs(5);
/// Monotonic time for each unit of correction.
const SLEW_FACTOR: u64 = 60;
/// Most milliseconds corrected at one reading.
const CORRECTION_MAX_MS: u64 = 1_000;

/// What a reading of the wall clock brought to light.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum ClockNews {
    /// The wall clock was stepped; certificate time was not.
    Stepped {
        /// Seconds by which the wall clock is ahead of certificate time; negative: behind.
        ahead: i64,
    },
    /// After a step, the wall clock and certificate time agree again.
    Agrees,
}

/// See the module's header.
#[derive(Debug, Clone)]
pub struct CertificateClock {
    /// Unix milliseconds at `Time::ZERO`, corrections included.
    zero_ms: i64,
    /// The same without corrections.
    start_ms: i64,
    /// Milliseconds by which the wall clock was ahead of a clock without corrections at the last reading.
    last_ahead_ms: i64,
    /// Up to when the right to correct is used up.
    slewed: Time,
    is_stepped: bool,
}

impl CertificateClock {
    /// A clock that agrees with the wall clock, which shows `wall_ms` Unix milliseconds at `now`.
    pub fn new(now: Time, wall_ms: i64) -> Self {
        let zero_ms = wall_ms.saturating_sub(milliseconds(now));
        Self { zero_ms, start_ms: zero_ms, last_ahead_ms: 0, slewed: now, is_stepped: false }
    }

    /// Certificate time in Unix milliseconds.
    pub fn unix_milliseconds(&self, now: Time) -> i64 {
        self.zero_ms.saturating_add(milliseconds(now))
    }

    /// Certificate time in whole Unix seconds.
    pub fn unix_seconds(&self, now: Time) -> i64 {
        self.unix_milliseconds(now).div_euclid(1_000)
    }

    /// When a certificate that is valid up to and including the second `not_after` has expired, if no correction comes before.
    /// `None`: never, as far as [`Time`] reaches.
    pub fn expiry(&self, not_after: i64) -> Option<Time> {
        let at_ms = not_after.checked_add(1)?.checked_mul(1_000)?.saturating_sub(self.zero_ms).max(0);
        let nanoseconds = u64::try_from(at_ms).ok()?.checked_mul(1_000_000)?;
        Some(Time::from_nanos(nanoseconds))
    }

    /// The wall clock shows `wall_ms` Unix milliseconds at `now`.
    pub fn handle_wall(&mut self, now: Time, wall_ms: i64) -> Option<ClockNews> {
        let ahead_of_start = wall_ms.saturating_sub(self.start_ms).saturating_sub(milliseconds(now));
        let moved = ahead_of_start.saturating_sub(self.last_ahead_ms);
        self.last_ahead_ms = ahead_of_start;
        let ahead_ms = wall_ms.saturating_sub(self.unix_milliseconds(now));
        self.slew(now, ahead_ms);
        let step_ms = STEP_MIN.as_millis();
        if u128::from(ahead_ms.unsigned_abs()) < step_ms {
            return std::mem::take(&mut self.is_stepped).then_some(ClockNews::Agrees);
        }
        if u128::from(moved.unsigned_abs()) < step_ms {
            return None;
        }
        self.is_stepped = true;
        Some(ClockNews::Stepped { ahead: ahead_ms.div_euclid(1_000) })
    }

    fn slew(&mut self, now: Time, ahead_ms: i64) {
        let passed = u64::try_from(now.since(self.slewed).as_millis()).unwrap_or(u64::MAX);
        let allowed = (passed / SLEW_FACTOR).min(CORRECTION_MAX_MS);
        let used = ahead_ms.unsigned_abs().min(allowed);
        let correction = i64::try_from(used).unwrap_or(0).saturating_mul(ahead_ms.signum());
        self.zero_ms = self.zero_ms.saturating_add(correction);
        if used > 0 || ahead_ms == 0 {
            self.slewed = now;
        }
    }
}

fn milliseconds(time: Time) -> i64 {
    i64::try_from(time.as_nanos() / 1_000_000).unwrap_or(i64::MAX)
}

#[cfg(test)]
mod tests {
    use super::*;

    const START_MS: i64 = 1_800_000_000_000;

    fn at(seconds: u64) -> Time {
        Time::from_millis(seconds * 1_000)
    }

    /// Reads a wall clock that is `offset_ms` off every ten seconds from `from` to `to`.
    fn read(clock: &mut CertificateClock, from: u64, to: u64, offset_ms: i64) -> Vec<ClockNews> {
        (from..=to)
            .step_by(10)
            .filter_map(|second| {
                clock.handle_wall(at(second), START_MS + i64::try_from(second).unwrap() * 1_000 + offset_ms)
            })
            .collect()
    }

    #[test]
    fn it_follows_monotonic_time() {
        let clock = CertificateClock::new(at(5), START_MS);
        assert_eq!(clock.unix_milliseconds(at(5)), START_MS);
        assert_eq!(clock.unix_seconds(at(65)), START_MS / 1_000 + 60);
    }

    /// An hour either way, 1970 and 2106: told once, and certificate time moves by no more than a second a minute.
    #[test]
    fn a_step_is_told_once_and_changes_next_to_nothing() {
        let to_1970 = -START_MS;
        let to_2106 = 4_294_967_295_000 - START_MS;
        for step_ms in [3_600_000, -3_600_000, to_1970, to_2106, i64::MAX / 2, i64::MIN / 2] {
            let mut clock = CertificateClock::new(Time::ZERO, START_MS);
            assert_eq!(read(&mut clock, 10, 60, 0), vec![]);
            let news = read(&mut clock, 70, 3_660, step_ms);
            assert_eq!(news.len(), 1, "{step_ms}: {news:?}");
            assert!(matches!(news[0], ClockNews::Stepped { ahead } if ahead.signum() == step_ms.signum()));
            let off = clock.unix_milliseconds(at(3_660)) - START_MS - 3_660_000;
            assert!(off.abs() <= 60_500, "{step_ms}: {off} ms in an hour");
            assert!(
                off.abs() >= 59_000 && off.signum() == step_ms.signum(),
                "{step_ms}: {off} ms in an hour"
            );
        }
    }

    #[test]
    fn the_end_of_a_step_is_told_and_another_step_again() {
        let mut clock = CertificateClock::new(Time::ZERO, START_MS);
        assert_eq!(read(&mut clock, 10, 100, 3_600_000).len(), 1);
        assert_eq!(read(&mut clock, 110, 300, 0), vec![ClockNews::Agrees]);
        assert_eq!(read(&mut clock, 310, 400, -3_600_000).len(), 1);
        assert_eq!(read(&mut clock, 410, 500, 7_200_000).len(), 1);
    }

    /// A wall clock that drifts, as all do, is followed without a word.
    #[test]
    fn drift_is_followed_in_silence() {
        let mut clock = CertificateClock::new(Time::ZERO, START_MS);
        for minute in 1..1_000_u64 {
            let wall_ms = START_MS + i64::try_from(minute).unwrap() * 60_500;
            assert_eq!(clock.handle_wall(at(minute * 60), wall_ms), None);
            assert!((clock.unix_milliseconds(at(minute * 60)) - wall_ms).abs() <= 1);
        }
    }

    /// However often or seldom it is read, the slew is the same.
    #[test]
    fn the_slew_does_not_depend_on_how_often_it_is_read() {
        for spacing_ms in [7, 100, 10_000, 60_000, 7_200_000] {
            let mut clock = CertificateClock::new(Time::ZERO, START_MS);
            let mut now_ms = 0;
            while now_ms < 7_200_000 {
                now_ms += spacing_ms;
                let wall_ms = START_MS + i64::try_from(now_ms).unwrap() + 3_600_000;
                clock.handle_wall(Time::from_millis(now_ms), wall_ms);
            }
            let end = Time::from_millis(now_ms);
            let off = clock.unix_milliseconds(end) - START_MS - milliseconds(end);
            assert!((0..=120_100).contains(&off), "every {spacing_ms} ms: {off}");
        }
    }

    #[test]
    fn the_moment_of_expiry_is_the_end_of_the_last_second() {
        let clock = CertificateClock::new(Time::ZERO, START_MS);
        let last = START_MS / 1_000 + 100;
        let expiry = clock.expiry(last).unwrap();
        assert_eq!(expiry, at(101));
        assert_eq!(clock.unix_seconds(expiry), last + 1);
        assert_eq!(clock.unix_seconds(Time::from_millis(100_999)), last);
        assert_eq!(clock.expiry(0), Some(Time::ZERO), "long ago");
        assert_eq!(clock.expiry(i64::MAX), None);
        assert_eq!(clock.expiry(253_402_300_799), None, "the year 9999");
    }
}
