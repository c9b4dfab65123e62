//! What is left of a ledger after a kill.

use std::path::{Path, PathBuf};

use anyhow::Context as _;
use grapevine_channels::ChannelId;
use grapevine_channels::block::{BLOCK_SIZE_MAX, Block};
use grapevine_peer::ledger::{Ledger, LedgerError};

use super::reports::Reports;
use crate::network::CHANNEL;

/// The ledger of one peer, and how far it has been compared with the orderer's blocks.
#[derive(Debug)]
pub(super) struct Check {
    ledger: PathBuf,
    /// Where the orderer keeps its blocks, a file each.
    ordered: PathBuf,
    channel: ChannelId,
    compared: u64,
}

impl Check {
    pub(super) fn new(ledger: PathBuf, orderer_data: &Path) -> anyhow::Result<Self> {
        Ok(Self { ledger, ordered: orderer_data.join(CHANNEL), channel: CHANNEL.parse()?, compared: 0 })
    }

    /// How many of the reported blocks are not there. Blocks that came since the last time are compared with the orderer's.
    ///
    /// # Errors
    /// If a block is there and is another than the one that was ordered or reported.
    pub(super) fn lost(&mut self, reports: &Reports) -> anyhow::Result<u64> {
        let reported = reports.take();
        let Some(highest) = reported.last_key_value().map(|(highest, _)| *highest) else { return Ok(0) };
        let scratch = tempfile::tempdir()?;
        let ledger = self.open(scratch.path())?;
        let height = ledger.height(&self.channel);
        let mut lost = highest.saturating_add(1).saturating_sub(height);
        for (number, hash) in reported.range(..height) {
            let stored =
                ledger.header_hash(&self.channel, *number)?.context("a block below the height has a hash")?;
            anyhow::ensure!(stored.to_string() == *hash, "block {number} is {stored}, {hash} was reported");
        }
        for number in self.compared..height {
            match ledger.block(&self.channel, number) {
                Ok(Some(stored)) => self.compare(number, &stored)?,
                Ok(None) | Err(LedgerError::Damaged { .. }) => lost = lost.saturating_add(1),
                Err(error) => return Err(error.into()),
            }
        }
        self.compared = height;
        Ok(lost)
    }

    /// Walks the whole chain as `channel verify` does.
    ///
    /// # Errors
    /// If anything is not as it should be.
    pub(super) fn verify(&self) -> anyhow::Result<()> {
        let found = Ledger::open_read_only(&self.ledger)?.examine(&self.channel, |_| {})?;
        anyhow::ensure!(found.is_sound(), "the chain does not verify: {:?}", found.findings);
        Ok(())
    }

    /// The ledger as it is; one that only recovery can open is copied, since the peer is to do that itself.
    fn open(&self, scratch: &Path) -> anyhow::Result<Ledger> {
        if let Ok(ledger) = Ledger::open_read_only(&self.ledger) {
            return Ok(ledger);
        }
        for entry in std::fs::read_dir(&self.ledger)? {
            let entry = entry?;
            std::fs::copy(entry.path(), scratch.join(entry.file_name()))?;
        }
        Ok(Ledger::open(scratch)?)
    }

    fn compare(&self, number: u64, stored: &[u8]) -> anyhow::Result<()> {
        let path = self.ordered.join(format!("{number:03}.block"));
        let ordered = std::fs::read(&path).with_context(|| format!("cannot read {}", path.display()))?;
        // Peers encode alike whatever they received; what counts is all there is in a block.
        let decode = |bytes: &[u8]| Block::decode(bytes.to_vec().into(), BLOCK_SIZE_MAX);
        let (stored, ordered) = (decode(stored)?, decode(&ordered)?);
        anyhow::ensure!(
            stored.encode() == ordered.encode(),
            "block {number} is not the one that was ordered"
        );
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]

    use super::*;
    use grapevine_channels::block::AuthenticBlock;
    use grapevine_durability::load;

    /// A ledger of `count` blocks and an orderer's directory with all of them.
    fn scene(root: &Path, count: u64) -> (Check, Vec<AuthenticBlock>) {
        let mut blocks: Vec<AuthenticBlock> = Vec::new();
        for number in 0..6 {
            let previous = blocks.last().map(AuthenticBlock::hash);
            blocks.push(load::block(CHANNEL, number, previous).unwrap());
        }
        std::fs::create_dir_all(root.join(CHANNEL)).unwrap();
        for block in &blocks {
            let path = root.join(CHANNEL).join(format!("{:03}.block", block.number()));
            std::fs::write(path, block.encoded()).unwrap();
        }
        let check = Check::new(root.join("ledger"), root).unwrap();
        let ledger = Ledger::open(root.join("ledger")).unwrap();
        ledger.create_channel(&check.channel, &blocks[0]).unwrap();
        ledger.append(&check.channel, &blocks[1..usize::try_from(count).unwrap()]).unwrap();
        (check, blocks)
    }

    #[test]
    fn a_block_that_is_not_there_is_missed() {
        let directory = tempfile::tempdir().unwrap();
        let (mut check, blocks) = scene(directory.path(), 4);
        let reports = Reports::default();
        assert_eq!(check.lost(&reports).unwrap(), 0);
        for block in &blocks[..4] {
            reports.note(block.number(), block.hash().to_string());
        }
        assert_eq!(check.lost(&reports).unwrap(), 0);
        reports.note(5, blocks[5].hash().to_string());
        assert_eq!((reports.height(), check.lost(&reports).unwrap()), (6, 2));
    }

    #[test]
    fn another_block_than_the_one_reported_or_ordered_is_an_error() {
        let directory = tempfile::tempdir().unwrap();
        let (mut check, blocks) = scene(directory.path(), 4);
        let reports = Reports::default();
        reports.note(2, blocks[3].hash().to_string());
        assert!(check.lost(&reports).unwrap_err().to_string().contains("was reported"));
        std::fs::write(directory.path().join(CHANNEL).join("001.block"), blocks[2].encoded()).unwrap();
        reports.note(3, blocks[3].hash().to_string());
        reports.note(2, blocks[2].hash().to_string());
        assert!(check.lost(&reports).unwrap_err().to_string().contains("is not the one that was ordered"));
    }
}
