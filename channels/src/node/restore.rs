//! Blocks that the ledger has lost: the node's side of [`crate::restoration`].

use grapevine_crypto::PkiId;

use super::{Node, Penalty, Rejection};
use crate::ChannelId;
use crate::time::Time;
use crate::wire::{ChannelBody, Request};

impl Node {
    pub(super) fn handle_lost(&mut self, now: Time, id: &ChannelId, numbers: &[u64]) {
        let Some(channel) = self.channels.get_mut(id) else { return };
        channel.restoration.handle_lost(now, numbers);
        self.restore(now, id);
    }

    pub(super) fn handle_restored(
        &mut self,
        now: Time,
        id: &ChannelId,
        number: u64,
        peer: PkiId,
        result: Result<(), Rejection>,
    ) {
        let Some(channel) = self.channels.get_mut(id) else { return };
        match result {
            Ok(()) => channel.restoration.handle_restored(number),
            Err(rejection) => {
                channel.restoration.handle_failed(now, number);
                if let Rejection::Forged(reason) = rejection {
                    self.counters.blocks_rejected += 1;
                    self.penalise(peer, Penalty::BadBlock(reason));
                }
            }
        }
        self.restore(now, id);
    }

    /// Asks for what the ledger has lost.
    pub(super) fn restore(&mut self, now: Time, id: &ChannelId) {
        let members = self.channel_members(id);
        let Some(channel) = self.channels.get_mut(id) else { return };
        for ask in channel.restoration.handle_timeout(now, &members) {
            self.send(ask.peer, id, ChannelBody::Request(Request { numbers: ask.numbers }));
        }
    }
}
