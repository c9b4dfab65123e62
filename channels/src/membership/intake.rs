//! Records and identity questions that come from others: what is taken in, and what of it goes on.

use std::collections::BTreeSet;

use bytes::Bytes;
use grapevine_crypto::PkiId;

use super::record::{self, Checked, Order, RecordError, check};
use super::types::{Member, MemberState, MembershipOutput};
use super::{ASK_AGAIN, MEMBERS_MAX, Membership, UNKNOWN_MAX, view, with_identity};
use crate::authority::{Authority, Credential};
use crate::time::Time;
use crate::wire::{Alive, RECORDS_PER_VIEW_MAX, SignedAlive};

impl Membership {
    /// Records arrived from a connected peer, one relayed or many in a view.
    pub fn handle_records(
        &mut self,
        now: Time,
        from: PkiId,
        records: Vec<SignedAlive>,
        authority: &dyn Authority,
    ) {
        self.wake(now, authority);
        let (mut unknown, mut misbehaved) = (Vec::new(), None);
        for record in records {
            match self.handle_record(now, from, &record, authority) {
                Ok(()) => {}
                Err(RecordError::UnknownIdentity(digest)) => unknown.push(digest),
                Err(RecordError::Stale) => self.counters.records_stale += 1,
                // Trust may differ for a moment between honest peers.
                Err(RecordError::Untrusted(_)) => self.counters.records_rejected += 1,
                Err(error @ (RecordError::Malformed(_) | RecordError::BadSignature)) => {
                    self.counters.records_rejected += 1;
                    misbehaved.get_or_insert(error);
                }
            }
        }
        let digests: Vec<_> = unknown
            .into_iter()
            .filter(|digest| self.may_ask(now, digest))
            .take(RECORDS_PER_VIEW_MAX)
            .collect();
        if !digests.is_empty() {
            self.outputs.push_back(MembershipOutput::AskIdentities { peer: from, digests });
        }
        if let Some(error) = misbehaved {
            self.outputs.push_back(MembershipOutput::Misbehaved { peer: from, error });
        }
        if self.members.contains_key(&from) && self.unintroduced.remove(&from) {
            self.send_root(from, authority);
        }
        self.rest(now);
    }

    /// A connected peer asks who is behind records we sent.
    pub fn handle_identity_request(&mut self, from: PkiId, digests: &[Vec<u8>], authority: &dyn Authority) {
        let Some(organization) = self.connected.organization(&from).cloned() else { return };
        let asked: BTreeSet<&[u8]> = digests.iter().map(Vec::as_slice).collect();
        let mut records = Vec::new();
        if asked.contains(record::identity_digest(&self.own.serialized).as_slice()) {
            let own = self.own_entry(authority).1;
            records.extend(self.disclose(&own, &self.own.msp_id, &organization));
        }
        for member in self.members.values() {
            if asked.contains(member.identity_digest.as_slice()) {
                let full = with_identity(&member.record, &member.credential.serialized);
                records.extend(self.disclose(&full, &member.credential.msp_id, &organization));
            }
        }
        records.truncate(RECORDS_PER_VIEW_MAX);
        if !records.is_empty() {
            self.outputs.push_back(MembershipOutput::SendView { peer: from, records });
        }
    }

    fn handle_record(
        &mut self,
        now: Time,
        from: PkiId,
        record: &SignedAlive,
        authority: &dyn Authority,
    ) -> Result<(), RecordError> {
        let alive = record::decode(record, &self.config.network_id)?;
        let credential = self.credential_of(now, record, &alive, authority)?;
        if credential.pki_id == self.own.pki_id {
            return self.handle_own(now, &alive, &credential, record, authority);
        }
        let order = Order::new(&credential, &alive);
        let known = self.members.get(&credential.pki_id);
        let newest = known
            .map(|member| &member.order)
            .or_else(|| self.tombstones.get(&credential.pki_id).map(|tombstone| &tombstone.order));
        if newest.is_some_and(|newest| order <= *newest) {
            return Err(RecordError::Stale);
        }
        let Checked { internal_endpoint } = check(record, &credential, authority)?;
        if known.is_none() && self.members.len() >= MEMBERS_MAX {
            self.counters.members_over_bound += 1;
            return Ok(());
        }
        // An own-organisation record may reach us with its internal endpoint cut off by a foreign relay.
        let internal_endpoint =
            internal_endpoint.or_else(|| known.and_then(|member| member.internal_endpoint.clone()));
        let revived = known.is_none_or(|member| member.state == MemberState::Dead);
        if let Some(member) = known.filter(|member| member.state != MemberState::Dead) {
            view::toggle(&mut self.root, &member.entry());
        }
        let introduced = known.is_none_or(|member| {
            member.credential != credential || member.external_endpoint != alive.external_endpoint
        });
        let moved = known.is_none_or(|member| {
            member.external_endpoint != alive.external_endpoint
                || member.internal_endpoint != internal_endpoint
        });
        let unreachable = !moved && known.is_some_and(|member| member.unreachable);
        let member = Member {
            state: MemberState::Alive,
            unreachable,
            order,
            peer_id: alive.peer_id,
            external_endpoint: alive.external_endpoint,
            internal_endpoint,
            last_seen: now,
            identity_digest: alive.identity_digest.clone(),
            record: SignedAlive { identity: Bytes::new(), ..record.clone() },
            credential: credential.clone(),
        };
        self.unknown.remove(&alive.identity_digest);
        self.tombstones.remove(&credential.pki_id);
        self.by_identity.insert(alive.identity_digest, credential.pki_id);
        view::toggle(&mut self.root, &member.entry());
        if let Some(former) = self.members.insert(credential.pki_id, member)
            && former.credential != credential
        {
            self.by_identity.remove(&former.identity_digest);
            self.outputs.push_back(MembershipOutput::Renewed(credential.pki_id));
        }
        if revived {
            self.outputs.push_back(MembershipOutput::Alive(credential.pki_id));
            self.dialer.forgive(&credential.pki_id);
        }
        let connected = self.connected.contains(&credential.pki_id);
        self.detector.track(now, credential.pki_id, connected, credential.msp_id == self.own.msp_id);
        let onward = if introduced {
            with_identity(record, &credential.serialized)
        } else {
            SignedAlive { identity: Bytes::new(), ..record.clone() }
        };
        let copies = self.copies(now, introduced || revived);
        self.spread(&onward, &credential, Some(from), copies);
        self.settle_dials(now, &credential.pki_id);
        Ok(())
    }

    fn credential_of(
        &self,
        now: Time,
        record: &SignedAlive,
        alive: &Alive,
        authority: &dyn Authority,
    ) -> Result<Credential, RecordError> {
        if !record.identity.is_empty() {
            if record::identity_digest(&record.identity).as_slice() != alive.identity_digest {
                return Err(RecordError::Malformed("identity does not fit its digest"));
            }
            return authority
                .identify(&record.identity, self.unix_seconds(now))
                .map_err(RecordError::Untrusted);
        }
        let known = self.by_identity.get(&alive.identity_digest);
        match known.and_then(|pki_id| self.members.get(pki_id)) {
            Some(member) if member.credential.expired_at(self.unix_seconds(now)) => {
                Err(RecordError::Untrusted("its certificate has expired".into()))
            }
            Some(member) => Ok(member.credential.clone()),
            None if record::identity_digest(&self.own.serialized).as_slice() == alive.identity_digest => {
                Ok(self.own.clone())
            }
            None => Err(RecordError::UnknownIdentity(alive.identity_digest.clone())),
        }
    }

    fn may_ask(&mut self, now: Time, digest: &[u8]) -> bool {
        self.unknown.retain(|_, asked| now.since(*asked) < ASK_AGAIN);
        if self.unknown.contains_key(digest) {
            return false;
        }
        if self.unknown.len() >= UNKNOWN_MAX {
            self.counters.unknown_over_bound += 1;
            return false;
        }
        self.unknown.insert(digest.to_vec(), now);
        true
    }
}
