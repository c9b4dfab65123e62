//! Which orderer next, and when: memory of failures and backoff with jitter.

use std::collections::BTreeMap;
use std::time::Duration;

use rand::{Rng, RngExt};

use super::DeliverEndpoint;

/// Failures of each endpoint since it last delivered a block. As large as the channel's list of orderers.
#[derive(Debug, Default)]
pub(super) struct EndpointMemory {
    failures: BTreeMap<String, u32>,
}

impl EndpointMemory {
    /// Forgets endpoints that are no longer in the channel config.
    pub(super) fn retain(&mut self, endpoints: &[DeliverEndpoint]) {
        self.failures.retain(|address, _| endpoints.iter().any(|endpoint| endpoint.address == *address));
    }

    /// An endpoint with the fewest failures, at random among equals; `None` if there is none at all.
    pub(super) fn choose<'a>(
        &self,
        endpoints: &'a [DeliverEndpoint],
        random: &mut impl Rng,
    ) -> Option<&'a DeliverEndpoint> {
        let fewest = endpoints.iter().map(|endpoint| self.count(endpoint)).min()?;
        let best: Vec<_> = endpoints.iter().filter(|endpoint| self.count(endpoint) == fewest).collect();
        best.get(random.random_range(0..best.len())).copied()
    }

    /// The endpoint could not be reached, broke off or misbehaved.
    pub(super) fn failed(&mut self, address: &str) {
        let count = self.failures.entry(address.to_owned()).or_default();
        *count = count.saturating_add(1);
    }

    /// The endpoint delivered a block; its failures are forgiven.
    pub(super) fn delivered(&mut self, address: &str) {
        self.failures.remove(address);
    }

    fn count(&self, endpoint: &DeliverEndpoint) -> u32 {
        self.failures.get(&endpoint.address).copied().unwrap_or(0)
    }
}

/// Waits that double with each failure in a row.
#[derive(Debug)]
pub(super) struct Backoff {
    wait_min: Duration,
    wait_max: Duration,
    failures: u32,
}

impl Backoff {
    pub(super) fn new(wait_min: Duration, wait_max: Duration) -> Self {
        Self { wait_min, wait_max, failures: 0 }
    }

    /// The wait before the next attempt: between half and all of `wait_min · 2^(failures in a row)`, at most `wait_max`.
    pub(super) fn next(&mut self, random: &mut impl Rng) -> Duration {
        let factor = 1_u32.checked_shl(self.failures).unwrap_or(u32::MAX);
        let whole = self.wait_min.saturating_mul(factor).min(self.wait_max);
        self.failures = self.failures.saturating_add(1).min(31);
        whole.mul_f64(random.random_range(0.5..=1.0))
    }

    pub(super) fn reset(&mut self) {
        self.failures = 0;
    }
}

#[cfg(test)]
mod tests {
    use rand::SeedableRng;
    use rand::rngs::ChaCha8Rng;

    use super::*;

    fn endpoints(addresses: &[&str]) -> Vec<DeliverEndpoint> {
        let endpoint =
            |address: &&str| DeliverEndpoint { address: (*address).to_owned(), tls_roots: Vec::new() };
        addresses.iter().map(endpoint).collect()
    }

    #[test]
    fn a_failed_endpoint_is_asked_after_all_others() {
        let mut random = ChaCha8Rng::seed_from_u64(1);
        let all = endpoints(&["a:1", "b:1", "c:1"]);
        let mut memory = EndpointMemory::default();
        for _ in 0..5 {
            let mut seen = Vec::new();
            for _ in 0..3 {
                let chosen = memory.choose(&all, &mut random).unwrap().address.clone();
                assert!(!seen.contains(&chosen), "{chosen} twice before the others");
                memory.failed(&chosen);
                seen.push(chosen);
            }
        }
    }

    #[test]
    fn delivering_forgives_and_equals_are_chosen_at_random() {
        let mut random = ChaCha8Rng::seed_from_u64(2);
        let all = endpoints(&["a:1", "b:1"]);
        let mut memory = EndpointMemory::default();
        memory.failed("a:1");
        assert_eq!(memory.choose(&all, &mut random).unwrap().address, "b:1");
        memory.delivered("a:1");
        let mut chosen: Vec<_> =
            (0..50).map(|_| memory.choose(&all, &mut random).unwrap().address.as_str()).collect();
        chosen.sort_unstable();
        chosen.dedup();
        assert_eq!(chosen, ["a:1", "b:1"]);
    }

    #[test]
    fn endpoints_that_left_the_config_are_forgotten() {
        let mut memory = EndpointMemory::default();
        memory.failed("a:1");
        memory.failed("b:1");
        memory.retain(&endpoints(&["b:1"]));
        assert_eq!(memory.failures.len(), 1);
        assert!(memory.choose(&[], &mut ChaCha8Rng::seed_from_u64(3)).is_none());
    }

    #[test]
    fn waits_double_up_to_the_longest_with_jitter_and_start_anew() {
        let mut random = ChaCha8Rng::seed_from_u64(4);
        let ms = Duration::from_millis;
        let mut backoff = Backoff::new(ms(100), ms(10_000));
        for whole in [100, 200, 400, 800, 1600, 3200, 6400, 10_000, 10_000] {
            let wait = backoff.next(&mut random);
            assert!(wait >= ms(whole / 2) && wait <= ms(whole), "{wait:?} of {whole}");
        }
        for _ in 0..100 {
            assert!(backoff.next(&mut random) <= ms(10_000));
        }
        backoff.reset();
        assert!(backoff.next(&mut random) <= ms(100));
    }
}
