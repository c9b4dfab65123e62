//! `grapevine-simulator`: runs of the simulator from the command line.

mod questions;
mod rejoin;
mod run;

use std::ops::RangeInclusive;
use std::time::Instant;

use anyhow::Context;
use clap::{Parser, Subcommand};
use grapevine_simulator::{Simulation, chaos};
use questions::Trials;
use rejoin::Rejoin;
use run::Run;

/// Simulates networks of Grapevine peers: same seed, same run.
#[derive(Debug, Parser)]
#[command(version)]
struct Arguments {
    #[command(subcommand)]
    command: Command,
}

#[derive(Debug, Subcommand)]
enum Command {
    /// Measures a protocol over many placements: time to the last peer, copies, misses.
    Run(Box<Run>),
    /// Membership and leadership over wide-area links: one figure for each question and seed, summed up and held against its goal.
    Trials(Trials),
    /// Peers that are behind among others that have everything: how fast they catch up, and what live blocks suffer.
    CatchUp(Rejoin),
    /// Random faults, one network for each seed; stops at the first violation.
    Chaos {
        /// Seeds, as first..last, both run.
        #[arg(long, value_parser = seeds)]
        seeds: RangeInclusive<u64>,
    },
}

fn main() -> anyhow::Result<()> {
    match Arguments::parse().command {
        Command::Run(options) => options.run(),
        Command::CatchUp(options) => options.run(),
        Command::Trials(trials) => trials.run(),
        Command::Chaos { seeds } => chaos_runs(seeds),
    }
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
