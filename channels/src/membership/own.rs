//! The own record: signing it, refuting accusations, outbidding former selves, meeting a twin.

use super::record::{self, Order, RecordError, check, sign};
use super::types::MembershipOutput;
use super::view::{Entry, entry};
use super::{ALARM_INTERVAL, FORMER_SELF_FACTOR, Membership, REFUTE_AGAIN, with_identity};
use crate::authority::{Authority, Credential};
use crate::time::Time;
use crate::wire::{Alive, SignedAlive};

impl Membership {
    /// The own record as it stands, with the identity, and its entry.
    pub(super) fn own_entry(&mut self, authority: &dyn Authority) -> (Entry, SignedAlive) {
        let record = match &self.current {
            Some(record) => record.clone(),
            None => self.renew(authority),
        };
        let order = Order {
            not_before: self.own.not_before,
            serial: (0, Vec::new()),
            incarnation: self.incarnation,
            sequence: self.sequence,
        };
        let digest = record::identity_digest(&self.own.serialized);
        (entry(&self.own.pki_id, &digest, &order), with_identity(&record, &self.own.serialized))
    }

    /// Signs the own record anew.
    pub(super) fn renew(&mut self, authority: &dyn Authority) -> SignedAlive {
        self.sequence = self.sequence.saturating_add(1);
        let alive = Alive {
            network_id: self.config.network_id.clone(),
            identity_digest: record::identity_digest(&self.own.serialized).to_vec(),
            peer_id: self.own_peer_id.clone(),
            external_endpoint: self.config.external_endpoint.clone(),
            incarnation: self.incarnation,
            sequence: self.sequence,
        };
        let record = sign(&alive, &self.config.internal_endpoint, authority);
        self.current = Some(record.clone());
        record
    }

    /// Tells every connected peer that this one lives.
    pub(super) fn announce(&mut self, authority: &dyn Authority) {
        let record = self.renew(authority);
        let own = self.own.clone();
        self.spread(&record, &own, None, usize::MAX);
    }

    /// Others suspect this peer: a newer record proves them wrong.
    pub(super) fn refute(&mut self, now: Time, authority: &dyn Authority) {
        if self.refuted_at.is_some_and(|at| now.since(at) < REFUTE_AGAIN) {
            return;
        }
        self.refuted_at = Some(now);
        self.counters.refutations += 1;
        self.detector.was_suspected();
        self.announce(authority);
    }

    /// A record of our own identity: our former self, an echo, or somebody else with our key.
    pub(super) fn handle_own(
        &mut self,
        now: Time,
        alive: &Alive,
        credential: &Credential,
        record: &SignedAlive,
        authority: &dyn Authority,
    ) -> Result<(), RecordError> {
        let ours = (self.incarnation, self.sequence);
        if (alive.incarnation, alive.sequence) <= ours && alive.peer_id == self.own_peer_id {
            return Err(RecordError::Stale);
        }
        if alive.incarnation < self.incarnation {
            return Err(RecordError::Stale);
        }
        check(record, credential, authority)?;
        // Outbid in any case: who knows the other record refuses ours as stale for ever.
        self.incarnation = alive.incarnation.saturating_add(1);
        self.sequence = 0;
        self.current = None;
        self.outputs.push_back(MembershipOutput::PersistIncarnation(self.incarnation));
        if now.since(self.started) < self.config.alive_expiration * FORMER_SELF_FACTOR {
            if !self.adopted {
                self.adopted = true;
                self.next_alive = Time::ZERO;
            }
            return Ok(());
        }
        if self.alarmed_at.is_none_or(|at| now.since(at) >= ALARM_INTERVAL) {
            self.alarmed_at = Some(now);
            self.outputs.push_back(MembershipOutput::Alarm(format!(
                "another process uses this peer's identity {} (it advertises {:?}): stop one of the two",
                self.own.name, alive.external_endpoint
            )));
        }
        Ok(())
    }
}
