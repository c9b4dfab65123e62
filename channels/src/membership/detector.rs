//! Failure detection: who is silent, who only seems so to us.
//!
//! # Promise
//! A member that stops is suspected by its watchers within [`DetectorConfig::interval`] + [`DetectorConfig::timeout`], by everybody
//! one timeout later, and dead for each of them [`DetectorConfig::suspicion`] after that, unless somebody hears it. An accusation
//! makes its receivers look for themselves and nothing else: who hears the accused ignores it. So neither a slow
//! observer nor a liar can declare a healthy member dead to others.
//!
//! # How
//! Any frame from a connected peer shows that it lives. A peer watches the [`WATCHED`] connected members that follow
//! it in the order of PKI-IDs, and every tracked member without a connection ([`UNCONNECTED_PER_ROUND`] of them a
//! round): once an interval who was silent is pinged, without a connection through [`HELPERS`] others. Silence for a
//! timeout makes a suspect: it is accused before all connected members, itself among them, so that it can refute
//! by a newer record, and helpers are asked to look (SWIM). A connection that ends makes a suspect at once.
//!
//! # Local health (Lifeguard)
//! A peer that was suspected itself, or whose suspects turned out alive, waits longer: timeouts grow by its health
//! score, [`HEALTH_MAX`] at most, and shrink as probes succeed. A peer that woke late (its process or machine stood
//! still) forgets its open questions and judges nobody for [`REST`]: what it missed is still in its queues.
//!
//! # Bounds
//! One entry for each tracked member; [`ACCUSERS_MAX`] accusers of each are remembered; [`ERRANDS_MAX`] questions of others are open,
//! more are ignored.

use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::ops::Bound;
use std::time::Duration;

use grapevine_crypto::PkiId;
use rand::rngs::ChaCha8Rng;
use rand::seq::IteratorRandom;

use crate::time::{Time, earliest};

/// Connected members that each peer watches.
pub(super) const WATCHED: usize = 2;
/// Members without a connection that are looked for in one round.
pub(super) const UNCONNECTED_PER_ROUND: usize = 8;
/// Members that are asked to look for a silent one (SWIM: 3).
pub(super) const HELPERS: usize = 3;
/// Most accusers of one member that are remembered.
pub(super) const ACCUSERS_MAX: usize = 8;
/// Most questions of others open at a time.
pub(super) const ERRANDS_MAX: usize = 64;
/// The worst local health (Lifeguard: 8).
pub(super) const HEALTH_MAX: u32 = 8;
/// A peer that wakes later than this has stood still.
pub(super) const STALL: Duration = Duration::from_millis(250);
/// How long a peer that stood still judges nobody.
pub(super) const REST: Duration = Duration::from_secs(2);

#[derive(Debug, Clone)]
pub(super) struct DetectorConfig {
    /// Time between two looks at each watched member.
    pub(super) interval: Duration,
    /// Silence after a ping that makes a suspect.
    pub(super) timeout: Duration,
    /// How long a suspect may refute.
    pub(super) suspicion: Duration,
}

/// What the detector wants done or known.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Finding {
    /// Send a ping.
    Ping(PkiId),
    /// Ask a connected member to look for another.
    Ask { helper: PkiId, subject: PkiId },
    /// Tell who asked that the subject was heard.
    Answer { to: PkiId, subject: PkiId },
    /// Tell all connected members that the subject is silent.
    Accuse(PkiId),
    /// The member is suspected now.
    Suspect(PkiId),
    /// It is no longer.
    Cleared(PkiId),
    /// It is dead.
    Dead(PkiId),
}

#[derive(Debug)]
struct Tracked {
    connected: bool,
    heard: Time,
    /// Look without a connection too.
    always: bool,
    /// Since when an answer is awaited.
    pinged: Option<Time>,
    suspicion: Option<Suspicion>,
}

#[derive(Debug)]
struct Suspicion {
    ends: Time,
    accusers: BTreeSet<PkiId>,
}

#[derive(Debug)]
pub(super) struct Detector {
    own: PkiId,
    config: DetectorConfig,
    tracked: BTreeMap<PkiId, Tracked>,
    /// Members that are pinged, or suspected: those with a deadline of their own.
    pending: BTreeSet<PkiId>,
    /// Questions of others: who asked for whom, until when.
    errands: BTreeMap<(PkiId, PkiId), Time>,
    next_round: Time,
    unconnected_after: Option<PkiId>,
    health: u32,
    resting_until: Time,
    rng: ChaCha8Rng,
    findings: VecDeque<Finding>,
}

impl Detector {
    pub(super) fn new(own: PkiId, config: DetectorConfig, now: Time, rng: ChaCha8Rng) -> Self {
        Self {
            own,
            next_round: now + config.interval,
            config,
            tracked: BTreeMap::new(),
            pending: BTreeSet::new(),
            errands: BTreeMap::new(),
            unconnected_after: None,
            health: 0,
            resting_until: now,
            rng,
            findings: VecDeque::new(),
        }
    }

    /// A member is alive as of now, by a record; `always`: look for it without a connection, too.
    pub(super) fn track(&mut self, now: Time, peer: PkiId, connected: bool, always: bool) {
        let fresh = Tracked { connected, heard: now, always, pinged: None, suspicion: None };
        let tracked = self.tracked.entry(peer).or_insert(fresh);
        (tracked.connected, tracked.always) = (connected, always);
        self.heard(now, peer);
    }

    /// A member is dead or forgotten.
    pub(super) fn untrack(&mut self, peer: &PkiId) {
        self.tracked.remove(peer);
        self.pending.remove(peer);
    }

    pub(super) fn connected(&mut self, now: Time, peer: PkiId) {
        if let Some(tracked) = self.tracked.get_mut(&peer) {
            tracked.connected = true;
        }
        self.heard(now, peer);
    }

    /// A connection ended: most often the peer has.
    pub(super) fn disconnected(&mut self, now: Time, peer: PkiId) {
        if let Some(tracked) = self.tracked.get_mut(&peer) {
            tracked.connected = false;
            if tracked.always {
                self.suspect(now, peer);
            }
        }
        self.errands.retain(|(asker, _), _| *asker != peer);
    }

    /// A frame came from a member, or a newer record of it.
    pub(super) fn heard(&mut self, now: Time, peer: PkiId) {
        let Some(tracked) = self.tracked.get_mut(&peer) else { return };
        tracked.heard = now;
        let answered = tracked.pinged.take().is_some();
        let suspicion = tracked.suspicion.take();
        if answered || suspicion.is_some() {
            self.pending.remove(&peer);
        }
        if suspicion.is_some() {
            self.findings.push_back(Finding::Cleared(peer));
        } else if answered {
            self.health = self.health.saturating_sub(1);
        }
        if !self.errands.is_empty() {
            let asked: Vec<PkiId> =
                self.errands.keys().filter(|(_, of)| *of == peer).map(|(by, _)| *by).collect();
            for to in asked {
                self.errands.remove(&(to, peer));
                self.findings.push_back(Finding::Answer { to, subject: peer });
            }
        }
    }

    /// A helper that was asked has heard a member. If this peer was about to give it up, the fault is rather its own.
    pub(super) fn answered(&mut self, now: Time, subject: PkiId) {
        if !self.pending.contains(&subject) {
            return;
        }
        let connected = self.tracked.get(&subject).is_some_and(|tracked| tracked.connected);
        if connected {
            self.health = (self.health + 1).min(HEALTH_MAX);
        }
        self.heard(now, subject);
    }

    /// This peer itself was suspected by others.
    pub(super) fn was_suspected(&mut self) {
        self.health = (self.health + 1).min(HEALTH_MAX);
    }

    /// A connected member says that another is silent: a reason to look.
    pub(super) fn accused(&mut self, now: Time, by: PkiId, subject: PkiId) {
        let fresh = self.config.timeout;
        let Some(tracked) = self.tracked.get_mut(&subject) else { return };
        if let Some(suspicion) = &mut tracked.suspicion {
            if suspicion.accusers.len() < ACCUSERS_MAX {
                suspicion.accusers.insert(by);
            }
            return;
        }
        if tracked.pinged.is_none() && now.since(tracked.heard) >= fresh {
            self.look(now, subject);
        }
    }

    /// A connected member asks to look for another.
    pub(super) fn asked(&mut self, now: Time, by: PkiId, subject: PkiId) {
        let fresh = self.config.timeout;
        let Some(tracked) = self.tracked.get(&subject).filter(|tracked| tracked.connected) else { return };
        if now.since(tracked.heard) < fresh {
            self.findings.push_back(Finding::Answer { to: by, subject });
        } else if self.errands.len() < ERRANDS_MAX {
            self.errands.insert((by, subject), now + self.config.interval);
            self.findings.push_back(Finding::Ping(subject));
        }
    }

    /// Asks a member, or helpers if it is not connected, for a sign of life.
    fn look(&mut self, now: Time, peer: PkiId) {
        let Some(tracked) = self.tracked.get_mut(&peer) else { return };
        tracked.pinged = Some(now);
        self.pending.insert(peer);
        if tracked.connected {
            self.findings.push_back(Finding::Ping(peer));
        } else {
            self.ask_helpers(peer);
        }
    }

    fn ask_helpers(&mut self, subject: PkiId) {
        let able = self
            .tracked
            .iter()
            .filter(|(peer, tracked)| **peer != subject && tracked.connected && tracked.suspicion.is_none())
            .map(|(peer, _)| *peer);
        for helper in able.sample(&mut self.rng, HELPERS) {
            self.findings.push_back(Finding::Ask { helper, subject });
        }
    }

    fn suspect(&mut self, now: Time, peer: PkiId) {
        let ends = now.max(self.resting_until) + self.patience(self.config.suspicion);
        let Some(tracked) = self.tracked.get_mut(&peer).filter(|tracked| tracked.suspicion.is_none()) else {
            return;
        };
        tracked.pinged = None;
        tracked.suspicion = Some(Suspicion { ends, accusers: BTreeSet::from([self.own]) });
        self.pending.insert(peer);
        self.findings.push_back(Finding::Suspect(peer));
        self.findings.push_back(Finding::Accuse(peer));
        self.ask_helpers(peer);
    }

    fn patience(&self, time: Duration) -> Duration {
        time.mul_f64(1.0 + f64::from(self.health) / 2.0)
    }

    /// This peer stood still until now.
    pub(super) fn stalled(&mut self, now: Time) {
        self.resting_until = now + REST;
        self.errands.clear();
        let earliest_end = now + REST;
        for tracked in self.tracked.values_mut() {
            tracked.pinged = None;
            tracked.heard = now;
            if let Some(suspicion) = &mut tracked.suspicion {
                suspicion.ends = suspicion.ends.max(earliest_end);
            }
        }
        self.pending.retain(|peer| self.tracked.get(peer).is_some_and(|tracked| tracked.suspicion.is_some()));
    }

    pub(super) fn handle_timeout(&mut self, now: Time) {
        let timeout = self.patience(self.config.timeout);
        let pending: Vec<PkiId> = self.pending.iter().copied().collect();
        for peer in pending {
            let Some(tracked) = self.tracked.get(&peer) else { continue };
            if tracked.suspicion.as_ref().is_some_and(|suspicion| suspicion.ends <= now) {
                self.untrack(&peer);
                self.findings.push_back(Finding::Dead(peer));
            } else if tracked.pinged.is_some_and(|at| at + timeout <= now) {
                self.suspect(now, peer);
            }
        }
        if self.next_round <= now {
            self.next_round = now + self.config.interval;
            self.errands.retain(|_, until| *until > now);
            if self.resting_until <= now {
                self.round(now);
            }
        }
    }

    /// Looks at all that are watched and were silent for an interval.
    fn round(&mut self, now: Time) {
        let is_watchable = |tracked: &Tracked| tracked.connected && tracked.suspicion.is_none();
        let after = self.tracked.range((Bound::Excluded(self.own), Bound::Unbounded));
        let ring = after.chain(self.tracked.range(..self.own)).filter(|(_, tracked)| is_watchable(tracked));
        let mut silent: Vec<PkiId> = ring
            .take(WATCHED)
            .filter(|(_, tracked)| {
                tracked.pinged.is_none() && now.since(tracked.heard) >= self.config.timeout
            })
            .map(|(peer, _)| *peer)
            .collect();
        let from = self.unconnected_after.map_or(Bound::Unbounded, Bound::Excluded);
        let lost = |tracked: &Tracked| {
            tracked.always && !tracked.connected && tracked.pinged.is_none() && tracked.suspicion.is_none()
        };
        let unconnected = self.tracked.range((from, Bound::Unbounded));
        let unconnected: Vec<PkiId> = unconnected
            .filter(|(_, tracked)| lost(tracked) && now.since(tracked.heard) >= self.config.interval)
            .map(|(peer, _)| *peer)
            .take(UNCONNECTED_PER_ROUND)
            .collect();
        self.unconnected_after = unconnected.last().copied();
        silent.extend(unconnected);
        for peer in silent {
            self.look(now, peer);
        }
    }

    pub(super) fn next_deadline(&self) -> Option<Time> {
        let timeout = self.patience(self.config.timeout);
        let pending = self.pending.iter().filter_map(|peer| {
            let tracked = self.tracked.get(peer)?;
            earliest(
                tracked.pinged.map(|at| at + timeout),
                tracked.suspicion.as_ref().map(|suspicion| suspicion.ends),
            )
        });
        earliest((!self.tracked.is_empty()).then_some(self.next_round), pending.min())
    }

    pub(super) fn poll(&mut self) -> Option<Finding> {
        self.findings.pop_front()
    }

    /// Who says that a member is silent; nobody if it is not suspected.
    pub(super) fn accusers(&self, peer: &PkiId) -> impl Iterator<Item = &PkiId> {
        let suspicion = self.tracked.get(peer).and_then(|tracked| tracked.suspicion.as_ref());
        suspicion.into_iter().flat_map(|suspicion| &suspicion.accusers)
    }

    /// How far this peer distrusts itself, 0 to [`HEALTH_MAX`].
    pub(super) fn health(&self) -> u32 {
        self.health
    }
}
