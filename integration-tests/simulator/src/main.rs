//! `grapevine-simulator`: runs of the simulator from the command line.

use std::io::Write as _;
use std::ops::RangeInclusive;
use std::path::PathBuf;
use std::time::{Duration, Instant};

use anyhow::{Context, bail};
use clap::{Parser, Subcommand, ValueEnum};
use grapevine_channels::time::Time;
use grapevine_simulator::{Distance, Report, Scenario, Simulation, chaos};

/// Simulates networks of Grapevine peers: same seed, same run.
#[derive(Debug, Parser)]
#[command(version)]
struct Arguments {
    #[command(subcommand)]
    command: Command,
}

#[derive(Debug, Subcommand)]
enum Command {
    /// Blocks in an undisturbed network: latencies and copies.
    Run(Run),
    /// Random faults, one network for each seed; stops at the first violation.
    Chaos {
        /// Seeds, as first..last, both run.
        #[arg(long, value_parser = seeds)]
        seeds: RangeInclusive<u64>,
    },
}

#[derive(Debug, clap::Args)]
struct Run {
    /// What spreads the blocks.
    #[arg(long, value_enum, default_value_t = Protocol::Grapevine)]
    protocol: Protocol,
    /// Peers, shared evenly by the organisations.
    #[arg(long, default_value_t = 6)]
    peers: usize,
    /// Organisations.
    #[arg(long, default_value_t = 1)]
    orgs: usize,
    /// Bytes of a block.
    #[arg(long, default_value_t = 160_000)]
    block_bytes: usize,
    /// Blocks.
    #[arg(long, default_value_t = 100)]
    blocks: u64,
    /// Milliseconds between two blocks.
    #[arg(long, default_value_t = 1_000)]
    interval_ms: u64,
    /// How far apart peers are.
    #[arg(long, value_enum, default_value_t = Far::Lan)]
    links: Far,
    /// Decides everything that is random.
    #[arg(long, default_value_t = 1)]
    seed: u64,
    /// Also writes the result as a JSON object to this file; - is standard output, instead of the table.
    #[arg(long)]
    json: Option<PathBuf>,
}

#[derive(Debug, Clone, Copy, ValueEnum)]
enum Protocol {
    Grapevine,
}

#[derive(Debug, Clone, Copy, ValueEnum)]
enum Far {
    /// 0.25 ms.
    Lan,
    /// 2 ms + 60 ms × distance in the unit square.
    Wan,
}

fn main() -> anyhow::Result<()> {
    match Arguments::parse().command {
        Command::Run(options) => run(&options),
        Command::Chaos { seeds } => chaos_runs(seeds),
    }
}

fn run(options: &Run) -> anyhow::Result<()> {
    if options.orgs == 0 || options.peers < options.orgs || options.blocks == 0 || options.interval_ms == 0 {
        bail!("--peers must be at least --orgs, and --orgs, --blocks and --interval-ms at least 1");
    }
    let Protocol::Grapevine = options.protocol;
    let sizes: Vec<usize> = (0..options.orgs)
        .map(|number| options.peers / options.orgs + usize::from(number < options.peers % options.orgs))
        .collect();
    let mut scenario = Scenario::sized(&sizes);
    scenario.blocks = options.blocks;
    scenario.block_bytes = options.block_bytes;
    scenario.block_interval = Duration::from_millis(options.interval_ms);
    scenario.first_block = Time::from_millis(5_000);
    scenario.distance = match options.links {
        Far::Lan => Distance::Lan,
        Far::Wan => Distance::Wan,
    };
    let report = Simulation::new(scenario, options.seed)?.run()?;
    print(&report, options.json.as_deref())
}

fn print(report: &Report, json: Option<&std::path::Path>) -> anyhow::Result<()> {
    let mut out = std::io::stdout().lock();
    match json {
        Some(path) if path.as_os_str() == "-" => writeln!(out, "{}", serde_json::to_string_pretty(report)?)?,
        Some(path) => {
            std::fs::write(path, serde_json::to_string_pretty(report)?)
                .with_context(|| format!("cannot write {}", path.display()))?;
            write!(out, "{report}")?;
        }
        None => write!(out, "{report}")?,
    }
    Ok(())
}

fn chaos_runs(seeds: RangeInclusive<u64>) -> anyhow::Result<()> {
    let started = Instant::now();
    let (mut runs, mut events) = (0u64, 0u64);
    for seed in seeds {
        let report = Simulation::new(chaos(seed), seed)?.run().with_context(|| {
            format!("violation; again with: grapevine-simulator chaos --seeds {seed}..{seed}")
        })?;
        runs += 1;
        events += report.events;
        if runs.is_multiple_of(100) {
            eprintln!("{runs} runs, {events} events, {:.0} s", started.elapsed().as_secs_f64());
        }
    }
    println!("{runs} runs without violation, {events} events, {:.1} s", started.elapsed().as_secs_f64());
    Ok(())
}

fn seeds(text: &str) -> Result<RangeInclusive<u64>, String> {
    let (first, last) = text.split_once("..").ok_or("expected first..last, as in 1..100")?;
    let number = |text: &str| text.trim_start_matches('=').parse::<u64>().map_err(|error| error.to_string());
    let (first, last) = (number(first)?, number(last)?);
    if first > last {
        return Err("the first seed is greater than the last".into());
    }
    Ok(first..=last)
}
