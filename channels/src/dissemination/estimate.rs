//! What plans reckon with and nobody can look up: the channel's rate, and what verifying costs here.

use std::time::Duration;

use crate::time::Time;

/// Time over which a rate is averaged.
const RATE_WINDOW_SECONDS: f64 = 5.0;

/// Bytes a second, averaged over the last seconds.
#[derive(Debug, Clone, Copy, Default)]
pub(super) struct Rate {
    bytes_per_second: f64,
    at: Time,
}

impl Rate {
    pub(super) fn add(&mut self, now: Time, bytes: usize) {
        self.bytes_per_second = self.bytes_per_second(now) + bytes as f64 / RATE_WINDOW_SECONDS;
        self.at = now;
    }

    pub(super) fn bytes_per_second(&self, now: Time) -> f64 {
        self.bytes_per_second * (-now.since(self.at).as_secs_f64() / RATE_WINDOW_SECONDS).exp()
    }
}

/// How long a block takes to verify, learned from those that were.
#[derive(Debug, Clone, Copy)]
pub(super) struct VerifyCost {
    /// Times slower than assumed.
    factor: f64,
}

impl Default for VerifyCost {
    fn default() -> Self {
        Self { factor: 1.0 }
    }
}

impl VerifyCost {
    /// Slower than this is not believed: the machine had a bad moment.
    const FACTOR_MAX: f64 = 50.0;

    /// A signature, and hashing at 1 GB/s.
    fn assumed(bytes: usize) -> Duration {
        Duration::from_micros(300) + Duration::from_nanos(bytes as u64)
    }

    pub(super) fn learn(&mut self, bytes: usize, took: Duration) {
        let factor = (took.as_secs_f64() / Self::assumed(bytes).as_secs_f64()).min(Self::FACTOR_MAX);
        self.factor += (factor - self.factor) / 8.0;
    }

    pub(super) fn of(&self, bytes: usize) -> Duration {
        Self::assumed(bytes).mul_f64(self.factor)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_rate_follows_the_channel() {
        let mut rate = Rate::default();
        for index in 0..100 {
            rate.add(Time::from_millis(200 * index), 160_000);
        }
        let steady = rate.bytes_per_second(Time::from_millis(20_000));
        assert!((760_000.0..860_000.0).contains(&steady), "{steady}");
        assert!(rate.bytes_per_second(Time::from_millis(60_000)) < 500.0);
    }

    #[test]
    fn verifying_costs_what_it_did_lately() {
        let mut cost = VerifyCost::default();
        assert_eq!(cost.of(1_000_000), Duration::from_micros(1_300));
        (0..100).for_each(|_| cost.learn(1_000_000, Duration::from_micros(6_500)));
        assert!(cost.of(1_000_000) > Duration::from_micros(6_400));
        (0..100).for_each(|_| cost.learn(1_000, Duration::from_secs(9)));
        assert!(cost.of(700_000) <= Duration::from_millis(50));
    }
}
