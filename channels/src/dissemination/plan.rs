//! The delivery plan of one block: who gets it from whom, and when.
//!
//! # Promise
//! Each target stands in the plan exactly once. The root has at most [`Terms::root_children_max`] children, everybody else at
//! most [`Terms::children_max`], and only members that may relay have any. When there is not room for all under these
//! bounds, the root takes the rest upon itself. Each plan is drawn afresh, so the work of relaying goes round.
//!
//! # How
//! Broadcast in the postal model (Bar-Noy and Kipnis 1994) is optimal when whoever holds the block and is free first sends it to the next
//! target: one heap of (when free, who). Links make the targets' order matter: relays should be near, and what is far
//! should be sent first. So the nearest share of the members, shuffled, comes first and alone may relay; the rest follows,
//! farthest first. Four shares are tried, and the plan whose last arrival is earliest is kept. When sending is cheap against
//! latency this gives a star, with no case of its own.
//!
//! Costs O(N log N).

use std::cmp::Reverse;
use std::collections::BinaryHeap;
use std::time::Duration;

use grapevine_crypto::PkiId;
use rand::Rng;
use rand::seq::SliceRandom;

/// Shares of the members that are tried as relays, in percent.
const RELAY_SHARES: [usize; 4] = [15, 25, 50, 100];

/// A member that is to get the block.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Target {
    /// Who.
    pub peer: PkiId,
    /// The root's round trip to it.
    pub round_trip: Duration,
    /// Whether others may get the block from it.
    pub may_relay: bool,
    /// Whether it has lately been seen to relay in time: such members relay before others.
    pub proven: bool,
}

/// What a plan reckons with.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Terms {
    /// Time the block takes through a link.
    pub transfer: Duration,
    /// Time a relay needs to verify it.
    pub verify: Duration,
    /// Most children of the root.
    pub root_children_max: usize,
    /// Most children of everybody else.
    pub children_max: usize,
}

/// One target's place in the plan.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Place {
    /// Who.
    pub peer: PkiId,
    /// The place of who sends it the block; `None`: the root does.
    pub parent: Option<usize>,
    /// When the block should have arrived, from the start on.
    pub arrival: Duration,
    /// The places it serves, in order.
    pub children: Vec<usize>,
}

/// Who gets the block from whom.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(super) struct Plan {
    /// The places the root serves, in order.
    pub roots: Vec<usize>,
    /// All targets.
    pub places: Vec<Place>,
}

impl Plan {
    /// When the last arrives.
    pub(super) fn last_arrival(&self) -> Duration {
        self.places.iter().map(|place| place.arrival).max().unwrap_or_default()
    }
}

/// Draws a plan for `targets`.
pub(super) fn plan(targets: &[Target], terms: &Terms, rng: &mut impl Rng) -> Plan {
    let mut relays: Vec<&Target> = targets.iter().filter(|target| target.may_relay).collect();
    relays.sort_by_key(|target| (!target.proven, target.round_trip, target.peer));
    let mut best = None;
    let mut tried = None;
    for share in RELAY_SHARES {
        let count = (targets.len() * share).div_ceil(100).min(relays.len());
        if tried.replace(count) == Some(count) {
            continue;
        }
        let (near, far) = relays.split_at(count);
        let candidate = postal(&order(near, far, targets, rng), count, terms);
        if best.as_ref().is_none_or(|best: &Plan| candidate.last_arrival() < best.last_arrival()) {
            best = Some(candidate);
        }
    }
    best.unwrap_or_default()
}

/// Relays first, in random order, the proven before the others; then the rest, farthest first, and last those that may not relay.
fn order<'a>(
    near: &[&'a Target],
    far: &[&'a Target],
    targets: &'a [Target],
    rng: &mut impl Rng,
) -> Vec<&'a Target> {
    let mut order = near.to_vec();
    let proven = order.iter().take_while(|target| target.proven).count();
    let (proven, others) = order.split_at_mut(proven);
    proven.shuffle(rng);
    others.shuffle(rng);
    let farthest_first = |target: &&Target| (Reverse(target.round_trip), target.peer);
    let mut rest = far.to_vec();
    rest.sort_by_key(farthest_first);
    order.extend(rest);
    let mut never: Vec<&Target> = targets.iter().filter(|target| !target.may_relay).collect();
    never.sort_by_key(farthest_first);
    order.extend(never);
    order
}

/// The first `relays` of `order` may have children.
fn postal(order: &[&Target], relays: usize, terms: &Terms) -> Plan {
    const ROOT: usize = usize::MAX;
    let mut plan = Plan { roots: Vec::new(), places: Vec::with_capacity(order.len()) };
    // Who is free when; of two that are free at once the root goes first, then who has had the block longer.
    let mut free: BinaryHeap<Reverse<(Duration, usize)>> = BinaryHeap::new();
    if terms.root_children_max > 0 {
        free.push(Reverse((Duration::ZERO, 0)));
    }
    let mut root_free = Duration::ZERO;
    for (index, target) in order.iter().enumerate() {
        // Heap entries are places shifted by one, so that 0 is the root.
        let (at, giver) = free
            .pop()
            .map_or((root_free, ROOT), |Reverse((at, entry))| (at, entry.checked_sub(1).unwrap_or(ROOT)));
        let sent = at + terms.transfer;
        let (parent, latency) = match order.get(giver) {
            Some(relay) => (Some(giver), between(relay.round_trip, target.round_trip)),
            None => (None, target.round_trip / 2),
        };
        let arrival = sent + latency;
        plan.places.push(Place { peer: target.peer, parent, arrival, children: Vec::new() });
        match parent.and_then(|parent| plan.places.get_mut(parent)) {
            Some(place) => {
                place.children.push(index);
                if place.children.len() < terms.children_max {
                    free.push(Reverse((sent, giver + 1)));
                }
            }
            None => {
                plan.roots.push(index);
                root_free = sent;
                if plan.roots.len() < terms.root_children_max {
                    free.push(Reverse((sent, 0)));
                }
            }
        }
        if index < relays && terms.children_max > 0 {
            free.push(Reverse((arrival + terms.verify, index + 1)));
        }
    }
    plan
}

/// The latency between two members, of which only the way to the root is known: as if they were seen at a right angle.
fn between(one: Duration, other: Duration) -> Duration {
    Duration::from_secs_f64(one.as_secs_f64().hypot(other.as_secs_f64()) / 2.0)
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;
    use rand::SeedableRng;
    use rand::rngs::ChaCha8Rng;

    fn target(index: usize, round_trip_micros: u64) -> Target {
        Target {
            peer: PkiId::new(&"Org1MSP".into(), &format!("peer{index}")),
            round_trip: Duration::from_micros(round_trip_micros),
            may_relay: true,
            proven: false,
        }
    }

    fn lan(count: usize) -> Vec<Target> {
        (0..count).map(|index| target(index, 500)).collect()
    }

    fn terms(bytes: usize, root_children_max: usize, children_max: usize) -> Terms {
        let verify = Duration::from_micros(300) + Duration::from_nanos(bytes as u64);
        Terms { transfer: Duration::from_nanos(bytes as u64 * 8), verify, root_children_max, children_max }
    }

    fn drawn(targets: &[Target], terms: &Terms, seed: u64) -> Plan {
        plan(targets, terms, &mut ChaCha8Rng::seed_from_u64(seed))
    }

    /// Last arrival ÷ (transfer + latency).
    fn over_limit(plan: &Plan, terms: &Terms) -> f64 {
        let limit = terms.transfer + Duration::from_micros(250);
        plan.last_arrival().as_secs_f64() / limit.as_secs_f64()
    }

    #[test]
    fn on_a_lan_the_plan_is_the_postal_optimum() {
        for (peers, floor) in [(5, 3.0), (20, 5.2), (100, 7.8), (1_000, 11.3)] {
            let terms = terms(160_000, 64, 8);
            let last = over_limit(&drawn(&lan(peers - 1), &terms, 1), &terms);
            assert!(last < floor, "{peers} peers: {last}");
        }
    }

    #[test]
    fn where_latency_rules_the_plan_is_a_star() {
        let far: Vec<Target> = (0..19).map(|index| target(index, 40_000 + 4_000 * index as u64)).collect();
        let plan = drawn(&far, &terms(10_000, 64, 8), 1);
        assert_eq!(plan.roots.len(), 19);
        assert!(plan.places.iter().all(|place| place.parent.is_none()));
    }

    #[test]
    fn relays_differ_from_block_to_block() {
        let terms = terms(160_000, 8, 8);
        let relays: std::collections::BTreeSet<Vec<PkiId>> = (0..10)
            .map(|seed| {
                let plan = drawn(&lan(19), &terms, seed);
                plan.roots.iter().filter_map(|root| plan.places.get(*root)).map(|place| place.peer).collect()
            })
            .collect();
        assert_eq!(relays.len(), 10);
    }

    #[test]
    fn suspects_relay_to_nobody_and_the_proven_relay_first() {
        let mut targets = lan(99);
        for suspect in targets.iter_mut().take(20) {
            suspect.may_relay = false;
        }
        for proven in targets.iter_mut().skip(80) {
            proven.proven = true;
        }
        let terms = terms(160_000, 8, 8);
        let plan = drawn(&targets, &terms, 1);
        let relays: Vec<PkiId> =
            plan.places.iter().filter(|place| !place.children.is_empty()).map(|place| place.peer).collect();
        assert!(targets.iter().take(20).all(|suspect| !relays.contains(&suspect.peer)));
        assert!(targets.iter().skip(80).all(|proven| relays.contains(&proven.peer)));
        assert!(over_limit(&plan, &terms) < 7.9, "twenty leaves cost nothing");
    }

    #[test]
    fn nobody_to_relay_leaves_it_to_the_root() {
        let mut targets = lan(10);
        targets.iter_mut().for_each(|target| target.may_relay = false);
        assert_eq!(drawn(&targets, &terms(1_000, 4, 8), 1).roots.len(), 10);
        assert_eq!(drawn(&lan(10), &terms(1_000, 4, 0), 1).roots.len(), 10);
        assert_eq!(drawn(&[], &terms(1_000, 4, 8), 1), Plan::default());
    }

    proptest! {
        #[test]
        fn each_target_once_and_children_bounded(
            round_trips in proptest::collection::vec((0u64..200_000, any::<bool>(), any::<bool>()), 0..200),
            bytes in 1usize..4_000_000,
            root_children_max in 0usize..70,
            children_max in 0usize..20,
            seed: u64,
        ) {
            let targets: Vec<Target> = round_trips
                .iter()
                .enumerate()
                .map(|(index, (micros, may_relay, proven))| Target {
                    may_relay: *may_relay,
                    proven: *proven,
                    ..target(index, *micros)
                })
                .collect();
            let terms = terms(bytes, root_children_max, children_max);
            let plan = drawn(&targets, &terms, seed);
            let mut named: Vec<PkiId> = plan.places.iter().map(|place| place.peer).collect();
            named.sort();
            let mut wanted: Vec<PkiId> = targets.iter().map(|target| target.peer).collect();
            wanted.sort();
            prop_assert_eq!(named, wanted);
            // The root takes more than its share only when every relay of the share that was tried is full, and then no more than is left.
            if plan.roots.len() > root_children_max.max(1) {
                let relays = targets.iter().filter(|target| target.may_relay).count();
                let relaying = plan.places.iter().filter(|place| !place.children.is_empty());
                prop_assert!(relaying.clone().all(|place| place.children.len() == children_max));
                let relaying = relaying.count();
                prop_assert_eq!(plan.roots.len(), targets.len() - relaying * children_max);
                let least = (targets.len() * RELAY_SHARES[0]).div_ceil(100).min(relays);
                prop_assert!(children_max == 0 || relaying >= least);
            }
            let mut served = vec![0usize; plan.places.len()];
            for (index, place) in plan.places.iter().enumerate() {
                prop_assert!(place.children.len() <= children_max);
                let may_relay = targets.iter().any(|target| target.peer == place.peer && target.may_relay);
                prop_assert!(may_relay || place.children.is_empty());
                for child in &place.children {
                    served[*child] += 1;
                    prop_assert_eq!(plan.places[*child].parent, Some(index));
                    prop_assert!(plan.places[*child].arrival >= place.arrival + terms.transfer);
                }
            }
            plan.roots.iter().for_each(|root| served[*root] += 1);
            prop_assert!(served.iter().all(|times| *times == 1), "each is served once, by one");
            prop_assert_eq!(drawn(&targets, &terms, seed), plan, "the same seed gives the same plan");
        }
    }
}
