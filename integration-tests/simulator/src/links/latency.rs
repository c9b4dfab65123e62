//! How far apart sites are.

use std::time::Duration;

use rand::rngs::ChaCha8Rng;
use rand::{RngExt, SeedableRng};

use crate::truth::Site;

/// Distinguishes the randomness of places from that of the run with the same seed.
const PLACES_STREAM: u64 = 0x11f5;

/// How far apart sites are, before the seed says where each of them is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Distance {
    /// 0.25 ms.
    Lan,
    /// 2 ms + 60 ms × distance between places drawn at random in the unit square.
    Wan,
    /// The same for all.
    Uniform(Duration),
    /// This many places of the WAN, with as many sites each; 0.25 ms inside.
    Clusters(usize),
    /// Drawn for every pair alone, between these: no triangle inequality.
    Independent(Duration, Duration),
}

impl Distance {
    /// Its name in results.
    pub fn name(self) -> String {
        match self {
            Self::Lan => "lan".into(),
            Self::Wan => "wan".into(),
            Self::Uniform(latency) => format!("{latency:?}"),
            Self::Clusters(count) => format!("{count} clusters"),
            Self::Independent(min, max) => format!("{min:?} to {max:?}"),
        }
    }
}

/// One-way times between sites.
#[derive(Debug, Clone)]
pub enum Latency {
    /// The same for all.
    Same(Duration),
    /// Sites in the unit square.
    Plane {
        /// Where each site is.
        places: Vec<(f64, f64)>,
        /// Between sites at one place.
        base: Duration,
        /// More for each unit of distance, and once where the places differ.
        per_distance: Duration,
        /// Added between different places.
        apart: Duration,
    },
    /// Independent for each unordered pair.
    Pairs {
        /// Decides all pairs.
        seed: u64,
        /// The shortest.
        min: Duration,
        /// The longest.
        max: Duration,
    },
}

impl Latency {
    /// Places `sites` sites as the seed has it.
    pub fn of(distance: Distance, sites: usize, seed: u64) -> Self {
        let mut rng = ChaCha8Rng::seed_from_u64(seed ^ PLACES_STREAM);
        let mut place = || (rng.random_range(0.0..1.0), rng.random_range(0.0..1.0));
        let lan = Duration::from_micros(250);
        let wan = |places, base, apart| Self::Plane {
            places,
            base,
            per_distance: Duration::from_millis(60),
            apart,
        };
        match distance {
            Distance::Lan => Self::Same(lan),
            Distance::Uniform(latency) => Self::Same(latency),
            Distance::Wan => {
                wan((0..sites).map(|_| place()).collect(), Duration::from_millis(2), Duration::ZERO)
            }
            Distance::Clusters(clusters) => {
                let centres: Vec<(f64, f64)> = (0..clusters.max(1)).map(|_| place()).collect();
                let places = (0..sites).map(|site| centres[site % centres.len()]).collect();
                wan(places, lan, Duration::from_millis(2))
            }
            Distance::Independent(min, max) => Self::Pairs { seed, min, max },
        }
    }

    /// From one site to another.
    pub fn one_way(&self, from: Site, to: Site) -> Duration {
        match self {
            Self::Same(latency) => *latency,
            Self::Plane { places, base, per_distance, apart } => {
                let (Some(from), Some(to)) = (places.get(from), places.get(to)) else { return *base };
                let distance = (from.0 - to.0).hypot(from.1 - to.1);
                let apart = if distance > 0.0 { *apart } else { Duration::ZERO };
                *base + apart + per_distance.mul_f64(distance)
            }
            Self::Pairs { seed, min, max } => {
                let pair = ((from.min(to) as u64) << 32) | from.max(to) as u64;
                let mut rng = ChaCha8Rng::seed_from_u64(seed ^ pair.wrapping_mul(0x9e37_79b9_7f4a_7c15));
                *min + max.saturating_sub(*min).mul_f64(rng.random_range(0.0..1.0))
            }
        }
    }

    /// There and back.
    pub fn round_trip(&self, from: Site, to: Site) -> Duration {
        self.one_way(from, to) + self.one_way(to, from)
    }

    /// The longest from one site to any of these.
    pub fn longest(&self, from: Site, to: impl Iterator<Item = Site>) -> Duration {
        to.filter(|site| *site != from).map(|site| self.one_way(from, site)).max().unwrap_or_default()
    }
}
