//! Who failed to relay: the leader's memory.
//!
//! # Promise
//! A member that got a block to relay and did not is a leaf for about [`SENTENCE_BLOCKS`] blocks; each further time in a row doubles
//! that. Relaying in time clears it. While there are suspects, members seen to relay in time are relays before others are.
//!
//! # How
//! A member that had to fetch a block tells the leader so. The leader knows its own plan, and so whose fault that was: a reporter
//! whose parent also reports only passes the delay on. A block is judged when all reports should be here;
//! until then the accused are leaves as well, so that the next block does not suffer from them again.
//!
//! # Attacks
//! A reporter can accuse only the member the plan made its parent. Half of a relay's children must agree. Who accuses more than
//! [`ACCUSED_PER_REPORTER_MAX`] members within [`SENTENCE_BLOCKS`] blocks is not listened to, so a liar costs the organisation
//! a few relays at most. A suspect still gets every block.
//!
//! # Bounds
//! [`PLANS_MAX`] plans; suspects, proven relays and reporters are members, and are forgotten when they leave.

use std::collections::{BTreeMap, BTreeSet};

use grapevine_crypto::PkiId;
use rand::{Rng, RngExt};

use super::plan::Plan;
use crate::time::Time;

/// Mean number of blocks a member is a leaf after its first failure.
pub(super) const SENTENCE_BLOCKS: u64 = 50;
/// Most doublings of it.
pub(super) const DOUBLINGS_MAX: u32 = 6;
/// Plans remembered; the oldest is judged when there are more.
pub(super) const PLANS_MAX: usize = 64;
/// Members one reporter may accuse within [`SENTENCE_BLOCKS`] blocks.
pub(super) const ACCUSED_PER_REPORTER_MAX: usize = 6;

#[derive(Debug)]
struct Remembered {
    /// Each relay's children.
    relays: BTreeMap<PkiId, BTreeSet<PkiId>>,
    /// Who reported.
    late: BTreeSet<PkiId>,
    judged_at: Time,
}

#[derive(Debug, Clone, Copy)]
struct Sentence {
    until: u64,
    strikes: u32,
}

/// The memory. See the module's header.
#[derive(Debug, Default)]
pub(super) struct Blame {
    plans: BTreeMap<u64, Remembered>,
    sentences: BTreeMap<PkiId, Sentence>,
    proven: BTreeSet<PkiId>,
    /// Whom each reporter accused, and in which block.
    accusations: BTreeMap<PkiId, BTreeMap<PkiId, u64>>,
}

impl Blame {
    /// A block goes out by this plan; reports are here by `judged_at`.
    pub(super) fn handle_plan(&mut self, number: u64, plan: &Plan, judged_at: Time, rng: &mut impl Rng) {
        let mut relays = BTreeMap::new();
        for place in plan.places.iter().filter(|place| !place.children.is_empty()) {
            let children = place.children.iter().filter_map(|child| plan.places.get(*child));
            relays.insert(place.peer, children.map(|child| child.peer).collect());
        }
        self.plans.insert(number, Remembered { relays, late: BTreeSet::new(), judged_at });
        if self.plans.len() > PLANS_MAX
            && let Some((oldest, remembered)) = self.plans.pop_first()
        {
            self.judge(oldest, &remembered, rng);
        }
    }

    /// A member had to fetch this block.
    pub(super) fn handle_late(&mut self, reporter: PkiId, number: u64) {
        if let Some(remembered) = self.plans.get_mut(&number) {
            // Whoever is in the plan may say so; other names would only fill memory.
            let planned = remembered
                .relays
                .iter()
                .any(|(relay, children)| *relay == reporter || children.contains(&reporter));
            if planned {
                remembered.late.insert(reporter);
            }
        }
    }

    /// A member is gone.
    pub(super) fn handle_gone(&mut self, peer: &PkiId) {
        self.sentences.remove(peer);
        self.proven.remove(peer);
        self.accusations.remove(peer);
    }

    /// Judges the plans that are due.
    pub(super) fn handle_time(&mut self, now: Time, rng: &mut impl Rng) {
        let due: Vec<u64> = self
            .plans
            .iter()
            .filter(|(_, remembered)| remembered.judged_at <= now)
            .map(|(number, _)| *number)
            .collect();
        for number in due {
            if let Some(remembered) = self.plans.remove(&number) {
                self.judge(number, &remembered, rng);
            }
        }
    }

    /// Whom not to let relay block `number`.
    pub(super) fn suspects(&self, number: u64) -> BTreeSet<PkiId> {
        let sentenced = self.sentences.iter().filter(|(_, sentence)| sentence.until > number);
        let mut suspects: BTreeSet<PkiId> = sentenced.map(|(peer, _)| *peer).collect();
        for remembered in self.plans.values().filter(|remembered| !remembered.late.is_empty()) {
            suspects.extend(self.accused(remembered).into_keys());
        }
        suspects
    }

    /// Whether a member has relayed in time since it last failed to.
    pub(super) fn is_proven(&self, peer: &PkiId) -> bool {
        self.proven.contains(peer)
    }

    /// The relays that half of their children hold to have failed, though they did not report themselves, and those children.
    fn accused(&self, remembered: &Remembered) -> BTreeMap<PkiId, Vec<PkiId>> {
        let failed = remembered.relays.iter().filter_map(|(relay, children)| {
            let late: Vec<PkiId> = children.intersection(&remembered.late).copied().collect();
            let heard = late.iter().filter(|reporter| self.is_heard(reporter, relay)).count();
            let guilty = heard > 0 && 2 * heard >= children.len() && !remembered.late.contains(relay);
            guilty.then_some((*relay, late))
        });
        failed.collect()
    }

    fn is_heard(&self, reporter: &PkiId, relay: &PkiId) -> bool {
        self.accusations
            .get(reporter)
            .is_none_or(|accused| accused.contains_key(relay) || accused.len() < ACCUSED_PER_REPORTER_MAX)
    }

    fn judge(&mut self, number: u64, remembered: &Remembered, rng: &mut impl Rng) {
        let accused = self.accused(remembered);
        for (relay, reporters) in &accused {
            let strikes = self.sentences.get(relay).map_or(0, |sentence| sentence.strikes) + 1;
            // Not all at once: those that failed together would come back together.
            let blocks = SENTENCE_BLOCKS << (strikes - 1).min(DOUBLINGS_MAX);
            let until = number + 1 + rng.random_range(blocks / 2..=blocks * 3 / 2);
            self.sentences.insert(*relay, Sentence { until, strikes: strikes.min(DOUBLINGS_MAX + 1) });
            self.proven.remove(relay);
            for reporter in reporters {
                let of_reporter = self.accusations.entry(*reporter).or_default();
                of_reporter.retain(|_, at| *at + SENTENCE_BLOCKS > number);
                of_reporter.insert(*relay, number);
            }
        }
        for (relay, children) in &remembered.relays {
            if children.is_disjoint(&remembered.late) {
                self.sentences.remove(relay);
                self.proven.insert(*relay);
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::dissemination::plan::Place;
    use rand::SeedableRng;
    use rand::rngs::ChaCha8Rng;
    use std::time::Duration;

    fn peer(index: usize) -> PkiId {
        PkiId::new(&"Org1MSP".into(), &format!("peer{index}"))
    }

    fn rng() -> ChaCha8Rng {
        ChaCha8Rng::seed_from_u64(1)
    }

    /// 0 serves 1 and 2, 1 serves 3 and 4, 2 serves 5; 6 serves nobody.
    fn plan() -> Plan {
        let parents = [None, Some(0), Some(0), Some(1), Some(1), Some(2), None];
        let places = parents.iter().enumerate().map(|(index, parent)| Place {
            peer: peer(index),
            parent: *parent,
            arrival: Duration::ZERO,
            children: (0..7).filter(|child| parents.get(*child) == Some(&Some(index))).collect(),
        });
        Plan { roots: vec![0, 6], places: places.collect() }
    }

    fn judged(reports: &[usize]) -> Blame {
        let mut blame = Blame::default();
        round(&mut blame, 1, reports);
        blame
    }

    fn round(blame: &mut Blame, number: u64, reports: &[usize]) {
        blame.handle_plan(number, &plan(), Time::from_millis(number), &mut rng());
        reports.iter().for_each(|reporter| blame.handle_late(peer(*reporter), number));
        blame.handle_time(Time::from_millis(number), &mut rng());
    }

    fn suspects(blame: &Blame, number: u64) -> Vec<PkiId> {
        blame.suspects(number).into_iter().collect()
    }

    #[test]
    fn who_did_not_relay_is_a_leaf_for_a_while() {
        let blame = judged(&[3, 4]);
        assert_eq!(suspects(&blame, 2), vec![peer(1)]);
        assert_eq!(suspects(&blame, 2 + SENTENCE_BLOCKS / 2 - 1), vec![peer(1)]);
        assert_eq!(suspects(&blame, 2 + SENTENCE_BLOCKS * 2), vec![]);
        assert!(blame.is_proven(&peer(0)) && blame.is_proven(&peer(2)) && !blame.is_proven(&peer(1)));
        assert!(!blame.is_proven(&peer(6)), "a leaf proves nothing");
    }

    #[test]
    fn who_was_late_itself_is_not_to_blame() {
        let blame = judged(&[1, 2, 3, 4, 5]);
        assert_eq!(suspects(&blame, 2), vec![peer(0)]);
    }

    #[test]
    fn before_the_judgement_the_accused_are_leaves_already() {
        let mut blame = Blame::default();
        blame.handle_plan(1, &plan(), Time::from_millis(9), &mut rng());
        blame.handle_late(peer(5), 1);
        assert_eq!(suspects(&blame, 2), vec![peer(2)]);
        blame.handle_late(peer(2), 1);
        assert_eq!(suspects(&blame, 2), vec![peer(0)], "half of its children: it is the one above");
    }

    #[test]
    fn failing_again_doubles_and_relaying_clears() {
        let mut blame = judged(&[3, 4]);
        round(&mut blame, 200, &[3, 4]);
        assert_eq!(suspects(&blame, 201 + SENTENCE_BLOCKS - 1), vec![peer(1)]);
        round(&mut blame, 500, &[]);
        assert_eq!(suspects(&blame, 501), vec![]);
        round(&mut blame, 501, &[3, 4]);
        assert_eq!(suspects(&blame, 502 + SENTENCE_BLOCKS * 3 / 2), vec![], "the first failure again");
    }

    #[test]
    fn one_of_many_children_convicts_nobody() {
        let mut blame = Blame::default();
        let mut wide = plan();
        wide.places[0].children = vec![1, 2, 6];
        blame.handle_plan(1, &wide, Time::ZERO, &mut rng());
        blame.handle_late(peer(6), 1);
        blame.handle_late(peer(9), 1);
        assert_eq!(suspects(&blame, 2), vec![]);
        blame.handle_time(Time::ZERO, &mut rng());
        assert_eq!(suspects(&blame, 2), vec![]);
    }

    #[test]
    fn who_accuses_too_many_is_not_listened_to() {
        let mut blame = Blame::default();
        for number in 0..20 {
            let mut plan = plan();
            plan.places[2].peer = peer(100 + number as usize);
            blame.handle_plan(number, &plan, Time::ZERO, &mut rng());
            blame.handle_late(peer(5), number);
            blame.handle_time(Time::ZERO, &mut rng());
        }
        assert_eq!(suspects(&blame, 20).len(), ACCUSED_PER_REPORTER_MAX);
    }

    #[test]
    fn what_is_remembered_is_bounded() {
        let mut blame = Blame::default();
        for number in 0..3 * PLANS_MAX as u64 {
            blame.handle_plan(number, &plan(), Time::from_millis(1_000_000), &mut rng());
            (0..50).for_each(|reporter| blame.handle_late(peer(reporter), number));
        }
        assert_eq!(blame.plans.len(), PLANS_MAX);
        assert!(blame.plans.values().all(|remembered| remembered.late.len() <= 6));
        (0..7).for_each(|index| blame.handle_gone(&peer(index)));
        assert!(blame.sentences.is_empty() && blame.accusations.is_empty());
    }
}
