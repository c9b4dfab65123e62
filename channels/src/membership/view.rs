//! View synchronisation: two peers find out what either lacks without telling all they know.
//!
//! Each keeps a *root*: the exclusive or of the digests of what it knows of every living member. When a peer has
//! introduced itself on a new connection, and rarely besides, it is sent the root; who has another root answers with a list of
//! entries of 28 bytes; who reads in it that something is missing or older answers with the records. A new
//! member so knows everybody one and a half round trips after its first connection, and nobody repeats to it what
//! it knows. Lists go out at most once in [`LIST_SPACING`]; a peer that waits longer gets the next one.

use std::collections::BTreeMap;
use std::time::Duration;

use bytes::{BufMut, Bytes, BytesMut};
use grapevine_crypto::{MspId, PkiId, sha256};

use super::record::Order;
use super::types::{Member, MemberState, MembershipOutput};
use super::{Membership, with_identity};
use crate::authority::Authority;
use crate::time::Time;
use crate::wire::{RECORDS_PER_VIEW_MAX, VIEW_ENTRIES_MAX, VIEW_ENTRY_SIZE, ViewList};

/// Shortest time between two lists.
pub(super) const LIST_SPACING: Duration = Duration::from_millis(200);
/// Mean time between roots sent to random connected peers, in alive intervals.
pub(super) const ROOT_INTERVAL_FACTOR: u32 = 30;

/// What a list says of one member.
pub(super) type Entry = [u8; VIEW_ENTRY_SIZE];

pub(super) fn entry(pki_id: &PkiId, identity_digest: &[u8], order: &Order) -> Entry {
    let mut entry = Vec::with_capacity(VIEW_ENTRY_SIZE);
    entry.extend(pki_id.0.0.iter().take(8));
    entry.extend(identity_digest.iter().take(4));
    entry.extend(order.incarnation.to_be_bytes());
    entry.extend(order.sequence.to_be_bytes());
    entry.try_into().unwrap_or([0; VIEW_ENTRY_SIZE])
}

/// Adds an entry to a root, or takes it out again.
pub(super) fn toggle(root: &mut [u8; 32], entry: &Entry) {
    let digest = sha256(entry).0;
    root.iter_mut().zip(digest).for_each(|(byte, other)| *byte ^= other);
}

fn prefix(pki_id: &PkiId) -> u64 {
    pki_id.0.0.first_chunk().map_or(0, |bytes| u64::from_be_bytes(*bytes))
}

impl Member {
    pub(super) fn entry(&self) -> Entry {
        entry(&self.credential.pki_id, &self.identity_digest, &self.order)
    }
}

impl Membership {
    /// A connected peer says what its view comes to.
    pub fn handle_view_root(&mut self, now: Time, from: PkiId, root: &[u8], authority: &dyn Authority) {
        let Some(organization) = self.connected.organization(&from).cloned() else { return };
        if root == self.root_for(&organization, authority) {
            return;
        }
        self.list_wanted = Some(from);
        self.send_list_if_due(now, authority);
    }

    /// A connected peer says what is in a part of its view: it gets what it lacks.
    pub fn handle_view_list(&mut self, from: PkiId, list: &ViewList, authority: &dyn Authority) {
        let Some(organization) = self.connected.organization(&from).cloned() else { return };
        let theirs: BTreeMap<[u8; 8], &[u8]> = list
            .entries
            .chunks_exact(VIEW_ENTRY_SIZE)
            .filter_map(|entry| Some((*entry.first_chunk()?, entry)))
            .collect();
        let mut records = Vec::new();
        let (own_entry, own) = self.own_entry(authority);
        if covers(list, &self.own.pki_id) && is_newer(&own_entry, &theirs) {
            records.extend(self.disclose(&own, &self.own.msp_id, &organization));
        }
        for member in self.members.values().filter(|member| member.state != MemberState::Dead) {
            if covers(list, &member.credential.pki_id) && is_newer(&member.entry(), &theirs) {
                let full = with_identity(&member.record, &member.credential.serialized);
                records.extend(self.disclose(&full, &member.credential.msp_id, &organization));
            }
        }
        for chunk in records.chunks(RECORDS_PER_VIEW_MAX) {
            self.outputs.push_back(MembershipOutput::SendView { peer: from, records: chunk.to_vec() });
        }
    }

    pub(super) fn send_root(&mut self, peer: PkiId, authority: &dyn Authority) {
        let Some(organization) = self.connected.organization(&peer).cloned() else { return };
        let root = self.root_for(&organization, authority);
        self.outputs.push_back(MembershipOutput::SendViewRoot { peer, root });
    }

    pub(super) fn send_list_if_due(&mut self, now: Time, authority: &dyn Authority) {
        let Some(peer) = self.list_wanted.filter(|_| self.next_list <= now) else { return };
        self.list_wanted = None;
        let Some(organization) = self.connected.organization(&peer).cloned() else { return };
        self.next_list = now + LIST_SPACING;
        let mut entries = self.entries_for(&organization, authority);
        entries.sort_unstable();
        let parts: Vec<&[Entry]> = entries.chunks(VIEW_ENTRIES_MAX).collect();
        let mut first = 0;
        for (index, part) in parts.iter().enumerate() {
            let is_last = index + 1 == parts.len();
            let end =
                part.last().and_then(|entry| entry.first_chunk()).map_or(0, |id| u64::from_be_bytes(*id));
            let last = if is_last { u64::MAX } else { end };
            let mut bytes = BytesMut::with_capacity(part.len() * VIEW_ENTRY_SIZE);
            part.iter().for_each(|entry| bytes.put_slice(entry));
            let list = ViewList { first, last, entries: bytes.freeze() };
            self.outputs.push_back(MembershipOutput::SendViewList { peer, list });
            first = last.saturating_add(1);
        }
        if parts.is_empty() {
            let list = ViewList { first: 0, last: u64::MAX, entries: Bytes::new() };
            self.outputs.push_back(MembershipOutput::SendViewList { peer, list });
        }
    }

    fn root_for(&mut self, organization: &MspId, authority: &dyn Authority) -> [u8; 32] {
        if *organization == self.own.msp_id {
            let mut root = self.root;
            toggle(&mut root, &self.own_entry(authority).0);
            return root;
        }
        let mut root = [0; 32];
        self.entries_for(organization, authority).iter().for_each(|entry| toggle(&mut root, entry));
        root
    }

    /// What a peer of the organisation may know of, this peer included.
    fn entries_for(&mut self, organization: &MspId, authority: &dyn Authority) -> Vec<Entry> {
        let (own_entry, own) = self.own_entry(authority);
        let mut entries = Vec::new();
        if self.disclose(&own, &self.own.msp_id, organization).is_some() {
            entries.push(own_entry);
        }
        for member in self.members.values().filter(|member| member.state != MemberState::Dead) {
            let subject = &member.credential.msp_id;
            if self.may_know(organization, subject, &member.external_endpoint) {
                entries.push(member.entry());
            }
        }
        entries
    }
}

fn covers(list: &ViewList, pki_id: &PkiId) -> bool {
    (list.first..=list.last).contains(&prefix(pki_id))
}

/// Whether an entry says more than the other side's of the same member. Of two certificates neither is known to be newer
/// here: the record is sent, and its receiver decides.
fn is_newer(entry: &Entry, theirs: &BTreeMap<[u8; 8], &[u8]>) -> bool {
    let Some(theirs) = entry.first_chunk::<8>().and_then(|id| theirs.get(id)) else { return true };
    let parts = |entry: &[u8]| (entry.get(8..12).map(<[u8]>::to_vec), entry.get(12..).map(<[u8]>::to_vec));
    let ((identity, order), (their_identity, their_order)) = (parts(entry), parts(theirs));
    identity != their_identity || order > their_order
}
