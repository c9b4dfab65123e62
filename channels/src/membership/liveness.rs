//! What the detector finds, and what becomes of it: suspects, the dead, and those who come back.

use grapevine_crypto::PkiId;
use rand::seq::IteratorRandom;

use super::detector::{Finding, STALL};
use super::types::{MemberState, MembershipOutput, Probe};
use super::{DEAD_PINGED_MAX, Membership, PURGE_FACTOR, SPREAD_FACTOR, view};
use crate::authority::Authority;
use crate::time::Time;

impl Membership {
    /// Called first with every event: notices if this peer stood still. What others said meanwhile is still to come, and
    /// they may think that it is dead.
    pub(super) fn wake(&mut self, now: Time, authority: &dyn Authority) {
        let Some(promised) = self.promised.take() else { return };
        let late = now.since(promised);
        if late < STALL {
            return;
        }
        self.detector.stalled(now);
        if late >= self.config.alive_interval && !self.connected.is_empty() {
            self.announce(authority);
        }
    }

    /// Called last with every event: passes on what the detector found.
    pub(super) fn rest(&mut self, now: Time) {
        while let Some(finding) = self.detector.poll() {
            self.take_finding(now, finding);
        }
        // What is overdue already is no reason to think at the next event that this peer stood still again.
        self.promised = self.next_deadline().map(|at| at.max(now));
    }

    fn take_finding(&mut self, now: Time, finding: Finding) {
        match finding {
            Finding::Ping(peer) => self.probe(peer, Probe::Ping),
            Finding::Ask { helper, subject } => {
                if self.same_organization(&helper) {
                    self.probe(helper, Probe::Ask(subject));
                }
            }
            Finding::Answer { to, subject } => self.probe(to, Probe::Answer(subject)),
            Finding::Accuse(subject) => self.accuse(&subject),
            Finding::Suspect(peer) => {
                if let Some(member) = self.members.get_mut(&peer) {
                    member.state = MemberState::Suspect;
                    self.outputs.push_back(MembershipOutput::Suspect(peer));
                }
            }
            Finding::Cleared(peer) => {
                if let Some(member) = self.members.get_mut(&peer) {
                    member.state = MemberState::Alive;
                    self.counters.suspects_cleared += 1;
                    self.outputs.push_back(MembershipOutput::Alive(peer));
                }
            }
            Finding::Dead(peer) => self.declare_dead(now, peer),
        }
    }

    fn probe(&mut self, peer: PkiId, probe: Probe) {
        if self.connected.contains(&peer) {
            self.outputs.push_back(MembershipOutput::SendProbe { peer, probe });
        }
    }

    /// Tells every connected peer that may know the subject that it is silent.
    fn accuse(&mut self, subject: &PkiId) {
        let Some(member) = self.members.get(subject) else { return };
        let (organization, endpoint) = (&member.credential.msp_id, &member.external_endpoint);
        let told: Vec<PkiId> = self
            .connected
            .iter()
            .filter(|(_, receiver)| self.may_know(receiver, organization, endpoint))
            .map(|(peer, _)| *peer)
            .collect();
        for peer in told {
            self.probe(peer, Probe::Accuse(*subject));
        }
    }

    pub(super) fn declare_dead(&mut self, now: Time, pki_id: PkiId) {
        let Some(member) = self.members.get_mut(&pki_id) else { return };
        if member.state != MemberState::Dead {
            view::toggle(&mut self.root, &member.entry());
            member.state = MemberState::Dead;
            member.last_seen = now;
            self.detector.untrack(&pki_id);
            self.outputs.push_back(MembershipOutput::Dead(pki_id));
        }
    }

    /// A dead member is connected, or a frame of it came: the connection vouches for it.
    pub(super) fn revive(&mut self, now: Time, pki_id: PkiId) {
        let Some(member) = self.members.get_mut(&pki_id).filter(|member| member.state == MemberState::Dead)
        else {
            return;
        };
        member.state = MemberState::Alive;
        member.last_seen = now;
        view::toggle(&mut self.root, &member.entry());
        let own_organization = member.credential.msp_id == self.own.msp_id;
        self.detector.track(now, pki_id, self.connected.contains(&pki_id), own_organization);
        self.dialer.forgive(&pki_id);
        self.outputs.push_back(MembershipOutput::Alive(pki_id));
    }

    pub(super) fn same_organization(&self, peer: &PkiId) -> bool {
        self.connected.organization(peer) == Some(&self.own.msp_id)
    }

    /// How many times longer intervals are than in a network of two.
    pub(super) fn scale(&self) -> u32 {
        let members = u32::try_from(self.members.len()).unwrap_or(u32::MAX);
        members.saturating_mul(SPREAD_FACTOR).max(1)
    }

    /// Forgets whose certificates have expired, declares dead whose records are too old, forgets who has been dead for long, pings some of the dead.
    pub(super) fn sweep(&mut self, now: Time) {
        let unix_seconds = self.unix_seconds(now);
        self.forget_where(|member| member.credential.expired_at(unix_seconds));
        let expiration = self.config.alive_expiration * self.scale();
        let (mut expired, mut purged, mut pinged) = (Vec::new(), Vec::new(), Vec::new());
        for (pki_id, member) in &self.members {
            let silent = now.since(member.last_seen);
            let connected = self.connected.contains(pki_id);
            if member.state != MemberState::Dead {
                if silent >= expiration && !connected {
                    expired.push(*pki_id);
                }
                continue;
            }
            if connected {
                pinged.push(*pki_id);
            }
            let permanent = member.endpoint().is_some_and(|endpoint| self.dialer.is_permanent(endpoint));
            if silent >= self.config.alive_expiration * PURGE_FACTOR && !permanent {
                purged.push(*pki_id);
            }
        }
        expired.into_iter().for_each(|pki_id| self.declare_dead(now, pki_id));
        purged.into_iter().for_each(|pki_id| self.forget(pki_id));
        for peer in pinged.into_iter().sample(&mut self.rng, DEAD_PINGED_MAX) {
            self.probe(peer, Probe::Ping);
        }
    }
}
