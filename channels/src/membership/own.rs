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
        let order =
            Order { certificate: self.own.order(), incarnation: self.incarnation, sequence: self.sequence };
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

    /// This peer has a new certificate, and `authority` signs with its key: everybody is told.
    pub fn handle_renewed(&mut self, now: Time, own: Credential, authority: &dyn Authority) {
        self.own = own;
        let record = self.renew(authority);
        let own = self.own.clone();
        self.spread(&with_identity(&record, &own.serialized), &own, None, usize::MAX);
        self.rest(now);
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
        if credential.order() > self.own.order() {
            check(record, credential, authority)?;
            self.raise_alarm(now, format!(
                "others know a newer certificate of this peer, {}, and refuse the one it runs with: install the newer one",
                self.own.name
            ));
            return Ok(());
        }
        let ours = (self.incarnation, self.sequence);
        if (alive.incarnation, alive.sequence) <= ours && alive.peer_id == self.own_peer_id {
            return Err(RecordError::Stale);
        }
        if alive.incarnation < self.incarnation {
            return Err(RecordError::Stale);
        }
        let checked = check(record, credential, authority)?;
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
        let endpoint = checked.endpoint(&alive.external_endpoint).to_owned();
        self.raise_alarm(now, format!(
            "another process uses this peer's identity {} (it advertises {endpoint}): stop one of the two",
            self.own.name
        ));
        Ok(())
    }

    /// Tells the operator, but not all the time; what was told last is kept for the status.
    fn raise_alarm(&mut self, now: Time, text: String) {
        if self.alarm.as_ref().is_some_and(|(at, _)| now.since(*at) < ALARM_INTERVAL) {
            return;
        }
        self.outputs.push_back(MembershipOutput::Alarm(text.clone()));
        self.alarm = Some((now, text));
    }
}
