//! Peers of organisations that were removed from every channel they shared with this node.
//!
//! A guest may fetch the chains it was a member of, up to and including the block that removed its organisation (the limit is in
//! [`crate::isolation`]); it hears of no members, and nothing it says but a request counts. Being connected while it is removed, it gets the
//! removing block at once.
//!
//! # Bounds
//! At most [`GUESTS_MAX`] guests may come, one more is sent away and counted; those that were connected as members may stay beyond that. A guest that
//! asks for nothing for [`GUEST_IDLE`] is sent away.

use std::time::Duration;

use grapevine_crypto::{MspId, PkiId};

use super::{Node, Output};
use crate::ChannelId;
use crate::time::Time;
use crate::wire::BulkKind;

/// Most guests that may connect.
pub const GUESTS_MAX: usize = 16;
/// How long a guest may be silent. Longer than a peer that is behind waits between two requests.
pub const GUEST_IDLE: Duration = Duration::from_secs(30);

impl Node {
    /// Whether an organisation was a member of a channel and is a member of none now.
    pub(super) fn is_former(&self, organization: &MspId) -> bool {
        *organization != self.own.msp_id
            && !self.scopes.values().any(|scope| scope.organizations.contains(organization))
            && self.scopes.values().any(|scope| scope.former.contains_key(organization))
    }

    pub(super) fn has_room_for_guest(&self) -> bool {
        self.guests < GUESTS_MAX
    }

    pub(super) fn refuse_guest(&mut self, peer: PkiId) {
        self.counters.guests_over_bound += 1;
        let reason = "its organisation was removed, and too many such peers are here".to_owned();
        self.outputs.push_back(Output::Disconnect { peer, reason });
    }

    pub(super) fn note_guest_request(&mut self, now: Time, peer: PkiId) {
        if let Some(since) = self.peers.get_mut(&peer).and_then(|peer| peer.guest.as_mut()) {
            *since = now;
        }
    }

    pub(super) fn guests_deadline(&self) -> Option<Time> {
        // Hardly ever is there one, and this is asked after every event.
        if self.guests == 0 {
            return None;
        }
        self.peers.values().filter_map(|peer| peer.guest).min().map(|since| since + GUEST_IDLE)
    }

    pub(super) fn dismiss_idle_guests(&mut self, now: Time) {
        if self.guests == 0 {
            return;
        }
        let is_idle = |since: Time| since + GUEST_IDLE <= now;
        for (peer, remote) in &mut self.peers {
            if remote.guest.is_some_and(is_idle) {
                // Said again after another while, should the connection still be there.
                remote.guest = Some(now);
                let reason = "its organisation was removed, and it asks for nothing".to_owned();
                self.outputs.push_back(Output::Disconnect { peer: *peer, reason });
            }
        }
    }

    /// Who is a guest follows from the channels' configs: members become guests and the other way round.
    pub(super) fn sort_guests(&mut self, now: Time) {
        let peers: Vec<PkiId> = self.peers.keys().copied().collect();
        for peer in peers {
            let Some(organization) = self.peers.get(&peer).map(|remote| remote.organization.clone()) else {
                continue;
            };
            let is_former = self.is_former(&organization);
            let Some(remote) = self.peers.get_mut(&peer) else { continue };
            match (remote.guest, is_former) {
                (None, true) => {
                    remote.guest = Some(now);
                    self.guests += 1;
                    self.membership.handle_disconnected(now, peer);
                    self.round_trips.handle_disconnected(peer);
                }
                (Some(_), false) => {
                    remote.guest = None;
                    self.guests = self.guests.saturating_sub(1);
                    self.membership.handle_connected(now, peer, organization, None, self.authority.as_ref());
                    self.round_trips.handle_connected(now, peer);
                }
                _ => {}
            }
        }
    }

    /// Peers of an organisation that a config block removes get that block, so that they know why nothing follows.
    pub(super) fn send_last_block_to_removed(&mut self, id: &ChannelId, last: u64) {
        let Some(block) = self.channels.get(id).and_then(|channel| channel.chain.held(last)) else { return };
        let is_removed = |organization: &MspId| {
            let former = self.scopes.get(id).and_then(|scope| scope.former.get(organization));
            former.is_some_and(|former| former.number == last)
        };
        let removed: Vec<PkiId> = self
            .peers
            .iter()
            .filter(|(_, peer)| is_removed(&peer.organization))
            .map(|(pki_id, _)| *pki_id)
            .collect();
        for peer in removed {
            self.send_block(peer, id, last, BulkKind::Reply, None, block.clone());
        }
    }
}
