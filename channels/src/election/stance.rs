//! From one stance to the next, and what is said on the way.

use grapevine_crypto::PkiId;

use super::{
    Account, DECLARATIONS_PER_LEASE, DEPOSED_FOR, DEPOSED_MAX, Election, ElectionOutput, Reason, Stance,
    Term, watch,
};
use crate::time::Time;
use crate::wire::{Leadership, LeadershipKind, OrdererContact};
use std::time::Duration;

impl Election {
    pub(super) fn stance_deadline(&self) -> Option<Time> {
        match self.stance {
            Stance::Settling { since, seeking: true, .. } if self.members.is_empty() => {
                Some(since + self.config.startup_grace_period)
            }
            Stance::Settling { since, changed, .. } => Some(
                (changed + self.config.membership_sample_interval)
                    .max(since + self.config.membership_sample_interval * 2)
                    .min(since + self.config.startup_grace_period),
            ),
            Stance::Following { account, lease_ends } if account.hearsay => {
                Some(lease_ends.min(self.hearsay_query(lease_ends)))
            }
            Stance::Following { lease_ends, .. } => Some(lease_ends),
            Stance::Leaderless { proposes } => Some(proposes),
            Stance::Candidate { decides, .. } => Some(decides),
            Stance::Leading { declares, vacancy, .. } => {
                let lost = self.contact.state != OrdererContact::Reached && !self.members.is_empty();
                Some(if lost { declares.min(vacancy) } else { declares })
            }
            Stance::Static => None,
        }
    }

    /// Who lives from hearsay asks again in the middle of each lease.
    fn hearsay_query(&self, lease_ends: Time) -> Time {
        match self.queried {
            Some(at) if at + self.lease() >= lease_ends => lease_ends,
            _ => lease_ends - self.lease() / 2,
        }
    }

    pub(super) fn stance_due(&mut self, now: Time) {
        match self.stance {
            Stance::Settling { .. } => {
                // At a common start not everybody speaks up at once.
                self.stance = Stance::Leaderless { proposes: now + self.turn(now) };
                self.propose_if_due(now);
            }
            Stance::Following { account, lease_ends } if account.hearsay && lease_ends > now => {
                self.queried = Some(now);
                self.send_all(now, LeadershipKind::Query);
            }
            Stance::Following { .. } => {
                self.leaderless(now, self.turn(now));
                self.propose_if_due(now);
            }
            Stance::Leaderless { .. } => self.propose_if_due(now),
            Stance::Candidate { counter, .. } => {
                let counter = counter.max(self.counter_contested.saturating_add(1));
                self.lead(now, counter, self.cause.0);
            }
            Stance::Leading { account, declared, declares, vacancy } => {
                if vacancy <= now && self.contact.state != OrdererContact::Reached {
                    let vacancy = now + self.lease() * 2;
                    self.stance = Stance::Leading { account, declared, declares, vacancy };
                    self.send_all(now, LeadershipKind::Vacancy);
                }
                if declares <= now {
                    self.declare(now);
                }
            }
            Stance::Static => {}
        }
    }

    fn propose_if_due(&mut self, now: Time) {
        if let Stance::Leaderless { proposes } = self.stance
            && proposes <= now
        {
            self.propose(now);
        }
    }

    pub(super) fn propose(&mut self, now: Time) {
        let counter = self.counter_highest.max(self.counter_contested).saturating_add(1);
        let wait = if self.members.is_empty() { Duration::ZERO } else { self.hearing() };
        self.stance = Stance::Candidate { counter, decides: now + wait };
        self.send_all(now, LeadershipKind::Proposal);
        if wait > Duration::ZERO && self.own_contact(now) == OrdererContact::Unknown {
            self.outputs.push_back(ElectionOutput::ProbeOrderer);
        }
    }

    /// How long a candidate listens for somebody better, or for news of a leader. One that has never known a leader may merely not
    /// have met it yet, and followers ask theirs before they give notice of it: twice as long.
    fn hearing(&self) -> Duration {
        self.config.leader_election_duration * if self.floor.is_some() { 1 } else { 2 }
    }

    /// Makes way for a better candidate, once.
    pub(super) fn defer(&mut self, now: Time, to: PkiId) {
        self.passed_over.insert(to);
        let patience = self.config.leader_election_duration + self.hearing() + self.turn(now);
        self.stance = Stance::Leaderless { proposes: now + patience };
    }

    pub(super) fn lead(&mut self, now: Time, counter: u64, reason: Reason) {
        let term = Term { counter, leader: self.own };
        let account = Account {
            term,
            since: now,
            reason: Some(reason),
            height: self.height,
            orderer_round_trip: None,
            hearsay: false,
        };
        let vacancy = now + self.lease();
        // What a probe found lately holds until the stream says otherwise, what it found long ago does not.
        self.contact.state = self.own_contact(now);
        self.stance = Stance::Leading { account, declared: now, declares: now, vacancy };
        self.floor = Some(term);
        self.counter_highest = self.counter_highest.max(counter);
        self.new_reign();
        self.outputs.push_back(ElectionOutput::Lead(term));
        if self.contact.round_trip.is_none() {
            // For operators alone: how far away its orderers are.
            self.outputs.push_back(ElectionOutput::ProbeOrderer);
        }
        self.declare(now);
    }

    /// Declares this peer to all, and when it will do so next.
    pub(super) fn declare(&mut self, now: Time) {
        let Stance::Leading { account, vacancy, .. } = self.stance else { return };
        let declares = now + self.lease() / DECLARATIONS_PER_LEASE;
        self.stance = Stance::Leading { account, declared: now, declares, vacancy };
        self.send_all(now, LeadershipKind::Declaration);
    }

    /// Declares soon, in a term of at least `counter`: at once, unless it was a moment ago.
    pub(super) fn assert_leadership(&mut self, now: Time, counter: u64) {
        let Stance::Leading { mut account, declared, vacancy, .. } = self.stance else { return };
        if counter > account.term.counter {
            account.term.counter = counter;
            self.floor = Some(account.term);
            self.counter_highest = self.counter_highest.max(counter);
        }
        let declares = (declared + self.breath()).max(now);
        self.stance = Stance::Leading { account, declared, declares, vacancy };
        if declares <= now {
            self.declare(now);
        }
    }

    /// Least time between two declarations to all, and between two queries.
    pub(super) fn breath(&self) -> Duration {
        self.lease() / DECLARATIONS_PER_LEASE / 6
    }

    pub(super) fn resign(&mut self, now: Time, successor: Option<PkiId>, is_stopping: bool) {
        if !matches!(self.stance, Stance::Leading { .. }) {
            return;
        }
        let about = successor.map(|peer| peer.0.0.to_vec()).unwrap_or_default();
        let message = Leadership { about, is_stopping, ..self.message(now, LeadershipKind::Resignation) };
        self.post_all(&message);
        self.outputs.push_back(ElectionOutput::StepDown);
        self.outputs.push_back(ElectionOutput::Follow(None));
        let patience = self.config.leader_election_duration * 2 + self.turn(now);
        self.stance = Stance::Leaderless { proposes: now + patience };
    }

    /// The leader is gone; this peer stands after `wait`.
    pub(super) fn leaderless(&mut self, now: Time, wait: Duration) {
        if let Some(term) = self.leader() {
            self.passed_over.insert(term.leader);
            self.outputs.push_back(ElectionOutput::Follow(None));
        }
        self.errand = None;
        self.cause = (Reason::Elected, None);
        self.stance = Stance::Leaderless { proposes: now + wait };
    }

    /// The own leader is not fit to lead: it is not followed for `time`, and this peer stands against it.
    pub(super) fn stand_against(&mut self, now: Time, leader: PkiId, reason: Reason, time: Duration) {
        self.depose(now, leader, time);
        self.leaderless(now, self.turn(now));
        self.cause = (reason, Some(leader));
        self.propose_if_due(now);
    }

    pub(super) fn depose(&mut self, now: Time, leader: PkiId, time: Duration) {
        if self.deposed.len() >= DEPOSED_MAX && !self.deposed.contains_key(&leader) {
            let first = self.deposed.iter().min_by_key(|(_, until)| **until).map(|(peer, _)| *peer);
            first.and_then(|first| self.deposed.remove(&first));
        }
        self.deposed.insert(leader, now + time);
    }

    pub(super) fn follow(&mut self, now: Time, account: Account) {
        let former = self.leader();
        if matches!(self.stance, Stance::Leading { .. }) {
            self.outputs.push_back(ElectionOutput::StepDown);
        }
        let since = match self.stance {
            Stance::Following { account: former, .. } if former.term.leader == account.term.leader => {
                former.since
            }
            _ => now,
        };
        if former.is_none_or(|former| former.leader != account.term.leader) {
            self.watch.restart(now);
            self.errand = None;
        }
        self.stance =
            Stance::Following { account: Account { since, ..account }, lease_ends: now + self.lease() };
        self.floor = self.floor.max(Some(account.term));
        self.new_reign();
        if former != Some(account.term) {
            self.outputs.push_back(ElectionOutput::Follow(Some(account.term)));
        }
    }

    fn new_reign(&mut self) {
        self.passed_over.clear();
        self.counter_contested = 0;
        if !matches!(self.stance, Stance::Leading { .. }) {
            self.cause = (Reason::Elected, None);
        }
        self.doubters.retain(|_| matches!(self.stance, Stance::Following { .. }));
    }

    /// Asks the orderer if it is this peer's turn; deposes a leader that withholds.
    pub(super) fn look_for_withholding(&mut self, now: Time) {
        let Stance::Following { account, .. } = self.stance else { return };
        let leader = account.term.leader;
        if self.watch.convicts(now) {
            self.outputs.push_back(ElectionOutput::Deposed(leader));
            return self.stand_against(now, leader, Reason::Withholding, DEPOSED_FOR);
        }
        let lease = self.lease();
        if let Some(round) = self.watch.take_look(now, lease) {
            let able = self.members.keys().filter(|peer| **peer != leader).chain([&self.own]);
            if watch::drawn(able, account.term.counter, self.watch.verified(), round) == Some(self.own) {
                self.outputs.push_back(ElectionOutput::ProbeOrderer);
            }
        }
    }

    /// A message of this kind about the present stance.
    pub(super) fn message(&self, now: Time, kind: LeadershipKind) -> Leadership {
        let (counter, about, reason) = match self.stance {
            Stance::Leading { account, .. } => {
                // Said while it is news; later it would count against a leader that mended its ways.
                let news = self.cause.0 == Reason::Withholding && now.since(account.since) < self.lease();
                let deposed = self.cause.1.filter(|_| news);
                (account.term.counter, deposed, account.reason.map_or(0, |reason| reason as u32))
            }
            Stance::Following { account, .. } => (account.term.counter, Some(account.term.leader), 0),
            Stance::Candidate { counter, .. } => (counter, None, 0),
            _ => (self.counter_highest.max(self.counter_contested).saturating_add(1), None, 0),
        };
        let about = about.filter(|_| matches!(kind, LeadershipKind::Declaration | LeadershipKind::Notice));
        let round_trip = self.contact.round_trip.unwrap_or_default().as_micros();
        Leadership {
            kind: kind.into(),
            counter,
            height: self.height,
            contact: self.own_contact(now).into(),
            tenure: self.own_standing(now).tenure,
            about: about.map(|peer| peer.0.0.to_vec()).unwrap_or_default(),
            tip_hash: Vec::new(),
            reason,
            orderer_round_trip_us: u64::try_from(round_trip).unwrap_or(u64::MAX),
            is_stopping: false,
        }
    }

    pub(super) fn send_all(&mut self, now: Time, kind: LeadershipKind) {
        let message = self.message(now, kind);
        self.post_all(&message);
    }

    pub(super) fn send(&mut self, now: Time, peer: PkiId, kind: LeadershipKind) {
        let message = self.message(now, kind);
        self.outputs.push_back(ElectionOutput::Send { peer, message });
    }

    fn post_all(&mut self, message: &Leadership) {
        for peer in self.members.keys() {
            self.outputs.push_back(ElectionOutput::Send { peer: *peer, message: message.clone() });
        }
    }
}
