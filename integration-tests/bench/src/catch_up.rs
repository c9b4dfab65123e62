//! `grapevine-bench catch-up`: how fast a peer that is behind catches up.
//!
//! Some peers get K blocks of B bytes; then the orderer stops and a peer with an empty ledger starts, whose only sources they are. Silent
//! sources are stopped (SIGSTOP) as soon as the late peer is connected to all: they keep their connections, accept requests and never
//! answer. Everything shares the processors of this machine. The two reference rates are taken in the same run, when all processes are gone.
//!
//! | field | is |
//! |---|---|
//! | `first_block_s` | time from the start of the late peer's process to its first committed block |
//! | `rate_mb_s` | payload committed a second, from the first committed block to the last, in 10^6 bytes |
//! | `rocksdb_mb_s` | the same blocks appended to an empty ledger by one thread: RocksDB with the ledger's own options, batches of 4 MiB, each synced |
//! | `sha256_mb_s` | SHA-256 of one core over pieces of a block's size |
//! | `ratio` | `rate_mb_s` ÷ the smaller of the two |
//! | `restart_s` | time from the start of the late peer's process, with all blocks in its ledger, to its answering and having joined |
//! | `memory_mb_above_idle` | the late peer's greatest resident memory less what it has after a restart with all blocks, in 10^6 bytes |

use std::io::Write as _;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use anyhow::Context;
use clap::Args;
use grapevine_block_trace::{Event, Station, now};
use grapevine_channels::ChannelId;
use grapevine_channels::block::{AuthenticBlock, Block, BlockHeader};
use grapevine_network::{Interrupt, Network, Payload};
use grapevine_peer::ledger::{Commit, Ledger, LedgerLimits};
use serde::Serialize;

use crate::network::{CHANNEL, SETTLE_WITHIN};
use crate::output::{rounded, write_json};
use crate::sample::to_f64;
use crate::{network, wait};

/// The sources have all blocks, and the late peer catches up, within this.
const WITHIN: Duration = Duration::from_secs(1_800);
/// Rest before the idle memory is read.
const REST: Duration = Duration::from_secs(3);
/// Bytes over which the reference rates are taken, at most.
const REFERENCE_BYTES_MAX: usize = 512 << 20;
/// Time between two looks at whom the late peer is connected to.
const LOOK: Duration = Duration::from_millis(5);

/// What to measure.
#[derive(Debug, Args)]
pub(crate) struct Arguments {
    /// Blocks the peer is behind
    #[arg(long, value_name = "K", default_value_t = 500)]
    pub(crate) blocks: u64,
    /// Size of a block in bytes
    #[arg(long, value_name = "B", default_value_t = 100_000)]
    pub(crate) block_bytes: u64,
    /// Peers that have all blocks
    #[arg(long, value_name = "N", default_value_t = 3)]
    pub(crate) sources: usize,
    /// How many of them accept requests and never answer
    #[arg(long, value_name = "M", default_value_t = 0)]
    pub(crate) silent_sources: usize,
    /// File for the result; - for standard output
    #[arg(long, value_name = "FILE")]
    pub(crate) json: Option<PathBuf>,
}

#[derive(Debug, Serialize)]
struct CatchUp {
    blocks: u64,
    block_bytes: u64,
    sources: usize,
    silent_sources: usize,
    first_block_s: f64,
    rate_mb_s: f64,
    rocksdb_mb_s: f64,
    sha256_mb_s: f64,
    ratio: f64,
    restart_s: f64,
    memory_mb_above_idle: f64,
}

/// Measures and reports.
pub(crate) fn run(arguments: &Arguments, interrupt: &Interrupt) -> anyhow::Result<()> {
    anyhow::ensure!(arguments.blocks > 1, "--blocks: write a number above 1");
    anyhow::ensure!(arguments.block_bytes > 0, "--block-bytes: write a number above 0");
    anyhow::ensure!(
        arguments.silent_sources < arguments.sources,
        "--silent-sources: at least one of the {} sources must answer",
        arguments.sources
    );
    let late = format!("peer{}", arguments.sources);
    let network = network::builder(arguments.sources + 1, interrupt)?.hold_back(&late).start()?;
    fill(&network, arguments)?;
    let started = now();
    catch_up(&network, arguments, &late)?;
    let peak = network.peak_memory_kib(&late)?.context("the kernel does not tell the memory of a process")?;
    network.stop(&late)?;
    let (first_block_s, rate_mb_s) = rates(&network.trace(&late)?, started, arguments)?;
    let restarted = Instant::now();
    network.start(&late)?;
    let restart_s = restarted.elapsed().as_secs_f64();
    wait::until(&network, Instant::now() + REST)?;
    let idle =
        network.present_memory_kib(&late)?.context("the kernel does not tell the memory of a process")?;
    for source in silent(arguments) {
        network.thaw(&source)?;
    }
    network.stop_all()?;
    let size = usize::try_from(arguments.block_bytes)?;
    let rocksdb_mb_s = ledger_rate(&network.directory().join("reference"), size, arguments.blocks)?;
    let sha256_mb_s = hash_rate(size);
    let result = CatchUp {
        blocks: arguments.blocks,
        block_bytes: arguments.block_bytes,
        sources: arguments.sources,
        silent_sources: arguments.silent_sources,
        first_block_s: rounded(first_block_s),
        rate_mb_s: rounded(rate_mb_s),
        rocksdb_mb_s: rounded(rocksdb_mb_s),
        sha256_mb_s: rounded(sha256_mb_s),
        ratio: rounded(rate_mb_s / rocksdb_mb_s.min(sha256_mb_s)),
        restart_s: rounded(restart_s),
        memory_mb_above_idle: rounded((to_f64(peak) - to_f64(idle)) * 1_024.0 / 1e6),
    };
    eprintln!(
        "first block after {first_block_s:.2} s, then {rate_mb_s:.1} MB/s; the ledger alone takes {rocksdb_mb_s:.1} MB/s, one core hashes {sha256_mb_s:.1} MB/s; {:.0} MB above idle; a restart takes {restart_s:.2} s",
        result.memory_mb_above_idle
    );
    arguments.json.as_deref().map_or(Ok(()), |path| write_json(path, &result))
}

/// Gives the sources their blocks and stops the orderer.
fn fill(network: &Network, arguments: &Arguments) -> anyhow::Result<()> {
    let path = network.directory().join("payload");
    write_noise(&path, arguments.blocks * arguments.block_bytes)?;
    let pieces = usize::try_from(arguments.block_bytes)?;
    network.submit_in_background(CHANNEL, Payload::file(&path).pieces(pieces))?.wait(WITHIN)?;
    std::fs::remove_file(&path).with_context(|| format!("cannot remove {}", path.display()))?;
    let sources: Vec<String> = (0..arguments.sources).map(|index| format!("peer{index}")).collect();
    let sources: Vec<&str> = sources.iter().map(String::as_str).collect();
    network.wait_for_height(CHANNEL, &sources, arguments.blocks + 1, WITHIN)?;
    for orderer in network.orderers() {
        network.stop(orderer)?;
    }
    Ok(())
}

fn catch_up(network: &Network, arguments: &Arguments, late: &str) -> anyhow::Result<()> {
    let gone = AtomicBool::new(false);
    std::thread::scope(|scope| {
        let watch = scope.spawn(|| silence(network, arguments, late, &gone));
        let caught_up = network
            .start(late)
            .and_then(|()| network.wait_for_height(CHANNEL, &[late], arguments.blocks + 1, WITHIN));
        gone.store(true, Ordering::Release);
        let watched =
            watch.join().map_err(|_panic| anyhow::anyhow!("the watch of the connections failed"))?;
        caught_up?;
        watched
    })
}

fn silent(arguments: &Arguments) -> impl Iterator<Item = String> {
    let first = arguments.sources.saturating_sub(arguments.silent_sources);
    (first..arguments.sources).map(|index| format!("peer{index}"))
}

/// Stops the silent sources when the late peer is connected to all.
fn silence(network: &Network, arguments: &Arguments, late: &str, gone: &AtomicBool) -> anyhow::Result<()> {
    if arguments.silent_sources == 0 {
        return Ok(());
    }
    let deadline = Instant::now() + SETTLE_WITHIN;
    while Instant::now() < deadline && !gone.load(Ordering::Acquire) {
        // Before its socket is there the peer does not answer.
        let connected = network
            .status(late)
            .map_or(0, |status| status.members.iter().filter(|member| member.connected).count());
        if connected >= arguments.sources {
            for source in silent(arguments) {
                network.freeze(&source)?;
            }
            return Ok(());
        }
        std::thread::sleep(LOOK);
    }
    anyhow::bail!(
        "{late} had caught up, or was not connected to all in time, before sources could go silent: use more blocks"
    )
}

/// Seconds until the first committed block, and 10^6 bytes a second from there on.
fn rates(events: &[Event], started: u64, arguments: &Arguments) -> anyhow::Result<(f64, f64)> {
    let committed = |event: &&Event| event.station == Station::Committed && event.number > 0;
    let mut times: Vec<u64> = events.iter().filter(committed).map(|event| event.at).collect();
    times.sort_unstable();
    let (Some(first), Some(last)) = (times.first(), times.last()) else {
        anyhow::bail!("the trace of the late peer has no committed block");
    };
    let seconds = |nanoseconds: u64| to_f64(nanoseconds) / 1e9;
    let after_first = to_f64(times.iter().filter(|at| *at > first).count() as u64);
    let length = seconds(last.saturating_sub(*first)).max(1e-9);
    let rate = after_first * to_f64(arguments.block_bytes) / 1e6 / length;
    Ok((seconds(first.saturating_sub(started)), rate))
}

/// Bytes that do not compress, in lines of no meaning.
fn write_noise(path: &Path, bytes: u64) -> anyhow::Result<()> {
    let file = std::fs::File::create(path).with_context(|| format!("cannot create {}", path.display()))?;
    let mut file = std::io::BufWriter::new(file);
    let mut noise = Noise(0x9e37_79b9_7f4a_7c15);
    let mut left = bytes;
    while left > 0 {
        let word = noise.next().to_be_bytes();
        let take = usize::try_from(left).unwrap_or(usize::MAX).min(word.len());
        file.write_all(word.get(..take).unwrap_or_default())?;
        left -= take as u64;
    }
    Ok(file.flush()?)
}

/// Marsaglia's xorshift.
struct Noise(u64);

impl Noise {
    fn next(&mut self) -> u64 {
        self.0 ^= self.0 << 13;
        self.0 ^= self.0 >> 7;
        self.0 ^= self.0 << 17;
        self.0
    }
}

/// A chain of blocks of one transaction of `size` bytes, which nobody signed.
fn chain(size: usize, count: u64) -> anyhow::Result<Vec<AuthenticBlock>> {
    let mut noise = Noise(0x0123_4567_89ab_cdef);
    let mut blocks: Vec<AuthenticBlock> = Vec::new();
    for number in 0..=count {
        let words = (0..size.div_ceil(8)).flat_map(|_| noise.next().to_be_bytes());
        let data: Vec<u8> = words.take(size).collect();
        let data_hash = grapevine_crypto::sha256(&data).0.to_vec();
        let previous_hash = blocks.last().map_or_else(Vec::new, |block| block.hash().0.to_vec());
        let header = BlockHeader { number, previous_hash, data_hash };
        let block = Block::from_parts(header, vec![data.into()], Vec::new().into());
        blocks.push(AuthenticBlock::stored(block.encode())?);
    }
    Ok(blocks)
}

/// 10^6 bytes a second that the ledger alone takes, in the groups that its thread makes.
fn ledger_rate(directory: &Path, size: usize, blocks: u64) -> anyhow::Result<f64> {
    let count = (REFERENCE_BYTES_MAX / size.max(1)).clamp(2, usize::try_from(blocks)?.max(2));
    let chain = chain(size, count as u64)?;
    let (genesis, rest) = chain.split_first().context("the chain has a first block")?;
    let ledger = Ledger::open(directory)?;
    let channel: ChannelId = CHANNEL.parse()?;
    ledger.create_channel(&channel, genesis)?;
    let group = (LedgerLimits::default().group_bytes_max / size.max(1)).max(1);
    let began = Instant::now();
    for blocks in rest.chunks(group) {
        let commit = Commit { channel: channel.clone(), blocks: blocks.to_vec() };
        for outcome in ledger.append_group(&[commit])? {
            outcome?;
        }
    }
    let seconds = began.elapsed().as_secs_f64();
    drop(ledger);
    std::fs::remove_dir_all(directory)?;
    Ok(to_f64(rest.len() as u64) * to_f64(size as u64) / 1e6 / seconds)
}

/// 10^6 bytes a second that one core hashes.
fn hash_rate(size: usize) -> f64 {
    let data = vec![0x5a; size];
    let times = (REFERENCE_BYTES_MAX / 4 / size.max(1)).max(1);
    let began = Instant::now();
    for _ in 0..times {
        std::hint::black_box(grapevine_crypto::sha256(std::hint::black_box(&data)));
    }
    to_f64(times as u64) * to_f64(size as u64) / 1e6 / began.elapsed().as_secs_f64()
}
