//! What the ledger costs: bytes written for each byte committed, and the time it takes to open.
//!
//! Blocks are made of transactions of about a kilobyte with ids of 64 hexadecimal digits, as Fabric's clients make them, whose
//! content does not compress. Commits go through the ledger thread, one block each, as fast as it takes them.
//!
//! Bytes written are those that this process hands to the operating system (`wchar` of `/proc/self/io`), and those that it
//! makes the block devices write (`write_bytes`; 0 on a file system in memory). So nothing else may run in the process.

use std::path::Path;
use std::time::{Duration, Instant};

use anyhow::Context as _;
use bytes::Bytes;
use grapevine_channels::block::{AuthenticBlock, Block, BlockHeader};
use grapevine_channels::proto::common::{ChannelHeader, Envelope, Header, Payload};
use grapevine_crypto::{Digest, sha256_of};
use grapevine_peer::ledger::{CommitRefused, Ledger, LedgerLimits, LedgerReport, LedgerThread};
use prost::Message as _;

use crate::load::{self, Random};

/// Bytes of a transaction, about.
const TRANSACTION_BYTES: usize = 1_000;
/// The channel written to.
const NAME: &str = "trade";

/// What was measured.
#[derive(Clone, Debug, Default)]
pub struct Measured {
    /// Bytes of the blocks committed.
    pub committed_bytes: u64,
    /// Bytes handed to the operating system.
    pub written_bytes: u64,
    /// Bytes that block devices were made to write; 0 if there are none.
    pub device_bytes: u64,
    /// Time from the first commit to the last report.
    pub took: Duration,
    /// Synced writes.
    pub syncs: u64,
    /// Blocks committed.
    pub blocks: u64,
    /// Size of the ledger in bytes and the time it took to open it, as the ledger grew.
    pub openings: Vec<(u64, Duration)>,
}

/// Writes `bytes` in blocks of about `block_bytes` to a new ledger in `directory`, which is opened anew `openings` times on the
/// way.
///
/// # Errors
/// If the ledger fails.
pub fn measure(directory: &Path, block_bytes: usize, bytes: u64, openings: u64) -> anyhow::Result<Measured> {
    let channel = load::channel(NAME)?;
    let mut measured = Measured::default();
    let mut random = Random(1);
    let first = block(0, None, &[])?;
    let mut tip = first.hash();
    let mut number = 1u64;
    {
        let ledger = Ledger::open(directory)?;
        ledger.create_channel(&channel, &first)?;
    }
    let (written, device) = counted()?;
    for part in 1..=openings.max(1) {
        let ledger = Ledger::open(directory)?;
        let limits = LedgerLimits { free_bytes_min: 0, ..LedgerLimits::default() };
        let (thread, mut reports) = LedgerThread::spawn(ledger, limits)?;
        let until = bytes.saturating_mul(part) / openings.max(1);
        let began = Instant::now();
        let mut height = number;
        while measured.committed_bytes < until {
            let block = block(number, Some(tip), &transactions(&mut random, block_bytes))?;
            (tip, number) = (block.hash(), number.saturating_add(1));
            measured.committed_bytes =
                measured.committed_bytes.saturating_add(u64::try_from(block.encoded().len())?);
            while thread.try_commit(&channel, vec![block.clone()]) == Err(CommitRefused::QueueFull) {
                height = committed(reports.blocking_recv())?;
            }
        }
        while height < number {
            height = committed(reports.blocking_recv())?;
        }
        measured.took = measured.took.saturating_add(began.elapsed());
        measured.syncs = measured.syncs.saturating_add(thread.counters().syncs);
        drop(reports);
        drop(thread);
        wait_until_closed(directory, &mut measured)?;
    }
    let (written_now, device_now) = counted()?;
    measured.written_bytes = written_now.saturating_sub(written);
    measured.device_bytes = device_now.saturating_sub(device);
    measured.blocks = number.saturating_sub(1);
    Ok(measured)
}

/// The height that a report tells.
fn committed(report: Option<LedgerReport>) -> anyhow::Result<u64> {
    match report {
        Some(LedgerReport::Committed { height, .. }) => Ok(height),
        other => anyhow::bail!("a block was not committed: {other:?}"),
    }
}

/// The thread lets go of the ledger as its last act; then it is opened again, and the time taken.
fn wait_until_closed(directory: &Path, measured: &mut Measured) -> anyhow::Result<()> {
    let deadline = Instant::now() + Duration::from_secs(30);
    loop {
        let began = Instant::now();
        match Ledger::open(directory) {
            Ok(_) => {
                measured.openings.push((measured.committed_bytes, began.elapsed()));
                return Ok(());
            }
            Err(error) if Instant::now() > deadline => return Err(error.into()),
            Err(_) => std::thread::sleep(Duration::from_millis(1)),
        }
    }
}

/// `wchar` and `write_bytes` of this process.
fn counted() -> anyhow::Result<(u64, u64)> {
    let text = std::fs::read_to_string("/proc/self/io").context("/proc/self/io says what was written")?;
    let value = |name: &str| {
        let line = text.lines().find_map(|line| line.strip_prefix(name)?.strip_prefix(": "));
        line.and_then(|value| value.trim().parse().ok())
            .with_context(|| format!("/proc/self/io has no {name}"))
    };
    Ok((value("wchar")?, value("write_bytes")?))
}

fn transactions(random: &mut Random, block_bytes: usize) -> Vec<Bytes> {
    (0..block_bytes.div_ceil(TRANSACTION_BYTES).max(1)).map(|_| transaction(random)).collect()
}

fn transaction(random: &mut Random) -> Bytes {
    let content: Vec<u8> = std::iter::repeat_with(|| random.below(u64::MAX).to_le_bytes())
        .flatten()
        .take(TRANSACTION_BYTES.saturating_sub(100))
        .collect();
    let channel_header = ChannelHeader {
        channel_id: NAME.to_owned(),
        tx_id: sha256_of([content.as_slice()]).to_string(),
        ..ChannelHeader::default()
    };
    let header =
        Header { channel_header: channel_header.encode_to_vec().into(), signature_header: Bytes::new() };
    let payload = Payload { header: Some(header), data: content.into() };
    Envelope { payload: payload.encode_to_vec().into(), signature: Bytes::new() }.encode_to_vec().into()
}

fn block(number: u64, previous: Option<Digest>, transactions: &[Bytes]) -> anyhow::Result<AuthenticBlock> {
    let data_hash = sha256_of(transactions.iter().map(AsRef::as_ref)).0.to_vec();
    let previous_hash = previous.map(|hash| hash.0.to_vec()).unwrap_or_default();
    let header = BlockHeader { number, previous_hash, data_hash };
    let block = Block::from_parts(header, transactions.to_vec(), Bytes::new());
    Ok(AuthenticBlock::stored(block.encode())?)
}
