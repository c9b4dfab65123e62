//! Two authentic blocks at one number.
//!
//! They come to light in three ways: the second block arrives, early or late; the next block does not follow the own chain; or a member's
//! history differs from the own one, and reconciliation asks for the first block that does: a hash is a claim, only a
//! block that the orderers signed is evidence.
//!
//! A peer that halts on it leaves the channel, and the others would hear of nothing: so it first sends them both blocks, its own
//! before the other, and each that halts does the same. From then on it writes and asks for nothing; the driver has it leave when
//! what was sent is on its way.
//!
//! # Bounds
//! At most [`COMPARING_MAX`] blocks are compared with the ledger at a time; one more is dropped and counted. A halt sends two blocks to
//! each member, once.

use grapevine_crypto::Digest;

use super::{Event, Node, Output};
use crate::ChannelId;
use crate::block::AuthenticBlock;
use crate::chain::Held;
use crate::wire::BulkKind;

/// Most authentic blocks being compared with the ledger at a time.
pub const COMPARING_MAX: usize = 16;

impl Node {
    /// A block of a number that was committed too long ago to be in memory: the ledger knows whether it is another one.
    pub(super) fn compare(&mut self, id: &ChannelId, block: AuthenticBlock) {
        if self.comparing >= COMPARING_MAX {
            self.counters.comparing_over_bound += 1;
            return;
        }
        self.comparing += 1;
        self.outputs.push_back(Output::Compare { channel: id.clone(), block });
    }

    pub(super) fn handle_compared(&mut self, id: &ChannelId, block: AuthenticBlock, kept: Option<Digest>) {
        self.comparing = self.comparing.saturating_sub(1);
        let Some(channel) = self.channels.get_mut(id) else { return };
        match kept {
            Some(kept) if kept != block.hash() => {
                channel.chain.note_conflict();
                self.conflict(id, block, kept);
            }
            _ => self.counters.duplicate_blocks += 1,
        }
    }

    /// Keeps the second block as evidence; true if that stops the channel.
    pub(super) fn conflict(&mut self, id: &ChannelId, block: AuthenticBlock, kept: Digest) -> bool {
        let (number, hash) = (block.number(), block.hash());
        self.fork(id, block.clone());
        if self.config.halt_on_equivocation {
            self.spread(id, block);
            self.halt(id, format!("the orderers signed two blocks {number}: {kept} is kept, {hash} is not"));
        }
        self.config.halt_on_equivocation
    }

    /// Sends both blocks of a number to the members before the channel halts.
    fn spread(&mut self, id: &ChannelId, other: AuthenticBlock) {
        let Some(channel) = self.channels.get(id).filter(|channel| !channel.halted) else { return };
        let number = other.number();
        let kept = channel.chain.held(number);
        for member in self.channel_members(id) {
            for block in kept.iter().cloned().chain([Held::Memory(other.clone())]) {
                self.send_block(member, id, number, BulkKind::Reply, None, block);
            }
        }
    }

    /// Stops a channel: nothing is written or asked for from now on.
    pub(super) fn halt(&mut self, id: &ChannelId, reason: String) {
        let Some(channel) = self.channels.get_mut(id).filter(|channel| !channel.halted) else { return };
        channel.halted = true;
        self.outputs.push_back(Output::Halt { channel: id.clone(), reason });
    }

    pub(super) fn fork(&mut self, id: &ChannelId, block: AuthenticBlock) {
        self.event(Event::Fork { channel: id.clone(), number: block.number(), dropped: block.hash() });
        self.outputs.push_back(Output::KeepEvidence { channel: id.clone(), block });
    }
}
