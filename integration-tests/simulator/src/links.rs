//! How long messages take.

use std::fmt::Debug;
use std::time::Duration;

use grapevine_channels::time::Time;
use rand::RngExt;
use rand::rngs::ChaCha8Rng;

use crate::truth::Site;

/// The links between sites. Cuts, crashes and the order of frames on a stream are the network's; a link only says
/// when a message sent now would be there, so bandwidth, queues and jitter fit behind it.
pub trait Links: Debug {
    /// When a message of `size` bytes that is sent `now` arrives.
    fn arrival(&mut self, now: Time, from: Site, to: Site, size: usize) -> Time;

    /// One-way time of a small message, for handshakes and refusals.
    fn latency(&self, from: Site, to: Site) -> Duration;
}

/// A fixed latency for each pair of sites; bandwidth without limit.
#[derive(Debug, Clone)]
pub struct FixedLinks {
    positions: Vec<(f64, f64)>,
    base: Duration,
    per_distance: Duration,
}

impl FixedLinks {
    /// One latency for all.
    pub fn uniform(latency: Duration) -> Self {
        Self { positions: Vec::new(), base: latency, per_distance: Duration::ZERO }
    }

    /// One switch: 0.25 ms.
    pub fn lan() -> Self {
        Self::uniform(Duration::from_micros(250))
    }

    /// `sites` places at random in the unit square, 2 ms + 60 ms × distance apart.
    pub fn wan(sites: usize, rng: &mut ChaCha8Rng) -> Self {
        let positions =
            (0..sites).map(|_| (rng.random_range(0.0..1.0), rng.random_range(0.0..1.0))).collect();
        Self { positions, base: Duration::from_millis(2), per_distance: Duration::from_millis(60) }
    }
}

impl Links for FixedLinks {
    fn arrival(&mut self, now: Time, from: Site, to: Site, _size: usize) -> Time {
        now + self.latency(from, to)
    }

    fn latency(&self, from: Site, to: Site) -> Duration {
        match (self.positions.get(from), self.positions.get(to)) {
            (Some(from), Some(to)) => {
                self.base + self.per_distance.mul_f64((from.0 - to.0).hypot(from.1 - to.1))
            }
            _ => self.base,
        }
    }
}
