//! `grapevine-simulator run`.

use std::io::{IsTerminal as _, Write as _};
use std::ops::RangeInclusive;
use std::path::{Path, PathBuf};
use std::time::Duration;

use anyhow::{Context, bail};
use clap::ValueEnum;
use grapevine_simulator::links::{Distance, LinkSettings, Sharing};
use grapevine_simulator::{Experiment, Outcome, Protocol, ScenarioFile};
use indicatif::{ProgressBar, ProgressDrawTarget, ProgressStyle};

/// What is measured.
#[derive(Debug, clap::Args)]
pub(crate) struct Run {
    /// What spreads the blocks.
    #[arg(long, value_enum, default_value_t = ProtocolName::Grapevine)]
    protocol: ProtocolName,
    /// Peers, leaders included, shared evenly by the organisations.
    #[arg(long, default_value_t = 20)]
    peers: usize,
    /// Organisations.
    #[arg(long, default_value_t = 1)]
    orgs: usize,
    /// Channels of all organisations.
    #[arg(long, default_value_t = 1)]
    channels: usize,
    /// Bytes of a block.
    #[arg(long, default_value_t = 160_000)]
    block_bytes: usize,
    /// Blocks in each channel and placement.
    #[arg(long, default_value_t = 1)]
    blocks: u64,
    /// Milliseconds between two blocks of a channel.
    #[arg(long, default_value_t = 1_000)]
    interval_ms: u64,
    /// How far apart peers are.
    #[arg(long, value_enum, default_value_t = LinksName::Wan)]
    links: LinksName,
    /// Mbit/s of every peer's link, up and down; 0: no limit.
    #[arg(long, default_value_t = 1_000)]
    bandwidth_mbit: u64,
    /// How bulk shares an uplink.
    #[arg(long, value_enum, default_value_t = SharingName::Fifo)]
    sharing: SharingName,
    /// Share of peers that accept everything and do nothing for others.
    #[arg(long, default_value_t = 0.0)]
    silent: f64,
    /// Share of peers that announce and never send.
    #[arg(long, default_value_t = 0.0)]
    withholding: f64,
    /// Share of peers whose links are ten times slower.
    #[arg(long, default_value_t = 0.0)]
    slow: f64,
    /// Each ordered pair of peers: the first does not know the second, with this probability.
    #[arg(long, default_value_t = 0.0)]
    views_off: f64,
    /// Placements: each draws places, silent peers and views anew.
    #[arg(long, default_value_t = 20)]
    placements: u64,
    /// Decides everything that is random.
    #[arg(long, default_value_t = 1)]
    seed: u64,
    /// Seconds that a run waits for what is missing after the last block.
    #[arg(long, default_value_t = 10)]
    patience_s: u64,
    /// Placements run at a time.
    #[arg(long, default_value_t = 1)]
    threads: usize,
    /// Fails if a peer missed a block.
    #[arg(long)]
    no_misses: bool,
    /// Runs this scenario file, once for each of --seeds; all other options but --json are of no account.
    #[arg(long)]
    scenario: Option<PathBuf>,
    /// Seeds of a scenario file, as first..last, both run.
    #[arg(long, value_parser = crate::seeds, default_value = "1..5", requires = "scenario")]
    seeds: RangeInclusive<u64>,
    /// Also writes the result as a JSON object to this file; - is standard output, instead of the table.
    #[arg(long)]
    json: Option<PathBuf>,
}

#[derive(Debug, Clone, Copy, ValueEnum)]
enum ProtocolName {
    /// Ours.
    Grapevine,
    /// Fabric's gossip.
    Classic,
    /// Everybody from the source.
    Star,
    /// libp2p's gossipsub, mesh of 8, IDONTWANT.
    Gossipsub,
    /// Plumtree, converged.
    Plumtree,
}

#[derive(Debug, Clone, Copy, ValueEnum)]
enum LinksName {
    /// 0.25 ms.
    Lan,
    /// 2 ms + 60 ms × distance in the unit square.
    Wan,
    /// Four places of the WAN.
    Clusters,
    /// 2 to 87 ms, drawn for every pair.
    Independent,
}

#[derive(Debug, Clone, Copy, ValueEnum)]
enum SharingName {
    /// One transfer after the other.
    Fifo,
    /// Chunk by chunk, receivers in turn.
    Fair,
}

impl Run {
    /// Runs, shows, writes.
    pub(crate) fn run(&self) -> anyhow::Result<()> {
        if let Some(path) = &self.scenario {
            return self.run_file(path);
        }
        let experiment = self.experiment()?;
        let bar = bar(experiment.placements
            * experiment.blocks
            * (experiment.channels * experiment.organizations) as u64);
        let outcome = experiment.run(|_| bar.inc(1))?;
        bar.finish_and_clear();
        print(&outcome, self.json.as_deref())?;
        if self.no_misses && outcome.missed > 0 {
            bail!("{} of {} deliveries were missed", outcome.missed, outcome.deliveries);
        }
        Ok(())
    }

    fn run_file(&self, path: &Path) -> anyhow::Result<()> {
        let file = ScenarioFile::read(path)?;
        let mut outcomes = Vec::new();
        for seed in self.seeds.clone() {
            let outcome = file.run(seed).map_err(anyhow::Error::msg).with_context(|| {
                format!(
                    "again with: grapevine-simulator run --scenario {} --seeds {seed}..{seed}",
                    path.display()
                )
            })?;
            eprintln!(
                "seed {seed}: {} deliveries, {} missed, {} on request, last ÷ limit {:.2}, copies {:.3}",
                outcome.deliveries, outcome.missed, outcome.repaired, outcome.last_over_limit, outcome.copies
            );
            outcomes.push(outcome);
        }
        match self.json.as_deref() {
            Some(path) if path.as_os_str() == "-" => {
                writeln!(std::io::stdout().lock(), "{}", serde_json::to_string_pretty(&outcomes)?)?;
            }
            Some(path) => std::fs::write(path, serde_json::to_string_pretty(&outcomes)?)
                .with_context(|| format!("cannot write {}", path.display()))?,
            None => println!("{}: as expected", file.description),
        }
        Ok(())
    }

    fn experiment(&self) -> anyhow::Result<Experiment> {
        if self.orgs == 0 || self.peers < self.orgs || self.blocks == 0 || self.interval_ms == 0 {
            bail!("--peers must be at least --orgs, and --orgs, --blocks and --interval-ms at least 1");
        }
        if self.channels == 0 || self.placements == 0 {
            bail!("--channels and --placements must be at least 1");
        }
        for share in [self.silent, self.withholding, self.slow, self.views_off] {
            if !(0.0..=1.0).contains(&share) {
                bail!("{share} is no share: 0 to 1");
            }
        }
        let is_model =
            matches!(self.protocol, ProtocolName::Star | ProtocolName::Gossipsub | ProtocolName::Plumtree);
        if is_model && (self.orgs > 1 || self.channels > 1 || self.views_off > 0.0) {
            bail!("star, gossipsub and plumtree are models of one organisation and channel with true views");
        }
        let bandwidth = (self.bandwidth_mbit > 0).then(|| self.bandwidth_mbit.saturating_mul(125_000));
        let ms = Duration::from_millis;
        Ok(Experiment {
            protocol: match self.protocol {
                ProtocolName::Grapevine => Protocol::Grapevine,
                ProtocolName::Classic => Protocol::Classic,
                ProtocolName::Star => Protocol::Star,
                ProtocolName::Gossipsub => Protocol::Gossipsub,
                ProtocolName::Plumtree => Protocol::Plumtree,
            },
            peers: self.peers,
            organizations: self.orgs,
            channels: self.channels,
            block_bytes: self.block_bytes,
            blocks: self.blocks,
            interval: ms(self.interval_ms),
            distance: match self.links {
                LinksName::Lan => Distance::Lan,
                LinksName::Wan => Distance::Wan,
                LinksName::Clusters => Distance::Clusters(4),
                LinksName::Independent => Distance::Independent(ms(2), ms(87)),
            },
            links: LinkSettings {
                up: bandwidth,
                down: bandwidth,
                sharing: match self.sharing {
                    SharingName::Fifo => Sharing::Fifo,
                    SharingName::Fair => Sharing::Fair,
                },
                ..LinkSettings::default()
            },
            silent: self.silent,
            withholding: self.withholding,
            slow: self.slow,
            views_off: self.views_off,
            placements: self.placements,
            seed: self.seed,
            patience: Duration::from_secs(self.patience_s),
            threads: self.threads,
            ..Experiment::default()
        })
    }
}

/// A bar on standard error, if that is a terminal.
fn bar(blocks: u64) -> ProgressBar {
    let target = if std::io::stderr().is_terminal() {
        ProgressDrawTarget::stderr()
    } else {
        ProgressDrawTarget::hidden()
    };
    let bar = ProgressBar::with_draw_target(Some(blocks), target);
    if let Ok(style) = ProgressStyle::with_template("{wide_bar} {pos}/{len} blocks, {eta} left") {
        bar.set_style(style);
    }
    bar
}

fn print(outcome: &Outcome, json: Option<&Path>) -> anyhow::Result<()> {
    let mut out = std::io::stdout().lock();
    match json {
        Some(path) if path.as_os_str() == "-" => {
            writeln!(out, "{}", serde_json::to_string_pretty(outcome)?)?;
        }
        Some(path) => {
            std::fs::write(path, serde_json::to_string_pretty(outcome)?)
                .with_context(|| format!("cannot write {}", path.display()))?;
            write!(out, "{outcome}")?;
        }
        None => write!(out, "{outcome}")?,
    }
    Ok(())
}
