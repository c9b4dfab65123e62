//! Peers that are behind, among others that have everything: how fast they catch up, and what that costs the others.
//!
//! One organisation, everybody as far from everybody as the round trip says, links of one bandwidth. The history is there from the start; the
//! peers that are behind start with empty ledgers while nothing else happens, or while the orderer makes blocks that the leader spreads. The
//! late ones ask only peers: the leader alone pulls from the orderer.

use std::time::Duration;

use grapevine_channels::time::Time;
use serde::Serialize;

use crate::checker::Violation;
use crate::links::{Distance, LinkSettings, Sharing};
use crate::report::ms;
use crate::scenario::{Leadership, Scenario};
use crate::simulation::Simulation;
use crate::truth::Site;

/// When the late peers start.
const START: Time = Time::from_millis(2_000);
/// Longer than any run.
const PATIENCE: Duration = Duration::from_secs(600);
/// The one channel.
const CHANNEL: usize = 0;

/// What is measured.
#[derive(Debug, Clone)]
pub struct CatchUp {
    /// Peers that have everything; the first leads.
    pub sources: usize,
    /// Peers that have nothing.
    pub late: usize,
    /// Blocks that are missing.
    pub blocks: u64,
    /// Bytes of a block.
    pub block_bytes: usize,
    /// Between any two.
    pub round_trip: Duration,
    /// Bytes a second of every link, up and down.
    pub bandwidth: u64,
    /// How bulk shares an uplink.
    pub sharing: Sharing,
    /// Blocks that the orderer makes meanwhile, and the time between two; none: nothing is made.
    pub live: Option<(u64, Duration)>,
    /// Bytes of a block that is made meanwhile.
    pub live_bytes: usize,
    /// Decides everything that is random.
    pub seed: u64,
}

/// What it came to.
#[derive(Debug, Clone, Serialize)]
pub struct CaughtUp {
    /// Sources.
    pub sources: usize,
    /// Late peers.
    pub late: usize,
    /// Blocks that were missing.
    pub blocks: u64,
    /// Bytes of each.
    pub block_bytes: usize,
    /// From the start of a late peer to its first committed block; the slowest.
    pub first_block_ms: f64,
    /// 10^6 bytes a second that a late peer committed of what was missing, from its first block on; the slowest.
    pub rate_mb_s: f64,
    /// Bytes of blocks that came to peers for each that they needed.
    pub copies: f64,
    /// Live blocks: from the orderer having made one to a source having committed it, median.
    pub live_p50_ms: Option<f64>,
    /// 99th percentile.
    pub live_p99_ms: Option<f64>,
}

/// When one late peer committed.
#[derive(Debug, Clone, Copy, Default)]
struct Course {
    height: u64,
    first: Option<Time>,
    last: Option<Time>,
}

impl CatchUp {
    /// Runs once.
    ///
    /// # Errors
    /// The first violation, or that somebody never caught up.
    pub fn run(&self) -> Result<CaughtUp, Violation> {
        let mut simulation = Simulation::new(self.scenario(), self.seed)?;
        simulation.is_measured = true;
        let sources: Vec<Site> = (0..self.sources).collect();
        simulation.preload(CHANNEL, self.blocks, self.block_bytes, &sources);
        let late: Vec<Site> = (self.sources..self.sources + self.late).collect();
        let mut courses = vec![Course::default(); late.len()];
        let history = self.blocks + 1;
        let mut live = Live { heights: vec![history; sources.len()], latencies: Vec::new() };
        let deadline = START + PATIENCE;
        while courses.iter().any(|course| course.height < history) || !self.is_over(&simulation) {
            let failed =
                |what, simulation: &Simulation| Violation { seed: self.seed, at: simulation.now, what };
            simulation.step().map_err(|what| failed(what, &simulation))?;
            if simulation.now > deadline {
                return Err(failed(format!("not caught up: {courses:?}"), &simulation));
            }
            for (course, site) in courses.iter_mut().zip(&late) {
                course.note(simulation.hosts[*site].height(CHANNEL).min(history), simulation.now);
            }
            live.note(&simulation);
        }
        live.latencies.sort_unstable();
        Ok(self.outcome(&simulation, &courses, &live.latencies))
    }

    /// Whether everybody that was there has every live block.
    fn is_over(&self, simulation: &Simulation) -> bool {
        let Some((count, _)) = self.live else { return true };
        simulation.hosts.iter().all(|host| host.height(CHANNEL) > self.blocks + count)
    }

    fn scenario(&self) -> Scenario {
        let mut scenario = Scenario::sized(&[self.sources + self.late]).led_by(Leadership::Static(0));
        let (live, interval) = self.live.unwrap_or((0, Duration::from_millis(100)));
        scenario.warm = true;
        scenario.distance = Distance::Uniform(self.round_trip / 2);
        scenario.links = LinkSettings { sharing: self.sharing, ..LinkSettings::of_bandwidth(self.bandwidth) };
        scenario.settings.dissemination.link_bits_per_second = self.bandwidth.saturating_mul(8);
        scenario.blocks = self.blocks + live;
        scenario.block_bytes = self.live_bytes;
        scenario.block_interval = interval;
        scenario.first_block = START;
        scenario.starts = (self.sources..self.sources + self.late).map(|site| (site, START)).collect();
        scenario
    }

    fn outcome(&self, simulation: &Simulation, courses: &[Course], live: &[Duration]) -> CaughtUp {
        let bytes = (self.blocks.saturating_sub(1) as f64) * self.block_bytes as f64;
        let rate = |course: &Course| {
            let took = course.last.unwrap_or(START).since(course.first.unwrap_or(START));
            bytes / 1e6 / took.as_secs_f64().max(1e-9)
        };
        let first = |course: &Course| course.first.unwrap_or(START).since(START);
        let live_blocks = self.live.map_or(0, |(count, _)| count) as f64 * self.live_bytes as f64;
        let others = (self.sources + self.late).saturating_sub(1) as f64;
        let needed = self.late as f64 * self.blocks as f64 * self.block_bytes as f64 + live_blocks * others;
        let came = simulation.measurements.block_bytes_received as f64;
        let percentile = |share: f64| {
            let place = (live.len() as f64 * share).ceil() as usize;
            live.get(place.saturating_sub(1)).map(|latency| ms(*latency))
        };
        CaughtUp {
            sources: self.sources,
            late: self.late,
            blocks: self.blocks,
            block_bytes: self.block_bytes,
            first_block_ms: ms(courses.iter().map(first).max().unwrap_or_default()),
            rate_mb_s: courses.iter().map(rate).fold(f64::INFINITY, f64::min),
            copies: came / needed.max(1.0),
            live_p50_ms: percentile(0.5),
            live_p99_ms: percentile(0.99),
        }
    }
}

/// How long live blocks took.
#[derive(Debug)]
struct Live {
    /// What each source had committed when it was looked at last.
    heights: Vec<u64>,
    latencies: Vec<Duration>,
}

impl Live {
    fn note(&mut self, simulation: &Simulation) {
        for (height, host) in self.heights.iter_mut().zip(&simulation.hosts) {
            while *height < host.height(CHANNEL) {
                let number = usize::try_from(*height).unwrap_or(usize::MAX);
                let made_at = simulation.orderer.made_at[CHANNEL].get(number);
                self.latencies.extend(made_at.map(|made_at| simulation.now.since(*made_at)));
                *height += 1;
            }
        }
    }
}

impl Course {
    fn note(&mut self, height: u64, now: Time) {
        // Block 0 is there from the start.
        if height > self.height.max(1) {
            self.first.get_or_insert(now);
            self.last = Some(now);
        }
        self.height = self.height.max(height);
    }
}

impl Simulation {
    /// A history that was made and spread before the run.
    fn preload(&mut self, channel: usize, blocks: u64, block_bytes: usize, sites: &[Site]) {
        for _ in 0..blocks {
            self.orderer.make(channel, block_bytes, Time::ZERO);
        }
        for site in sites {
            self.hosts[*site].ledgers[channel].clone_from(&self.orderer.chains[channel]);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::links::GIGABIT;

    fn behind(blocks: u64, block_bytes: usize) -> CatchUp {
        CatchUp {
            sources: 4,
            late: 1,
            blocks,
            block_bytes,
            round_trip: Duration::from_millis(66),
            bandwidth: GIGABIT,
            sharing: Sharing::Fair,
            live: None,
            live_bytes: block_bytes,
            seed: 1,
        }
    }

    /// What four sources at 66 ms give is most of the late peer's own link.
    #[test]
    fn distance_does_not_slow_it_down() {
        let caught_up = behind(600, 160_000).run().unwrap();
        assert!(caught_up.rate_mb_s > 80.0, "{caught_up:?}");
        assert!(caught_up.copies < 1.05, "{caught_up:?}");
        let again = behind(600, 160_000).run().unwrap();
        assert_eq!(format!("{caught_up:?}"), format!("{again:?}"));
    }

    #[test]
    fn live_blocks_are_spread_meanwhile() {
        let live = Some((20, Duration::from_millis(100)));
        let caught_up = CatchUp { late: 2, live, live_bytes: 50_000, ..behind(300, 160_000) }.run().unwrap();
        assert!(caught_up.live_p99_ms > caught_up.live_p50_ms, "{caught_up:?}");
    }
}
