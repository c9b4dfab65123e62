//! What the operator must know: blocks that contradict the own chain.
//!
//! They come from the evidence in the ledger, so an alarm outlives a restart. Bounded as the evidence is.

use std::collections::{BTreeMap, BTreeSet};

use grapevine_channels::ChannelId;
use grapevine_channels::block::Block;
use grapevine_crypto::Digest;

use crate::admin::Equivocation;
use crate::ledger::{EVIDENCE_MAX, Ledger};

/// See the module's header.
#[derive(Debug, Default)]
pub(super) struct Alarms {
    /// Number and header hash of the blocks that are not followed.
    equivocations: BTreeMap<ChannelId, BTreeSet<(u64, Digest)>>,
}

impl Alarms {
    /// Takes up what was kept before this start.
    pub(super) fn load(&mut self, ledger: &Ledger, channel: &ChannelId) -> anyhow::Result<()> {
        for bytes in ledger.evidence(channel)? {
            let size = bytes.len();
            let block = Block::decode(bytes, size)?;
            self.raise(channel, block.number(), block.header_hash());
        }
        Ok(())
    }

    pub(super) fn raise(&mut self, channel: &ChannelId, number: u64, hash: Digest) {
        let known = self.equivocations.entry(channel.clone()).or_default();
        if known.len() < EVIDENCE_MAX {
            known.insert((number, hash));
        }
    }

    pub(super) fn of(&self, channel: &ChannelId, ledger: &Ledger) -> Vec<Equivocation> {
        let known = self.equivocations.get(channel).into_iter().flatten();
        known
            .map(|(number, other)| Equivocation {
                number: *number,
                // What cannot be read is left out: a status is no place to fail.
                kept: ledger.header_hash(channel, *number).ok().flatten().map(|hash| hash.to_string()),
                other: other.to_string(),
            })
            .collect()
    }
}
