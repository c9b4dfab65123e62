//! Blocks of a wanted size at a wanted pace.

use std::io::{BufWriter, Write};
use std::ops::Range;
use std::time::{Duration, Instant};

use anyhow::Context;
use grapevine_network::{Network, Payload};

use crate::network::CHANNEL;
use crate::wait;

/// How much longer than planned a load may take.
const LOAD_GRACE: Duration = Duration::from_secs(120);

/// Submits `blocks` transactions of `payload_bytes` each, one every `interval`, and waits until all peers have the blocks made of them; returns
/// their numbers.
///
/// Nothing is asked of the processes before the last one is due, so that the load is all they have to do.
pub(crate) fn run(
    network: &Network,
    blocks: u64,
    payload_bytes: u64,
    interval: Duration,
) -> anyhow::Result<Range<u64>> {
    run_among(network, &network.peers(), blocks, payload_bytes, interval)
}

/// As [`run`], waiting for these peers alone.
pub(crate) fn run_among(
    network: &Network,
    peers: &[&str],
    blocks: u64,
    payload_bytes: u64,
    interval: Duration,
) -> anyhow::Result<Range<u64>> {
    let length = interval.saturating_mul(u32::try_from(blocks)?);
    let rate = 1.0 / interval.as_secs_f64();
    submit(network, peers, (blocks, payload_bytes), Some(rate), (length, LOAD_GRACE))
}

/// As [`run_among`], as fast as the orderer takes them.
pub(crate) fn all_at_once(
    network: &Network,
    peers: &[&str],
    blocks: u64,
    payload_bytes: u64,
    within: Duration,
) -> anyhow::Result<Range<u64>> {
    submit(network, peers, (blocks, payload_bytes), None, (Duration::ZERO, within))
}

fn submit(
    network: &Network,
    peers: &[&str],
    (blocks, payload_bytes): (u64, u64),
    rate: Option<f64>,
    (length, grace): (Duration, Duration),
) -> anyhow::Result<Range<u64>> {
    let first = network.orderer_height(CHANNEL)?;
    let path = network.directory().join(format!("load-{first}"));
    write_noise(&path, blocks.saturating_mul(payload_bytes), first)
        .with_context(|| format!("cannot write {}", path.display()))?;
    let payload = Payload::file(&path).pieces(usize::try_from(payload_bytes)?);
    let payload = match rate {
        Some(rate) => payload.rate(rate),
        None => payload,
    };
    let mut submission = network.submit_in_background(CHANNEL, payload)?;
    let due = Instant::now() + length;
    while Instant::now() < due && !submission.has_ended()? {
        wait::until(network, Instant::now() + Duration::from_millis(100))?;
    }
    submission.wait(grace)?;
    let end = first.saturating_add(blocks);
    network.wait_for_height(CHANNEL, peers, end, grace)?;
    std::fs::remove_file(&path)?;
    Ok(first..end)
}

/// Size of a block as the orderer keeps it, in bytes.
pub(super) fn block_bytes(network: &Network, number: u64) -> anyhow::Result<u64> {
    let orderers = network.orderers();
    let orderer = network.member(orderers.first().context("the network has an orderer")?)?;
    let path = orderer.data.join(CHANNEL).join(format!("{number:03}.block"));
    let length = std::fs::metadata(&path).with_context(|| format!("cannot read {}", path.display()))?;
    Ok(length.len())
}

/// Bytes that compress to nothing smaller and differ from block to block (xorshift64).
fn write_noise(path: &std::path::Path, bytes: u64, seed: u64) -> std::io::Result<()> {
    let mut file = BufWriter::new(std::fs::File::create(path)?);
    let mut state = seed.wrapping_mul(0x9E37_79B9_7F4A_7C15) | 1;
    let mut left = bytes;
    while left > 0 {
        state ^= state << 13;
        state ^= state >> 7;
        state ^= state << 17;
        let word = state.to_le_bytes();
        let count = left.min(8);
        file.write_all(word.get(..usize::try_from(count).unwrap_or(8)).unwrap_or(&word))?;
        left -= count;
    }
    file.flush()
}
