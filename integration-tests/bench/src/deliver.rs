//! `grapevine-bench deliver`: what clients that follow live blocks cost the peer they follow.
//!
//! One peer, which pulls from the orderer itself, gets K blocks of B bytes, one every T milliseconds, with nobody listening; then the same again
//! while N clients of `protos.Deliver`, each over a TLS connection of its own, follow from the newest block. The clients live in this process and share
//! the processors with everything else.
//!
//! | field | is |
//! |---|---|
//! | `missed_blocks` | blocks that clients should have got and did not, over all clients; anything but 0 is an error, as is a block out of order |
//! | `commit_p50_ms`, `commit_p99_ms` | from handing a block to the ledger until the ledger has synced it: `[without, with]` clients |
//! | `commit_p99_ratio` | with ÷ without |
//! | `ready_p99_ms`, `ready_p99_ratio` | the same from the orderer having written a block until the peer has committed it |
//! | `client_p50_ms`, `client_p99_ms` | from the peer having committed a block until a client has it, over all clients and blocks |
//! | `memory_mb_above` | the peer's greatest resident memory with clients less that without, in 10^6 bytes |
//! | `cpu_ms_per_block` | processor time of the peer for each block: `[without, with]` clients |

use std::collections::BTreeMap;
use std::ops::Range;
use std::path::PathBuf;
use std::sync::mpsc::{Receiver, RecvTimeoutError, channel};
use std::time::{Duration, Instant};

use anyhow::Context;
use clap::Args;
use grapevine_block_trace::{Event, Station, now};
use grapevine_channels::block::Block;
use grapevine_network::ports::PortLease;
use grapevine_network::{Interrupt, Network};
use serde::Serialize;

use crate::dissemination::latency::percentile;
use crate::dissemination::load;
use crate::follower::Follower;
use crate::network::{self, CHANNEL, SETTLE_WITHIN};
use crate::output::{rounded, write_json};
use crate::sample::to_f64;
use crate::wait;

/// The peer that is followed.
const PEER: &str = "peer0";
/// Blocks before anything is measured.
const WARM_UP_BLOCKS: u64 = 10;
/// How long clients may take for the last block after the peer has it.
const GRACE: Duration = Duration::from_secs(30);
/// Longest time that events are on their way to the trace files.
const TRACE_DELAY: Duration = Duration::from_millis(300);

/// What to measure.
#[derive(Debug, Args)]
pub(crate) struct Arguments {
    /// Number of clients
    #[arg(long, value_name = "N", default_value_t = 50)]
    clients: usize,
    /// Size of a block in bytes
    #[arg(long, value_name = "B", default_value_t = 100_000)]
    block_bytes: u64,
    /// Number of blocks, without clients and again with them
    #[arg(long, value_name = "K", default_value_t = 300)]
    blocks: u64,
    /// Time between two blocks in milliseconds
    #[arg(long, value_name = "T", default_value_t = 200)]
    interval_ms: u64,
    /// File for the result; - for standard output
    #[arg(long, value_name = "FILE")]
    json: Option<PathBuf>,
}

#[derive(Debug, Serialize)]
struct Report {
    clients: usize,
    block_bytes: u64,
    blocks: u64,
    interval_ms: u64,
    missed_blocks: u64,
    commit_p50_ms: [f64; 2],
    commit_p99_ms: [f64; 2],
    commit_p99_ratio: f64,
    ready_p99_ms: [f64; 2],
    ready_p99_ratio: f64,
    client_p50_ms: f64,
    client_p99_ms: f64,
    memory_mb_above: f64,
    cpu_ms_per_block: [f64; 2],
}

/// A block reached a client.
#[derive(Debug)]
struct Arrival {
    client: usize,
    number: u64,
    at: u64,
}

/// Measures and reports.
pub(crate) fn run(arguments: &Arguments, interrupt: &Interrupt) -> anyhow::Result<()> {
    anyhow::ensure!(arguments.clients > 0, "--clients: write a number above 0");
    anyhow::ensure!(arguments.blocks > 0, "--blocks: write a number above 0");
    anyhow::ensure!(arguments.block_bytes > 0, "--block-bytes: write a number above 0");
    anyhow::ensure!(arguments.interval_ms > 0, "--interval-ms: write a number above 0");
    let lease = PortLease::take().context("cannot find a free port")?;
    let address = lease.address();
    let listen = move |config: &mut grapevine_network::NetworkConfig| {
        for peer in config.organizations.iter_mut().flat_map(|organization| &mut organization.peers) {
            peer.deliver_listen_address = Some(address);
        }
    };
    let network = network::builder(1, interrupt)?.change(listen).start()?;
    network::settle(&network, 1)?;
    let interval = Duration::from_millis(arguments.interval_ms);
    load::run(&network, WARM_UP_BLOCKS, arguments.block_bytes, interval)?;
    let without = phase(&network, arguments, interval)?;
    let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(1).enable_all().build()?;
    let tip = network.orderer_height(CHANNEL)?.saturating_sub(1);
    let follower = Follower::new(&network, PEER, address)?;
    let arrivals = clients(&runtime, &follower, arguments.clients, tip);
    let first: Vec<Arrival> = take(&arrivals, arguments.clients, Instant::now() + SETTLE_WITHIN)?;
    anyhow::ensure!(first.len() == arguments.clients, "only {} clients were served", first.len());
    let with = phase(&network, arguments, interval)?;
    let expected = arguments.clients * usize::try_from(arguments.blocks)?;
    let got = take(&arrivals, expected, Instant::now() + GRACE)?;
    drop(runtime);
    let report = report(arguments, &network, &[without, with], &got)?;
    network.stop_all()?;
    eprintln!(
        "{} clients: {} blocks missed, commit p99 {} ms against {} ms without ({} times), {} MB more memory",
        report.clients,
        report.missed_blocks,
        report.commit_p99_ms[1],
        report.commit_p99_ms[0],
        report.commit_p99_ratio,
        report.memory_mb_above
    );
    if let Some(path) = &arguments.json {
        write_json(path, &report)?;
    }
    anyhow::ensure!(report.missed_blocks == 0, "{} blocks did not reach a client", report.missed_blocks);
    Ok(())
}

/// What a load cost.
#[derive(Debug)]
struct Phase {
    numbers: Range<u64>,
    cpu: Duration,
    peak_kib: u64,
}

fn phase(network: &Network, arguments: &Arguments, interval: Duration) -> anyhow::Result<Phase> {
    let before = network.cpu_time(PEER)?;
    let numbers = load::run(network, arguments.blocks, arguments.block_bytes, interval)?;
    let cpu = network.cpu_time(PEER)?.saturating_sub(before);
    let peak_kib =
        network.peak_memory_kib(PEER)?.context("the kernel does not tell the memory of a process")?;
    Ok(Phase { numbers, cpu, peak_kib })
}

/// Starts clients that follow from block `tip` on and tell what they get, until the runtime ends.
fn clients(
    runtime: &tokio::runtime::Runtime,
    follower: &Follower,
    count: usize,
    tip: u64,
) -> Receiver<Arrival> {
    let (arrived, arrivals) = channel();
    for client in 0..count {
        let (follower, arrived) = (follower.clone(), arrived.clone());
        runtime.spawn(async move {
            let note =
                |block: &Block| arrived.send(Arrival { client, number: block.number(), at: now() }).is_ok();
            if let Err(error) = follower.follow(tip, note).await {
                eprintln!("bench: client {client}: {error:#}");
            }
        });
    }
    arrivals
}

/// As many arrivals, or those until the deadline; also if all clients have ended.
fn take(arrivals: &Receiver<Arrival>, count: usize, deadline: Instant) -> anyhow::Result<Vec<Arrival>> {
    let mut taken = Vec::new();
    while taken.len() < count {
        match arrivals.recv_timeout(deadline.saturating_duration_since(Instant::now())) {
            Ok(arrival) => taken.push(arrival),
            Err(RecvTimeoutError::Timeout | RecvTimeoutError::Disconnected) => break,
        }
    }
    Ok(taken)
}

fn report(
    arguments: &Arguments,
    network: &Network,
    phases: &[Phase; 2],
    got: &[Arrival],
) -> anyhow::Result<Report> {
    wait::until(network, Instant::now() + TRACE_DELAY)?;
    let orderer = *network.orderers().first().context("the network has an orderer")?;
    let written = times(&network.trace(orderer)?, Station::Written);
    let trace = network.trace(PEER)?;
    let (handed, committed) = (times(&trace, Station::Handed), times(&trace, Station::Committed));
    let between = |from: &BTreeMap<u64, u64>, phase: &Phase| latencies(from, &committed, &phase.numbers);
    let [without, with] = phases;
    let commit = [between(&handed, without)?, between(&handed, with)?];
    let ready = [between(&written, without)?, between(&written, with)?];
    let commit_p99 = commit.each_ref().map(|values| percentile(values, 0.99));
    let ready_p99 = ready.each_ref().map(|values| percentile(values, 0.99));
    let mut client: Vec<f64> = got
        .iter()
        .filter_map(|arrival| committed.get(&arrival.number).map(|at| milliseconds(*at, arrival.at)))
        .collect();
    client.sort_by(f64::total_cmp);
    let distinct: std::collections::BTreeSet<(usize, u64)> = got
        .iter()
        .filter(|arrival| with.numbers.contains(&arrival.number))
        .map(|arrival| (arrival.client, arrival.number))
        .collect();
    let expected = arguments.clients as u64 * arguments.blocks;
    let cpu = |phase: &Phase| rounded(phase.cpu.as_secs_f64() * 1e3 / to_f64(arguments.blocks));
    Ok(Report {
        clients: arguments.clients,
        block_bytes: arguments.block_bytes,
        blocks: arguments.blocks,
        interval_ms: arguments.interval_ms,
        missed_blocks: expected.saturating_sub(distinct.len() as u64),
        commit_p50_ms: commit.each_ref().map(|values| rounded(percentile(values, 0.5))),
        commit_p99_ms: commit_p99.map(rounded),
        commit_p99_ratio: rounded(commit_p99[1] / commit_p99[0].max(1e-6)),
        ready_p99_ms: ready_p99.map(rounded),
        ready_p99_ratio: rounded(ready_p99[1] / ready_p99[0].max(1e-6)),
        client_p50_ms: rounded(percentile(&client, 0.5)),
        client_p99_ms: rounded(percentile(&client, 0.99)),
        memory_mb_above: rounded((to_f64(with.peak_kib) - to_f64(without.peak_kib)) * 1_024.0 / 1e6),
        cpu_ms_per_block: [cpu(without), cpu(with)],
    })
}

/// When each block was first at a station, in nanoseconds.
fn times(events: &[Event], station: Station) -> BTreeMap<u64, u64> {
    let mut times = BTreeMap::new();
    for event in events.iter().filter(|event| event.station == station && &*event.channel == CHANNEL) {
        times.entry(event.number).or_insert(event.at);
    }
    times
}

/// From one station to another, in milliseconds, ascending.
fn latencies(
    from: &BTreeMap<u64, u64>,
    to: &BTreeMap<u64, u64>,
    numbers: &Range<u64>,
) -> anyhow::Result<Vec<f64>> {
    let of = |number: u64| {
        let both = from.get(&number).zip(to.get(&number));
        let (from, to) = both.with_context(|| format!("block {number} is not in the traces"))?;
        Ok(milliseconds(*from, *to))
    };
    let mut latencies = numbers.clone().map(of).collect::<anyhow::Result<Vec<f64>>>()?;
    latencies.sort_by(f64::total_cmp);
    Ok(latencies)
}

/// A client can have a block in the moment between its being committed and that being noted: such a latency is 0.
fn milliseconds(from: u64, to: u64) -> f64 {
    to_f64(to.saturating_sub(from)) / 1e6
}
