//! Which endpoints to dial, and when.
//!
//! Permanent endpoints (bootstrap, anchors) are dialled until the peer behind them is connected, and never forgotten;
//! endpoints of members while these are known and not connected. One endpoint is dialled at most once per interval,
//! after failures at longer ones, up to [`BACKOFF_FACTOR_MAX`] times the interval. Bounded by the permanent lists and the
//! members known.

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use grapevine_crypto::PkiId;

use crate::time::Time;

/// Longest wait between two dials of one endpoint, in intervals.
const BACKOFF_FACTOR_MAX: u32 = 8;
/// Failures in a row after which nobody is expected at a permanent endpoint for now. Not the first: of peers that start together
/// some dial before the others listen.
const FAILURES_EXPECTED: u32 = 2;

#[derive(Debug)]
struct Target {
    next: Time,
    failures: u32,
    /// The member that advertises the endpoint, if it is known; forgotten with it.
    member: Option<PkiId>,
}

#[derive(Debug)]
pub(super) struct Dialer {
    interval: Duration,
    own_endpoints: BTreeSet<String>,
    permanent: BTreeMap<&'static str, BTreeSet<String>>,
    targets: BTreeMap<String, Target>,
    /// Endpoints whose peer is connected, and who that is.
    reached: BTreeMap<String, PkiId>,
}

impl Dialer {
    pub(super) fn new(interval: Duration, own_endpoints: BTreeSet<String>) -> Self {
        Self {
            interval,
            own_endpoints,
            permanent: BTreeMap::new(),
            targets: BTreeMap::new(),
            reached: BTreeMap::new(),
        }
    }

    /// Replaces one list of permanent endpoints; own endpoints are left out.
    pub(super) fn set_permanent(&mut self, list: &'static str, endpoints: BTreeSet<String>, now: Time) {
        let endpoints: BTreeSet<String> =
            endpoints.into_iter().filter(|endpoint| !self.own_endpoints.contains(endpoint)).collect();
        for endpoint in &endpoints {
            if !self.reached.contains_key(endpoint) {
                self.targets.entry(endpoint.clone()).or_insert(Target {
                    next: now,
                    failures: 0,
                    member: None,
                });
            }
        }
        self.permanent.insert(list, endpoints);
        let permanent: BTreeSet<&String> = self.permanent.values().flatten().collect();
        self.targets.retain(|endpoint, target| target.member.is_some() || permanent.contains(endpoint));
    }

    /// Whether somebody may still be found at a permanent endpoint: nobody has answered there yet, and it has not failed
    /// for good either.
    pub(super) fn is_seeking(&self) -> bool {
        let untried = |endpoint| {
            self.targets.get(endpoint).is_some_and(|target: &Target| target.failures < FAILURES_EXPECTED)
        };
        self.permanent.values().flatten().any(untried)
    }

    pub(super) fn is_permanent(&self, endpoint: &str) -> bool {
        self.permanent.values().any(|list| list.contains(endpoint))
    }

    /// A member is not connected: dial it at once, or one interval later.
    pub(super) fn want(&mut self, member: PkiId, endpoint: &str, at_once: bool, now: Time) {
        if self.own_endpoints.contains(endpoint) {
            return;
        }
        match self.targets.get_mut(endpoint) {
            Some(target) => target.member = Some(member),
            None => {
                let next = if at_once { now } else { now + self.interval };
                self.targets.insert(endpoint.to_owned(), Target { next, failures: 0, member: Some(member) });
            }
        }
    }

    /// The peer behind an endpoint is connected: it answered there, or advertises it.
    pub(super) fn reached(&mut self, endpoint: &str, peer: PkiId) {
        self.targets.remove(endpoint);
        self.reached.insert(endpoint.to_owned(), peer);
    }

    /// A connection ended: its permanent endpoints are dialled again.
    pub(super) fn lost(&mut self, peer: PkiId, now: Time) {
        let lost: Vec<String> = self
            .reached
            .iter()
            .filter(|(_, reached)| **reached == peer)
            .map(|(endpoint, _)| endpoint.clone())
            .collect();
        for endpoint in lost {
            self.reached.remove(&endpoint);
        }
        for endpoint in self.permanent.values().flatten() {
            if !self.reached.contains_key(endpoint) {
                self.targets.entry(endpoint.clone()).or_insert(Target {
                    next: now,
                    failures: 0,
                    member: None,
                });
            }
        }
    }

    /// A dial failed: the member that advertises the endpoint, and how often it failed in a row.
    pub(super) fn failed(&mut self, endpoint: &str, now: Time) -> Option<(Option<PkiId>, u32)> {
        let target = self.targets.get_mut(endpoint)?;
        target.failures = target.failures.saturating_add(1);
        let factor = 2u32.saturating_pow(target.failures.saturating_sub(1)).min(BACKOFF_FACTOR_MAX);
        target.next = now + self.interval * factor;
        Some((target.member, target.failures))
    }

    /// A member showed life: its endpoint is worth dialling without backoff.
    pub(super) fn forgive(&mut self, member: &PkiId) {
        for target in self.targets.values_mut().filter(|target| target.member == Some(*member)) {
            target.failures = 0;
        }
    }

    pub(super) fn forget(&mut self, member: &PkiId) {
        let permanent: BTreeSet<&String> = self.permanent.values().flatten().collect();
        self.targets
            .retain(|endpoint, target| target.member != Some(*member) || permanent.contains(endpoint));
    }

    /// The endpoints to dial now; each is due again one interval later at the earliest.
    pub(super) fn due(&mut self, now: Time) -> Vec<String> {
        let mut due = Vec::new();
        for (endpoint, target) in &mut self.targets {
            if target.next <= now {
                target.next =
                    now + self.interval * 2u32.saturating_pow(target.failures).min(BACKOFF_FACTOR_MAX);
                due.push(endpoint.clone());
            }
        }
        due
    }

    pub(super) fn next_deadline(&self) -> Option<Time> {
        self.targets.values().map(|target| target.next).min()
    }
}
