//! Scenario files: an [`Experiment`] with faults and what is expected of it, in YAML.
//!
//! A file is run once for each seed; the seed is the placement. Every key but `description` may be left out. Peers are numbered from 0 through all
//! organisations, in each of which the first leads; one more is the orderer. Faults have the names of [`Fault`]'s variants in snake case.
//!
//! ```yaml
//! description: a member's links become ten times slower
//! peers: 20
//! blocks: 20
//! faults:
//!   - { at_ms: 3000, fault: { slow: [7, 100] } }
//! expect: { missed_max: 0 }
//! ```

use std::path::Path;
use std::time::Duration;

use grapevine_channels::time::Time;
use serde::Deserialize;

use crate::experiment::Experiment;
use crate::fault::Fault;
use crate::links::{Distance, Jitter, LinkSettings, Loss, Sharing};
use crate::outcome::Outcome;
use crate::truth::{ChannelIndex, Site};

/// A lost packet is sent again after this time, if files say nothing else: Linux' least.
const RETRANSMIT: Duration = Duration::from_millis(200);

/// A scenario file does not say what it should.
#[derive(Debug, thiserror::Error)]
pub enum ScenarioFileError {
    /// It can't be read.
    #[error("cannot read {0}: {1}")]
    Read(String, std::io::Error),
    /// It is no scenario.
    #[error("{0}: {1}")]
    Parse(String, String),
}

/// What a file says.
#[derive(Debug, Clone)]
pub struct ScenarioFile {
    /// In a sentence.
    pub description: String,
    /// What is run, with [`Experiment::seed`] to be set.
    pub experiment: Experiment,
    /// What must come out.
    pub expect: Expect,
}

/// What must come out of every seed.
#[derive(Debug, Clone, Default, PartialEq, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Expect {
    /// Peers × blocks that may be missing.
    pub missed_max: u64,
    /// Bytes received ÷ bytes needed.
    pub copies_max: Option<f64>,
    /// Time to the last peer ÷ limit, mean.
    pub last_over_limit_max: Option<f64>,
}

impl Expect {
    /// What is not as expected, if anything is.
    pub fn unmet(&self, outcome: &Outcome) -> Option<String> {
        let over = |value: f64, max: Option<f64>| max.is_some_and(|max| value > max);
        if outcome.missed > self.missed_max {
            return Some(format!("{} of {} deliveries were missed", outcome.missed, outcome.deliveries));
        }
        if outcome.deliveries == 0 {
            return Some("nothing was delivered".into());
        }
        if over(outcome.copies, self.copies_max) {
            return Some(format!("{:.3} copies", outcome.copies));
        }
        let last = outcome.last_over_limit;
        over(last, self.last_over_limit_max).then(|| format!("the last after {last:.2} × limit"))
    }
}

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
struct TimedFault {
    at_ms: u64,
    fault: Fault,
}

#[derive(Debug, Clone, Copy, Default, Deserialize)]
#[serde(rename_all = "snake_case")]
enum Links {
    Lan,
    #[default]
    Wan,
}

#[derive(Debug, Deserialize)]
#[serde(default, deny_unknown_fields)]
struct Text {
    description: String,
    peers: usize,
    organizations: usize,
    channels: usize,
    block_bytes: usize,
    blocks: u64,
    interval_ms: u64,
    links: Links,
    bandwidth_mbit: u64,
    sharing: Sharing,
    jitter_ms: u64,
    retransmit: f64,
    reset: f64,
    silent: f64,
    withholding: f64,
    slow: f64,
    views_off: f64,
    live_membership: bool,
    reconciliation: bool,
    joins_later: Vec<(Site, ChannelIndex)>,
    clock_drift_ppm: Vec<(Site, i32)>,
    patience_s: u64,
    faults: Vec<TimedFault>,
    expect: Expect,
}

impl Default for Text {
    fn default() -> Self {
        Self {
            description: String::new(),
            peers: 20,
            organizations: 1,
            channels: 1,
            block_bytes: 160_000,
            blocks: 20,
            interval_ms: 200,
            links: Links::Wan,
            bandwidth_mbit: 1_000,
            sharing: Sharing::Fifo,
            jitter_ms: 0,
            retransmit: 0.0,
            reset: 0.0,
            silent: 0.0,
            withholding: 0.0,
            slow: 0.0,
            views_off: 0.0,
            live_membership: false,
            reconciliation: false,
            joins_later: Vec::new(),
            clock_drift_ppm: Vec::new(),
            patience_s: 10,
            faults: Vec::new(),
            expect: Expect::default(),
        }
    }
}

impl ScenarioFile {
    /// Reads a file.
    ///
    /// # Errors
    /// It is not there, or no scenario.
    pub fn read(path: &Path) -> Result<Self, ScenarioFileError> {
        let name = path.display().to_string();
        let text =
            std::fs::read_to_string(path).map_err(|error| ScenarioFileError::Read(name.clone(), error))?;
        Self::parse(&text).map_err(|error| ScenarioFileError::Parse(name, error))
    }

    /// Reads a text; an error says what is wrong.
    fn parse(text: &str) -> Result<Self, String> {
        let text: Text = serde_saphyr::from_str(text).map_err(|error| error.to_string())?;
        if text.organizations == 0 || text.peers < text.organizations || text.channels == 0 {
            return Err("peers must be at least organizations, and both and channels at least 1".into());
        }
        if text.blocks == 0 || text.interval_ms == 0 {
            return Err("blocks and interval_ms must be at least 1".into());
        }
        let shares = [text.retransmit, text.reset, text.silent, text.withholding, text.slow, text.views_off];
        if let Some(share) = shares.into_iter().find(|share| !(0.0..=1.0).contains(share)) {
            return Err(format!("{share} is no share: 0 to 1"));
        }
        let mut sites = text.clock_drift_ppm.iter().map(|(site, _)| site);
        if let Some(site) = sites.find(|site| **site >= text.peers) {
            return Err(format!("peer {site} of {}", text.peers));
        }
        let joins = text.joins_later.iter().map(|(site, channel)| Fault::Join(*site, *channel));
        let mut faults = text.faults.iter().map(|timed| timed.fault.clone()).chain(joins);
        if let Some(what) =
            faults.find_map(|fault| fault.names_unknown(text.peers, text.organizations, text.channels))
        {
            return Err(what);
        }
        let bandwidth = (text.bandwidth_mbit > 0).then(|| text.bandwidth_mbit.saturating_mul(125_000));
        let links = LinkSettings {
            up: bandwidth,
            down: bandwidth,
            sharing: text.sharing,
            jitter: match text.jitter_ms {
                0 => Jitter::None,
                jitter => Jitter::Uniform(Duration::from_millis(jitter)),
            },
            loss: match (text.retransmit, text.reset) {
                (0.0, 0.0) => Loss::None,
                (probability, 0.0) => Loss::Retransmit { probability, timeout: RETRANSMIT },
                (0.0, probability) => Loss::Reset { probability },
                _ => return Err("retransmit or reset, not both".into()),
            },
            ..LinkSettings::default()
        };
        let experiment = Experiment {
            peers: text.peers,
            organizations: text.organizations,
            channels: text.channels,
            block_bytes: text.block_bytes,
            blocks: text.blocks,
            interval: Duration::from_millis(text.interval_ms),
            distance: match text.links {
                Links::Lan => Distance::Lan,
                Links::Wan => Distance::Wan,
            },
            links,
            silent: text.silent,
            withholding: text.withholding,
            slow: text.slow,
            views_off: text.views_off,
            live_membership: text.live_membership,
            reconciliation: text.reconciliation,
            joins_later: text.joins_later.into_iter().collect(),
            clock_drift_ppm: text.clock_drift_ppm.into_iter().collect(),
            faults: text
                .faults
                .into_iter()
                .map(|TimedFault { at_ms, fault }| (Time::from_millis(at_ms), fault))
                .collect(),
            placements: 1,
            patience: Duration::from_secs(text.patience_s),
            ..Experiment::default()
        };
        Ok(Self { description: text.description, experiment, expect: text.expect })
    }

    /// Runs one seed.
    ///
    /// # Errors
    /// A violation, or what is not as expected.
    pub fn run(&self, seed: u64) -> Result<Outcome, String> {
        let experiment = Experiment { seed, ..self.experiment.clone() };
        let outcome = experiment.run(|_| {}).map_err(|violation| violation.to_string())?;
        match self.expect.unmet(&outcome) {
            Some(what) => Err(format!("seed {seed}: {what}")),
            None => Ok(outcome),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::fault::Target;

    #[test]
    fn faults_and_expectations_are_read() {
        let text = "
description: something
links: lan
retransmit: 0.01
faults:
  - { at_ms: 3000, fault: { slow: [7, 100] } }
  - { at_ms: 4000, fault: { crash: { leader: { organization: 0, channel: 0 } } } }
  - { at_ms: 5000, fault: restart_all }
expect: { missed_max: 3, copies_max: 1.5 }
";
        let file = ScenarioFile::parse(text).unwrap();
        let leader = Target::Leader { organization: 0, channel: 0 };
        let faults =
            [(3_000, Fault::Slow(7, 100)), (4_000, Fault::Crash(leader)), (5_000, Fault::RestartAll)];
        assert_eq!(file.experiment.faults, faults.map(|(at, fault)| (Time::from_millis(at), fault)));
        assert_eq!(file.experiment.links.loss, Loss::Retransmit { probability: 0.01, timeout: RETRANSMIT });
        assert_eq!((file.expect.missed_max, file.expect.copies_max), (3, Some(1.5)));
    }

    #[test]
    fn nonsense_is_refused() {
        for text in [
            "peers: 0",
            "peer: 5",
            "silent: 2",
            "blocks: 0",
            "retransmit: 0.1\nreset: 0.1",
            "joins_later: [[20, 0]]",
            "joins_later: [[0, 1]]",
            "faults: [{ at_ms: 1, fault: { explode: 3 } }]",
            "faults: [{ at_ms: 1, fault: { crash: { peer: 20 } } }]",
            "faults: [{ at_ms: 1, fault: { pause: { leader: { organization: 1, channel: 0 } } } }]",
            "faults: [{ at_ms: 1, fault: { cut: [0, 21] } }]",
            "faults: [{ at_ms: 1, fault: { leave: [0, 1] } }]",
            "faults: [{ at_ms: 1, fault: { slow: [0, 0] } }]",
        ] {
            assert!(ScenarioFile::parse(text).is_err(), "{text}");
        }
    }
}
