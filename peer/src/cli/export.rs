//! `grapevine channel export`: what went in at the orderer, byte for byte, or the blocks as they are.
//!
//! Config transactions are left out of the payloads; everything else is written in the order of the ledger with nothing in
//! between. A file is written under a temporary name and renamed when it is complete, so a file that exists is whole.

use std::fs::File;
use std::io::{BufWriter, Write};
use std::path::{Path, PathBuf};

use anyhow::Context as _;
use bytes::Bytes;
use grapevine_channels::ChannelId;
use grapevine_channels::block::Block;
use grapevine_channels::transaction::transaction_payload;

use super::output;
use super::settings::Settings;
use crate::ledger::{Ledger, LedgerError};

/// Header types of transactions that carry no payload of a client: CONFIG and CONFIG_UPDATE (Fabric `common.HeaderType`).
const CONFIG_TYPES: [i32; 2] = [1, 2];

pub(super) fn export(
    settings: &Settings,
    channel: &ChannelId,
    output: Option<&Path>,
    blocks_dir: Option<&Path>,
) -> anyhow::Result<()> {
    let ledger = Ledger::open_read_only(&settings.ledger)?;
    if ledger.tip(channel).is_none() {
        return Err(LedgerError::UnknownChannel { channel: channel.clone() }.into());
    }
    if let Some(directory) = blocks_dir {
        export_blocks(&ledger, channel, directory)?;
    }
    match output {
        None => Ok(()),
        Some(path) if path == Path::new("-") => {
            let mut writer = BufWriter::new(std::io::stdout().lock());
            write_payloads(&ledger, channel, &mut writer)?;
            Ok(writer.flush()?)
        }
        Some(path) => {
            let mut count = 0;
            write_whole(path, |writer| {
                count = write_payloads(&ledger, channel, writer)?;
                Ok(())
            })?;
            let height = ledger.height(channel);
            let line = format!("{count} transactions of {height} blocks written to {}\n", path.display());
            Ok(output::print(&line)?)
        }
    }
}

fn export_blocks(ledger: &Ledger, channel: &ChannelId, directory: &Path) -> anyhow::Result<()> {
    std::fs::create_dir_all(directory)
        .with_context(|| format!("cannot create {}; check --blocks-dir", directory.display()))?;
    for block in ledger.iterate(channel, 0..u64::MAX) {
        let (number, encoded) = block?;
        write_whole(&directory.join(format!("{number:03}.block")), |writer| Ok(writer.write_all(&encoded)?))?;
    }
    let height = ledger.height(channel);
    Ok(output::print(&format!("{height} blocks written to {}\n", directory.display()))?)
}

/// Writes the payloads of all transactions but config transactions and returns how many.
fn write_payloads(ledger: &Ledger, channel: &ChannelId, writer: &mut dyn Write) -> anyhow::Result<u64> {
    let mut count = 0u64;
    for block in ledger.iterate(channel, 0..u64::MAX) {
        let (number, encoded) = block?;
        for payload in payloads(channel, number, encoded)? {
            writer.write_all(&payload)?;
            count = count.saturating_add(1);
        }
    }
    Ok(count)
}

fn payloads(channel: &ChannelId, number: u64, encoded: Bytes) -> anyhow::Result<Vec<Bytes>> {
    let size_max = encoded.len();
    let block = Block::decode(encoded, size_max)
        .with_context(|| format!("block {number} of channel {channel} cannot be read"))?;
    if block.compute_data_hash().as_ref() != block.header().data_hash.as_slice() {
        let detail = "its transactions do not have the hash its header names".to_owned();
        return Err(LedgerError::Damaged { channel: channel.clone(), number, detail }.into());
    }
    let mut payloads = Vec::new();
    for (place, transaction) in block.transactions().iter().enumerate() {
        let view = transaction_payload(transaction).with_context(|| {
            format!("transaction {place} of block {number} of channel {channel} cannot be read")
        })?;
        if !CONFIG_TYPES.contains(&view.header_type) {
            payloads.push(view.payload);
        }
    }
    Ok(payloads)
}

fn write_whole(
    path: &Path,
    write: impl FnOnce(&mut BufWriter<File>) -> anyhow::Result<()>,
) -> anyhow::Result<()> {
    let mut partial = path.as_os_str().to_owned();
    partial.push(".partial");
    let partial = PathBuf::from(partial);
    let unwritable = || format!("cannot write {}; check the path and the space left", path.display());
    let mut writer = BufWriter::new(File::create(&partial).with_context(unwritable)?);
    let written = write(&mut writer).and_then(|()| writer.flush().with_context(unwritable));
    if let Err(error) = written {
        // The error is what matters; a leftover partial file is overwritten by the next try.
        let _leftover = std::fs::remove_file(&partial);
        return Err(error);
    }
    std::fs::rename(&partial, path).with_context(unwritable)
}
