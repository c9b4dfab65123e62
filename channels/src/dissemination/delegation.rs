//! The part of a plan that travels in a push: made by the leader, peeled and checked by every relay.
//!
//! # Promise
//! Out of any bytes come at most `children_max` branches of distinct peers that this peer knows as members of the channel in its own
//! organisation, none of them this peer itself; every name in a branch's own delegation stood in the delegation received, once.
//! Names it does not know are skipped, and what they were to serve goes to others; what is over the bound of children goes below them.
//!
//! # Attacks
//! A relay can lie about the rest of the plan. It can leave members out or send them down a long way: they repair it after the
//! arrival the leader promised them. It can't make a peer send a block outside the channel, twice to one member, or to
//! more than `children_max`.

use std::collections::BTreeSet;

use bytes::{BufMut, Bytes, BytesMut};
use grapevine_crypto::PkiId;

use super::plan::Plan;
use crate::wire::{Delegation, MEMBER_PREFIX_SIZE};

/// Names a member in a delegation.
pub(super) type Prefix = [u8; MEMBER_PREFIX_SIZE];

/// The name of a member in delegations.
pub(super) fn prefix(peer: &PkiId) -> Prefix {
    peer.0.0.first_chunk().copied().unwrap_or_default()
}

/// A delegation that no relay can act on.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub(super) enum BadDelegation {
    /// A tree is empty or reaches beyond the list.
    #[error("tree sizes that do not fit the list")]
    Sizes,
    /// A member is named twice.
    #[error("a member named twice")]
    Twice,
}

/// A peer to push to, and what it is to do.
#[derive(Debug, Clone, PartialEq)]
pub(super) struct Branch {
    /// Who.
    pub(super) peer: PkiId,
    /// Whom it serves.
    pub(super) delegation: Delegation,
}

/// The branches of the leader's plan, with `heads` announcers shared out among them, the first branches first.
pub(super) fn of_plan(plan: &Plan, heads: u32) -> Vec<Branch> {
    let mut branches: Vec<Branch> = plan
        .roots
        .iter()
        .filter_map(|root| {
            let mut list = List::default();
            let place = plan.places.get(*root)?;
            place.children.iter().for_each(|child| list.push_tree(plan, *child));
            Some(Branch { peer: place.peer, delegation: list.into_delegation() })
        })
        .collect();
    share_heads(&mut branches, heads);
    branches
}

/// What a relay is to do with a delegation. `member` knows the members by name.
pub(super) fn branches(
    delegation: &Delegation,
    children_max: usize,
    member: impl Fn(&Prefix) -> Option<PkiId>,
) -> Result<Vec<Branch>, BadDelegation> {
    let (names, _) = delegation.members.as_chunks::<MEMBER_PREFIX_SIZE>();
    let mut seen = BTreeSet::new();
    if !names.iter().all(|name| seen.insert(name)) {
        return Err(BadDelegation::Twice);
    }
    let mut found: Vec<(PkiId, List)> = Vec::new();
    let mut over = 0;
    let mut at = 0;
    while let (Some(name), Some(size)) = (names.get(at), delegation.sizes.get(at)) {
        let end = at.saturating_add(*size as usize);
        let below = (names.get(at + 1..end), delegation.sizes.get(at + 1..end));
        let (Some(below), Some(sizes)) = below else { return Err(BadDelegation::Sizes) };
        match member(name) {
            // Its trees come next, as if they stood here.
            None => at += 1,
            Some(peer) if found.len() < children_max => {
                let mut list = List::default();
                list.extend(below, sizes);
                found.push((peer, list));
                at = end;
            }
            Some(_) => {
                // Over the bound: below the children, in turn. With no child at all there is nobody to take it.
                let turn = over % found.len().max(1);
                if let Some((_, list)) = found.get_mut(turn) {
                    list.extend(std::slice::from_ref(name), std::slice::from_ref(size));
                    list.extend(below, sizes);
                }
                over += 1;
                at = end;
            }
        }
    }
    let mut branches: Vec<Branch> =
        found.into_iter().map(|(peer, list)| Branch { peer, delegation: list.into_delegation() }).collect();
    share_heads(&mut branches, delegation.heads.saturating_sub(1));
    Ok(branches)
}

fn share_heads(branches: &mut [Branch], heads: u32) {
    let count = u32::try_from(branches.len()).unwrap_or(u32::MAX).max(1);
    for (turn, branch) in (0u32..).zip(branches) {
        branch.delegation.heads = heads / count + u32::from(turn < heads % count);
    }
}

/// A forest in depth-first order.
#[derive(Debug, Default)]
struct List {
    members: BytesMut,
    sizes: Vec<u32>,
}

impl List {
    fn push_tree(&mut self, plan: &Plan, root: usize) {
        // Depth-first without recursion: a place is opened, and its size is known when its last descendant is written.
        let mut open = vec![(root, false)];
        let mut starts = Vec::new();
        while let Some((index, written)) = open.pop() {
            let Some(place) = plan.places.get(index) else { continue };
            if written {
                let end = self.sizes.len();
                if let Some(start) = starts.pop()
                    && let Some(size) = self.sizes.get_mut(start)
                {
                    *size = u32::try_from(end - start).unwrap_or(u32::MAX);
                }
                continue;
            }
            starts.push(self.sizes.len());
            self.members.put_slice(&prefix(&place.peer));
            self.sizes.push(1);
            open.push((index, true));
            open.extend(place.children.iter().rev().map(|child| (*child, false)));
        }
    }

    fn extend(&mut self, names: &[Prefix], sizes: &[u32]) {
        self.members.put_slice(names.as_flattened());
        self.sizes.extend_from_slice(sizes);
    }

    fn into_delegation(self) -> Delegation {
        Delegation { members: Bytes::from(self.members), sizes: self.sizes, heads: 0 }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::dissemination::plan::{Target, Terms, plan};
    use proptest::prelude::*;
    use rand::SeedableRng;
    use rand::rngs::ChaCha8Rng;
    use std::collections::BTreeMap;
    use std::time::Duration;

    fn peer(index: usize) -> PkiId {
        PkiId::new(&"Org1MSP".into(), &format!("peer{index}"))
    }

    fn directory(count: usize) -> BTreeMap<Prefix, PkiId> {
        (0..count).map(|index| (prefix(&peer(index)), peer(index))).collect()
    }

    fn list(entries: &[(usize, u32)]) -> Delegation {
        let members: Vec<u8> = entries.iter().flat_map(|(index, _)| prefix(&peer(*index))).collect();
        Delegation {
            members: members.into(),
            sizes: entries.iter().map(|(_, size)| *size).collect(),
            heads: 0,
        }
    }

    fn peeled(
        delegation: &Delegation,
        children_max: usize,
        known: &BTreeMap<Prefix, PkiId>,
    ) -> Result<Vec<Branch>, BadDelegation> {
        branches(delegation, children_max, |name| known.get(name).copied())
    }

    fn planned(count: usize, children_max: usize, seed: u64) -> Plan {
        let targets: Vec<Target> = (0..count)
            .map(|index| Target {
                peer: peer(index),
                round_trip: Duration::from_micros(500),
                may_relay: true,
                proven: false,
            })
            .collect();
        let millisecond = Duration::from_millis(1);
        let terms = Terms {
            transfer: millisecond,
            verify: millisecond,
            root_children_max: children_max,
            children_max,
        };
        plan(&targets, &terms, &mut ChaCha8Rng::seed_from_u64(seed))
    }

    /// Everybody reached when each relay acts on what it gets, with the knowledge of `known`.
    fn reached(first: Vec<Branch>, children_max: usize, known: &BTreeMap<Prefix, PkiId>) -> Vec<PkiId> {
        let mut open = first;
        let mut reached = Vec::new();
        while let Some(branch) = open.pop() {
            reached.push(branch.peer);
            open.extend(peeled(&branch.delegation, children_max, known).unwrap());
        }
        reached.sort();
        reached
    }

    #[test]
    fn a_relay_serves_the_trees_it_was_given() {
        // 1 serves 2 and 3, 3 serves 4; 5 serves nobody.
        let delegation = list(&[(1, 4), (2, 1), (3, 2), (4, 1), (5, 1)]);
        let branches = peeled(&delegation, 8, &directory(9)).unwrap();
        assert_eq!(branches.len(), 2);
        assert_eq!(branches[0], Branch { peer: peer(1), delegation: list(&[(2, 1), (3, 2), (4, 1)]) });
        assert_eq!(branches[1], Branch { peer: peer(5), delegation: list(&[]) });
    }

    #[test]
    fn the_unknown_are_skipped_and_theirs_are_served() {
        let mut known = directory(9);
        known.remove(&prefix(&peer(1)));
        known.remove(&prefix(&peer(3)));
        let delegation = list(&[(1, 4), (2, 1), (3, 2), (4, 1), (5, 1)]);
        let branches = peeled(&delegation, 8, &known).unwrap();
        let peers: Vec<PkiId> = branches.iter().map(|branch| branch.peer).collect();
        assert_eq!(peers, vec![peer(2), peer(4), peer(5)]);
    }

    #[test]
    fn what_is_over_the_bound_goes_below_the_children() {
        let delegation = list(&[(1, 1), (2, 1), (3, 2), (4, 1), (5, 1)]);
        let branches = peeled(&delegation, 2, &directory(9)).unwrap();
        assert_eq!(branches.len(), 2);
        assert_eq!(branches[0].delegation, list(&[(3, 2), (4, 1)]));
        assert_eq!(branches[1].delegation, list(&[(5, 1)]));
        assert_eq!(peeled(&delegation, 0, &directory(9)), Ok(vec![]));
    }

    #[test]
    fn lies_are_refused() {
        let known = directory(9);
        assert_eq!(peeled(&list(&[(1, 2)]), 8, &known), Err(BadDelegation::Sizes));
        assert_eq!(peeled(&list(&[(1, 0)]), 8, &known), Err(BadDelegation::Sizes));
        assert_eq!(peeled(&list(&[(1, u32::MAX)]), 8, &known), Err(BadDelegation::Sizes));
        assert_eq!(peeled(&list(&[(1, 1), (1, 1)]), 8, &known), Err(BadDelegation::Twice));
        assert_eq!(peeled(&list(&[(1, 2), (1, 1)]), 8, &known), Err(BadDelegation::Twice));
    }

    #[test]
    fn eight_heads_however_many_children() {
        for children_max in [1, 3, 8, 30] {
            let plan = planned(40, children_max, 1);
            let mut open = of_plan(&plan, 8);
            let mut heads = 0;
            while let Some(branch) = open.pop() {
                heads += usize::from(branch.delegation.heads > 0);
                open.extend(peeled(&branch.delegation, children_max, &directory(40)).unwrap());
            }
            assert_eq!(heads, 8, "{children_max} children");
        }
    }

    proptest! {
        #[test]
        fn the_whole_plan_is_reached(count in 0usize..120, children_max in 1usize..12, seed: u64) {
            let plan = planned(count, children_max, seed);
            let mut all: Vec<PkiId> = (0..count).map(peer).collect();
            all.sort();
            prop_assert_eq!(reached(of_plan(&plan, 8), children_max, &directory(count)), all);
        }

        #[test]
        fn all_that_are_known_are_reached_though_others_are_not(
            count in 1usize..80,
            children_max in 1usize..9,
            unknown in proptest::collection::btree_set(0usize..80, 0..40),
            seed: u64,
        ) {
            let mut known = directory(count);
            known.retain(|name, _| unknown.iter().all(|index| prefix(&peer(*index)) != *name));
            let mut expected: Vec<PkiId> = known.values().copied().collect();
            let first = list_of(&of_plan(&planned(count, children_max, seed), 8));
            let first = peeled(&first, children_max, &known).unwrap();
            expected.sort();
            prop_assert_eq!(reached(first, children_max, &known), expected);
        }

        #[test]
        fn any_bytes_give_distinct_known_children(
            names in proptest::collection::vec(0usize..30, 0..40),
            sizes in proptest::collection::vec(0u32..12, 0..40),
            children_max in 0usize..9,
        ) {
            let count = names.len().min(sizes.len());
            let entries: Vec<(usize, u32)> = names.into_iter().zip(sizes).take(count).collect();
            let known = directory(20);
            if let Ok(branches) = peeled(&list(&entries), children_max, &known) {
                prop_assert!(branches.len() <= children_max);
                let mut named: Vec<Prefix> = Vec::new();
                for branch in &branches {
                    prop_assert!(known.contains_key(&prefix(&branch.peer)));
                    named.push(prefix(&branch.peer));
                    named.extend(branch.delegation.members.as_chunks::<MEMBER_PREFIX_SIZE>().0);
                    prop_assert_eq!(
                        branch.delegation.members.len(),
                        branch.delegation.sizes.len() * MEMBER_PREFIX_SIZE
                    );
                }
                let total = named.len();
                named.sort_unstable();
                named.dedup();
                prop_assert_eq!(named.len(), total, "nobody twice");
            }
        }
    }

    /// The branches as one forest, as a relay would get them.
    fn list_of(branches: &[Branch]) -> Delegation {
        let mut list = List::default();
        for branch in branches {
            let size = branch.delegation.sizes.len() as u32 + 1;
            list.extend(&[prefix(&branch.peer)], &[size]);
            let (names, _) = branch.delegation.members.as_chunks::<MEMBER_PREFIX_SIZE>();
            list.extend(names, &branch.delegation.sizes);
        }
        list.into_delegation()
    }
}
