//! Blocks this peer has heard of and does not hold: whom to ask for them, and when.
//!
//! # Promise
//! A block is asked for when it is due and no byte of it is arriving: first from a random one of those that told a few peers of it,
//! then from those that told everybody, last from the leader, whose link carries the plan. An answer that does not begin in time is hedged by
//! asking the next. After [`TRIES_MAX`] tries the block is given up.
//!
//! # Bounds
//! [`WANTED_MAX`] blocks, the lowest stay; [`SOURCES_MAX`] sources each.
//!
//! # Attacks
//! Who claims blocks that do not exist is asked for them in vain; nobody else is. Who claims to hold and does not answer costs one hedge.

use std::collections::BTreeMap;
use std::time::Duration;

use grapevine_crypto::PkiId;
use rand::Rng;
use rand::seq::IndexedRandom;

use crate::time::Time;

/// Most blocks pursued at a time.
pub(super) const WANTED_MAX: usize = 256;
/// Most sources remembered of one block.
pub(super) const SOURCES_MAX: usize = 24;
/// Tries after which a block is given up.
pub(super) const TRIES_MAX: u32 = 10;
/// Tries after which those that told everybody are asked too.
const TRIES_BEFORE_HEADS: u32 = 2;
/// Tries after which the leader is asked too.
const TRIES_BEFORE_LEADER: u32 = 4;

/// How a source told of the block.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum Told {
    /// To a few.
    Few,
    /// To everybody.
    All,
    /// As the leader.
    Leader,
}

#[derive(Debug)]
struct Source {
    peer: PkiId,
    told: Told,
    asked: bool,
}

/// One block.
#[derive(Debug)]
struct Wanted {
    sources: Vec<Source>,
    due: Time,
    tries: u32,
}

/// What is to be done about a block.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Step {
    /// Ask this peer for it.
    Ask(PkiId, u64),
    /// It is given up.
    GiveUp(u64),
}

/// The blocks that are pursued. See the module's header.
#[derive(Debug, Default)]
pub(super) struct Pursuit {
    wanted: BTreeMap<u64, Wanted>,
}

impl Pursuit {
    /// A peer tells of a block; if it is new, it is due at `due`. False: there was no room for that, or for a block farther ahead.
    pub(super) fn handle_told(&mut self, number: u64, peer: PkiId, told: Told, due: Time) -> bool {
        let mut fits = true;
        let wanted = self.wanted.entry(number).or_insert(Wanted { sources: Vec::new(), due, tries: 0 });
        if let Some(source) = wanted.sources.iter_mut().find(|source| source.peer == peer) {
            source.told = source.told.max(told);
        } else if wanted.sources.len() < SOURCES_MAX {
            wanted.sources.push(Source { peer, told, asked: false });
        } else {
            fits = false;
        }
        if self.wanted.len() > WANTED_MAX {
            self.wanted.pop_last();
            fits = false;
        }
        fits
    }

    /// The leader's promise says when the block is due, if it has not been asked for yet.
    pub(super) fn handle_promise(&mut self, number: u64, due: Time) {
        if let Some(wanted) = self.wanted.get_mut(&number).filter(|wanted| wanted.tries == 0) {
            wanted.due = due;
        }
    }

    /// A peer will not send the block, or sent another: the next is asked at once.
    pub(super) fn handle_refusal(&mut self, now: Time, peer: PkiId, number: u64) {
        let Some(wanted) = self.wanted.get_mut(&number) else { return };
        let known = wanted.sources.len();
        wanted.sources.retain(|source| source.peer != peer);
        if wanted.sources.len() < known {
            wanted.due = now;
        }
    }

    /// A peer is gone.
    pub(super) fn handle_gone(&mut self, now: Time, peer: PkiId) {
        for wanted in self.wanted.values_mut() {
            let asked = wanted.sources.iter().any(|source| source.peer == peer && source.asked);
            wanted.sources.retain(|source| source.peer != peer);
            if asked {
                wanted.due = now;
            }
        }
    }

    /// The block is here: how often it was asked for, if it was pursued.
    pub(super) fn handle_here(&mut self, number: u64) -> Option<u32> {
        self.wanted.remove(&number).map(|wanted| wanted.tries)
    }

    /// Blocks below this number are committed.
    pub(super) fn forget_below(&mut self, number: u64) {
        if self.wanted.first_key_value().is_some_and(|(first, _)| *first < number) {
            self.wanted = self.wanted.split_off(&number);
        }
    }

    /// What is due. `arriving` tells until when a block's bytes are trusted to come, `hedge` how long an answer of a peer may take.
    pub(super) fn handle_timeout(
        &mut self,
        now: Time,
        rng: &mut impl Rng,
        arriving: impl Fn(u64) -> Option<Time>,
        hedge: impl Fn(&PkiId, u64) -> Duration,
    ) -> Vec<Step> {
        let mut steps = Vec::new();
        for (number, wanted) in self.wanted.iter_mut().filter(|(_, wanted)| wanted.due <= now) {
            if let Some(until) = arriving(*number).filter(|until| *until > now) {
                wanted.due = until;
                continue;
            }
            match wanted.next_source(rng).filter(|_| wanted.tries < TRIES_MAX) {
                Some(peer) => {
                    wanted.tries += 1;
                    wanted.due = now + hedge(&peer, *number);
                    steps.push(Step::Ask(peer, *number));
                }
                None => steps.push(Step::GiveUp(*number)),
            }
        }
        for step in &steps {
            if let Step::GiveUp(number) = step {
                self.wanted.remove(number);
            }
        }
        steps
    }

    /// When [`Pursuit::handle_timeout`] is due next.
    pub(super) fn next_deadline(&self) -> Option<Time> {
        self.wanted.values().map(|wanted| wanted.due).min()
    }

    /// Whether the block is pursued.
    pub(super) fn contains(&self, number: u64) -> bool {
        self.wanted.contains_key(&number)
    }

    /// How many blocks are pursued.
    #[cfg(test)]
    pub(super) fn len(&self) -> usize {
        self.wanted.len()
    }
}

impl Wanted {
    /// Whom to ask now. When all have been asked, the round begins again.
    fn next_source(&mut self, rng: &mut impl Rng) -> Option<PkiId> {
        if self.sources.iter().all(|source| source.asked) {
            self.sources.iter_mut().for_each(|source| source.asked = false);
        }
        let allowed = match self.tries {
            tries if tries < TRIES_BEFORE_HEADS => Told::Few,
            tries if tries < TRIES_BEFORE_LEADER => Told::All,
            _ => Told::Leader,
        };
        let fresh = self.sources.iter().filter(|source| !source.asked);
        // Nobody of the class that is to be asked: the class that comes nearest.
        let nearest = fresh.clone().map(|source| source.told).min()?;
        let allowed = allowed.max(nearest);
        let candidates: Vec<PkiId> =
            fresh.filter(|source| source.told <= allowed).map(|source| source.peer).collect();
        let chosen = *candidates.choose(rng)?;
        let source = self.sources.iter_mut().find(|source| source.peer == chosen)?;
        source.asked = true;
        Some(chosen)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use rand::SeedableRng;
    use rand::rngs::ChaCha8Rng;

    const HEDGE: Duration = Duration::from_millis(10);

    fn peer(index: usize) -> PkiId {
        PkiId::new(&"Org1MSP".into(), &format!("peer{index}"))
    }

    fn at(milliseconds: u64) -> Time {
        Time::from_millis(milliseconds)
    }

    fn steps(pursuit: &mut Pursuit, now: Time) -> Vec<Step> {
        pursuit.handle_timeout(now, &mut ChaCha8Rng::seed_from_u64(1), |_| None, |_, _| HEDGE)
    }

    fn asked(pursuit: &mut Pursuit) -> Vec<PkiId> {
        std::iter::from_fn(|| {
            let now = pursuit.next_deadline()?;
            match steps(pursuit, now)[..] {
                [Step::Ask(peer, 7)] => Some(peer),
                [Step::GiveUp(7)] => None,
                ref other => panic!("{other:?}"),
            }
        })
        .collect()
    }

    #[test]
    fn it_is_asked_for_when_due_and_hedged() {
        let mut pursuit = Pursuit::default();
        pursuit.handle_told(7, peer(1), Told::Few, at(5));
        pursuit.handle_told(7, peer(2), Told::Few, at(1));
        assert_eq!(steps(&mut pursuit, at(4)), vec![]);
        let first = steps(&mut pursuit, at(5));
        assert_eq!(pursuit.next_deadline(), Some(at(15)));
        let second = steps(&mut pursuit, at(15));
        assert_ne!(first, second);
        assert_eq!(pursuit.handle_here(7), Some(2));
        assert_eq!(pursuit.next_deadline(), None);
    }

    #[test]
    fn those_who_told_a_few_first_the_leader_last() {
        let mut pursuit = Pursuit::default();
        pursuit.handle_told(7, peer(0), Told::Leader, at(0));
        (1..=2).for_each(|head| assert!(pursuit.handle_told(7, peer(head), Told::All, at(0))));
        pursuit.handle_told(7, peer(3), Told::Few, at(0));
        let asked = asked(&mut pursuit);
        assert_eq!(asked.len(), TRIES_MAX as usize);
        assert_eq!(asked[0], peer(3));
        assert!(asked[1..3].iter().all(|head| [peer(1), peer(2)].contains(head)));
        assert_eq!(asked[3], peer(0));
    }

    #[test]
    fn what_is_arriving_is_not_asked_for() {
        let mut pursuit = Pursuit::default();
        pursuit.handle_told(7, peer(1), Told::Few, at(5));
        let mut rng = ChaCha8Rng::seed_from_u64(1);
        assert_eq!(pursuit.handle_timeout(at(5), &mut rng, |_| Some(at(50)), |_, _| HEDGE), vec![]);
        assert_eq!(pursuit.next_deadline(), Some(at(50)));
        let stalled = pursuit.handle_timeout(at(50), &mut rng, |_| Some(at(50)), |_, _| HEDGE);
        assert_eq!(stalled, vec![Step::Ask(peer(1), 7)]);
    }

    #[test]
    fn a_promise_sets_the_time_until_the_first_try() {
        let mut pursuit = Pursuit::default();
        pursuit.handle_told(7, peer(1), Told::Few, at(5));
        pursuit.handle_promise(7, at(30));
        assert_eq!(steps(&mut pursuit, at(29)), vec![]);
        assert_eq!(steps(&mut pursuit, at(30)).len(), 1);
        pursuit.handle_promise(7, at(90));
        assert_eq!(pursuit.next_deadline(), Some(at(40)));
    }

    #[test]
    fn who_refuses_or_leaves_is_not_asked_again() {
        let mut pursuit = Pursuit::default();
        (1..=2).for_each(|index| assert!(pursuit.handle_told(7, peer(index), Told::Few, at(0))));
        let Step::Ask(first, _) = steps(&mut pursuit, at(0))[0] else { panic!() };
        pursuit.handle_refusal(at(1), first, 7);
        let second = steps(&mut pursuit, at(1))[0];
        assert!(second != Step::Ask(first, 7) && matches!(second, Step::Ask(..)));
        let Step::Ask(second, _) = second else { panic!() };
        pursuit.handle_gone(at(2), second);
        assert_eq!(steps(&mut pursuit, at(2)), vec![Step::GiveUp(7)]);
        assert!(!pursuit.contains(7));
    }

    #[test]
    fn blocks_and_sources_are_bounded() {
        let mut pursuit = Pursuit::default();
        for number in 0..2 * WANTED_MAX as u64 {
            for index in 0..2 * SOURCES_MAX {
                let fits = pursuit.handle_told(number, peer(index), Told::Few, at(0));
                assert_eq!(fits, number < WANTED_MAX as u64 && index < SOURCES_MAX);
            }
        }
        assert_eq!(pursuit.len(), WANTED_MAX);
        assert!(pursuit.contains(0) && !pursuit.contains(WANTED_MAX as u64));
        assert!(pursuit.wanted.values().all(|wanted| wanted.sources.len() == SOURCES_MAX));
        pursuit.forget_below(100);
        assert!(!pursuit.contains(99) && pursuit.contains(100));
    }
}
