//! What has been reported and must therefore be there.

use std::collections::BTreeMap;

use anyhow::{Context as _, bail};
use grapevine_crypto::Digest;
use grapevine_peer::ledger::{Ledger, LedgerError};

use crate::load;
use crate::process::Line;
use crate::writer::COUNTER_KEY;

/// What the writers of one ledger have said, and how far it has been compared.
#[derive(Clone, Debug, Default)]
pub struct Expected {
    reported: BTreeMap<String, (u64, String)>,
    counted: u64,
    compared: BTreeMap<String, (u64, Digest)>,
}

impl Expected {
    /// Takes what a writer said.
    ///
    /// # Errors
    /// If it found something wrong itself.
    pub fn hear(&mut self, line: &Line) -> anyhow::Result<()> {
        match line {
            Line::Committed { channel, height, tip } => {
                let known = self.reported.entry(channel.clone()).or_insert((0, String::new()));
                if *height >= known.0 {
                    *known = (*height, tip.clone());
                }
            }
            Line::Counted(count) => self.counted = self.counted.max(*count),
            Line::Wrong(text) => bail!("the writer found something wrong: {text}"),
            Line::Ready | Line::State(_) | Line::Ended(_) => {}
        }
        Ok(())
    }

    /// Blocks reported, over all channels.
    #[must_use]
    pub fn blocks(&self) -> u64 {
        self.reported.values().fold(0, |sum, (height, _)| sum.saturating_add(*height))
    }

    /// How many of the reported blocks `ledger` does not have.
    ///
    /// # Errors
    /// If a block that is there is not the one that was written.
    pub fn lost(&mut self, ledger: &Ledger) -> anyhow::Result<u64> {
        let mut lost = 0u64;
        for (name, (height, tip)) in &self.reported {
            let channel = load::channel(name)?;
            let there = ledger.height(&channel);
            lost = lost.saturating_add(height.saturating_sub(there));
            if there >= *height && *height > 0 {
                let stored = ledger.header_hash(&channel, height.saturating_sub(1))?;
                let stored = stored.map(|hash| hash.to_string());
                if stored.as_ref() != Some(tip) {
                    bail!("{name}: block {} is {stored:?}, {tip} was reported", height.saturating_sub(1));
                }
            }
        }
        for name in load::CHANNELS {
            lost = lost.saturating_add(self.compare(ledger, name)?);
        }
        let counted =
            ledger.meta_get(COUNTER_KEY)?.and_then(|bytes| Some(u64::from_be_bytes(bytes.try_into().ok()?)));
        if counted.unwrap_or(0) < self.counted {
            bail!("the counter is {counted:?}, {} was reported", self.counted);
        }
        Ok(lost)
    }

    /// Forgets what has been compared, so that the next time everything is.
    pub fn compare_everything_again(&mut self) {
        self.compared.clear();
    }

    /// Compares the blocks that came since the last time, and says how many cannot be read.
    fn compare(&mut self, ledger: &Ledger, name: &str) -> anyhow::Result<u64> {
        let channel = load::channel(name)?;
        let (mut next, mut previous) = match self.compared.get(name) {
            Some((next, tip)) => (*next, Some(*tip)),
            None => (0, None),
        };
        let mut unreadable = 0u64;
        while next < ledger.height(&channel) {
            let expected = load::block(name, next, previous)?;
            match ledger.block(&channel, next) {
                Ok(Some(stored)) if stored == *expected.encoded() => {}
                Ok(stored) => bail!(
                    "{name}: block {next} has {} bytes that are not those written",
                    stored.context("a block below the height is missing")?.len()
                ),
                Err(LedgerError::Damaged { .. }) => unreadable = unreadable.saturating_add(1),
                Err(error) => return Err(error.into()),
            }
            previous = Some(expected.hash());
            next = next.saturating_add(1);
        }
        if let Some(previous) = previous {
            self.compared.insert(name.to_owned(), (next, previous));
        }
        Ok(unreadable)
    }
}
