//! What each message does in each stance.

use std::time::Duration;

use grapevine_crypto::{Digest, PkiId};

use super::types::Member;
use super::{Account, DEPOSED_FOR, Election, ElectionOutput, Errand, Reason, Stance, Term};
use crate::time::Time;
use crate::wire::{Leadership, LeadershipKind, OrdererContact};

impl Election {
    pub(super) fn dispatch(&mut self, now: Time, from: PkiId, message: &Leadership, counted: u64) {
        let counter = message.counter;
        match message.kind() {
            LeadershipKind::Declaration => self.on_declaration(now, from, message, counted),
            LeadershipKind::Proposal => {
                let is_answer = about(message) == Some(self.own);
                self.on_proposal(now, from, counter, is_answer);
            }
            LeadershipKind::Resignation => self.on_resignation(now, from, counter, about(message)),
            LeadershipKind::Notice => {
                if let Some(leader) = about(message) {
                    self.on_notice(now, from, Term { counter, leader });
                }
            }
            LeadershipKind::Query => self.on_query(now, from, counter),
            LeadershipKind::Vacancy => self.on_vacancy(now, from),
            LeadershipKind::Unspecified => {}
        }
    }

    fn on_declaration(&mut self, now: Time, from: PkiId, message: &Leadership, counted: u64) {
        let term = Term { counter: message.counter, leader: from };
        if let Some(deposed) = about(message).filter(|peer| *peer != self.own && *peer != from)
            && self.watch.is_quiet(now, self.lease())
        {
            self.depose(now, deposed, DEPOSED_FOR);
        }
        if self.deposed.contains_key(&from) && !self.is_mutual(message, from) {
            return self.contest(now, from, term);
        }
        if counted < self.marks.reached(now, self.lease()) {
            return self.on_laggard(now, term);
        }
        match self.stance {
            Stance::Leading { account, .. } if account.term > term => {
                return self.send(now, from, LeadershipKind::Declaration);
            }
            Stance::Following { account, .. } if account.term > term => {
                // The own leader may be as deaf to it as it is to the own leader.
                self.doubters.insert(from);
                return self.query_leader(now, account.term);
            }
            _ if self.floor.is_some_and(|floor| floor > term) => {
                return self.send(now, from, LeadershipKind::Proposal);
            }
            _ => {}
        }
        let round_trip = Some(message.orderer_round_trip_us).filter(|us| *us > 0).map(Duration::from_micros);
        self.follow(
            now,
            Account {
                term,
                since: now,
                reason: Reason::from_number(message.reason),
                height: message.height,
                orderer_round_trip: round_trip,
                hearsay: false,
            },
        );
        for doubter in std::mem::take(&mut self.doubters) {
            if doubter != from {
                self.send(now, doubter, LeadershipKind::Notice);
            }
        }
    }

    /// Whether two leaders have deposed each other, as after a partition: neither knows better then, so the deposition is
    /// lifted and their terms decide. Members who only follow keep theirs.
    fn is_mutual(&mut self, message: &Leadership, from: PkiId) -> bool {
        let mutual = matches!(self.stance, Stance::Leading { .. }) && about(message) == Some(self.own);
        if mutual {
            self.deposed.remove(&from);
        }
        mutual
    }

    /// Somebody leads who lacks what this peer had a lease ago.
    fn on_laggard(&mut self, now: Time, term: Term) {
        match self.stance {
            Stance::Following { account, .. } if account.term.leader == term.leader => {
                self.stand_against(now, term.leader, Reason::Behind, self.lease() * 2);
            }
            _ => self.contest(now, term.leader, term),
        }
    }

    /// A declaration that this peer does not follow: somebody fit must outrank it.
    fn contest(&mut self, now: Time, from: PkiId, term: Term) {
        self.counter_contested = self.counter_contested.max(term.counter);
        match self.stance {
            Stance::Leading { account, .. } => {
                let counter = if term > account.term { term.counter.saturating_add(1) } else { 0 };
                self.assert_leadership(now, counter);
                if self.deposed.contains_key(&from) {
                    let declaration = self.message(now, LeadershipKind::Declaration);
                    let message = Leadership { about: from.0.0.to_vec(), ..declaration };
                    self.outputs.push_back(ElectionOutput::Send { peer: from, message });
                }
            }
            Stance::Following { account, .. } if account.term.leader != from => {
                self.doubters.insert(from);
                let counter = if term > account.term { term.counter.saturating_add(1) } else { 0 };
                self.query_leader(now, Term { counter, ..account.term });
            }
            Stance::Settling { .. } => {
                let wait = self.turn(now);
                self.leaderless(now, wait);
            }
            _ => {}
        }
    }

    /// Asks the own leader to declare itself, in a term of at least this counter.
    fn query_leader(&mut self, now: Time, term: Term) {
        let Stance::Following { account, .. } = self.stance else { return };
        if account.hearsay || self.queried.is_some_and(|at| now.since(at) < self.breath()) {
            return;
        }
        self.queried = Some(now);
        let message = Leadership { counter: term.counter, ..self.message(now, LeadershipKind::Query) };
        let peer = account.term.leader;
        self.outputs.push_back(ElectionOutput::Send { peer, message });
    }

    fn on_proposal(&mut self, now: Time, from: PkiId, counter: u64, is_answer: bool) {
        match self.stance {
            Stance::Leading { account, .. } => {
                let lost = match self.contact.state {
                    OrdererContact::Reached => false,
                    OrdererContact::Failed => true,
                    OrdererContact::Unknown => now.since(account.since) >= self.lease(),
                };
                let reaches = |member: &Member| member.contact == OrdererContact::Reached;
                if lost && self.members.get(&from).is_some_and(reaches) {
                    self.resign(now, Some(from), false);
                } else {
                    // It did not hear this leader, or lives in a later term.
                    self.assert_leadership(now, counter);
                }
            }
            Stance::Candidate { .. } if self.may_lead(&from) && self.is_better(now, from) => {
                self.defer(now, from)
            }
            Stance::Candidate { .. } => {
                // An answer is not answered: two that both think themselves better would go on without end.
                if !is_answer {
                    let proposal = self.message(now, LeadershipKind::Proposal);
                    let message = Leadership { about: from.0.0.to_vec(), ..proposal };
                    self.outputs.push_back(ElectionOutput::Send { peer: from, message });
                }
            }
            Stance::Settling { .. } | Stance::Leaderless { .. } => {
                if self.is_better(now, from) {
                    if self.may_lead(&from) {
                        self.defer(now, from);
                    }
                } else {
                    self.propose(now);
                }
            }
            Stance::Following { account, .. } => {
                self.doubters.insert(from);
                self.query_leader(now, Term { counter, ..account.term });
            }
            Stance::Static => {}
        }
    }

    fn on_resignation(&mut self, now: Time, from: PkiId, counter: u64, successor: Option<PkiId>) {
        let term = Term { counter, leader: from };
        if self.floor.is_some_and(|floor| floor > term) || matches!(self.stance, Stance::Leading { .. }) {
            return;
        }
        match self.stance {
            Stance::Following { account, .. } if account.term.leader != from => return,
            _ => {}
        }
        let wait = match successor {
            Some(successor) if self.members.contains_key(&successor) => self.config.leader_election_duration,
            _ => Duration::ZERO,
        };
        self.leaderless(now, wait + self.turn(now));
        self.passed_over.insert(from);
        if successor == Some(self.own) {
            let counter = self.counter_highest.max(self.counter_contested).saturating_add(1);
            self.lead(now, counter, Reason::HandedOver);
        }
    }

    fn on_notice(&mut self, now: Time, from: PkiId, term: Term) {
        if term.leader == self.own || self.deposed.contains_key(&term.leader) {
            return;
        }
        if self.floor.is_some_and(|floor| floor > term) {
            if matches!(self.stance, Stance::Leading { .. }) {
                self.send(now, from, LeadershipKind::Declaration);
            }
            return;
        }
        match self.stance {
            Stance::Following { account, .. } if !account.hearsay => return,
            Stance::Static => return,
            _ => {}
        }
        let height = self.members.get(&term.leader).map_or(0, |leader| leader.height);
        let account =
            Account { term, since: now, reason: None, height, orderer_round_trip: None, hearsay: true };
        self.follow(now, account);
    }

    fn on_query(&mut self, now: Time, from: PkiId, counter: u64) {
        match self.stance {
            Stance::Leading { .. } => self.assert_leadership(now, counter),
            Stance::Following { account, .. } if !account.hearsay => {
                self.doubters.insert(from);
            }
            _ => {}
        }
    }

    /// The own leader has lost the orderers: who should go first asks one first.
    fn on_vacancy(&mut self, now: Time, from: PkiId) {
        if let Stance::Following { account, .. } = self.stance
            && account.term.leader == from
            && !matches!(self.errand, Some(Errand::Due(_)))
        {
            self.errand = Some(Errand::Due(now + self.turn(now) * 2));
        }
    }
}

fn about(message: &Leadership) -> Option<PkiId> {
    Digest::try_from(message.about.as_slice()).ok().map(PkiId)
}
