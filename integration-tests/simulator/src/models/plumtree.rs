//! Plumtree: eager push along a tree, lazy announcements along the other links of a random graph, grafts where the tree is broken.
//!
//! The links are those of HyParView's active view: a random graph of degree [`DEGREE`]. The first blocks build the tree while everybody
//! still does its part; then the books open and the silent fall silent. Timeouts are iroh-gossip's.

use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::time::Duration;

use super::{Air, Note, Protocol, graph};
use crate::truth::Site;

/// Neighbours in the graph (HyParView's active view).
const DEGREE: usize = 5;
/// Blocks that make the tree.
const WARM_UP_BLOCKS: u64 = 5;
/// From an announcement until the tree is taken to be broken.
const GRAFT_TIMEOUT: Duration = Duration::from_millis(80);
/// From one graft until the next.
const NEXT_GRAFT_TIMEOUT: Duration = Duration::from_millis(40);

const IHAVE: u8 = 1;
const PRUNE: u8 = 2;
const GRAFT: u8 = 3;

#[derive(Debug, Default)]
pub(crate) struct Plumtree {
    eager: Vec<BTreeSet<Site>>,
    lazy: Vec<BTreeSet<Site>>,
    /// Who has announced to a site what it lacks, in order.
    announced: BTreeMap<(Site, u64), VecDeque<Site>>,
}

impl Plumtree {
    fn make_eager(&mut self, site: Site, peer: Site) {
        self.lazy[site].remove(&peer);
        self.eager[site].insert(peer);
    }

    fn make_lazy(&mut self, site: Site, peer: Site) {
        self.eager[site].remove(&peer);
        self.lazy[site].insert(peer);
    }
}

impl Protocol for Plumtree {
    fn warm_up_blocks(&self) -> u64 {
        WARM_UP_BLOCKS
    }

    fn begin(&mut self, air: &mut Air) {
        self.eager = graph::random(air.peers(), DEGREE, &mut air.rng);
        self.lazy = vec![BTreeSet::new(); air.peers()];
    }

    fn holds(&mut self, air: &mut Air, site: Site, from: Option<Site>, number: u64) {
        for peer in self.eager[site].iter().filter(|peer| Some(**peer) != from) {
            air.send_body(site, *peer, number);
        }
        for peer in self.lazy[site].iter().filter(|peer| Some(**peer) != from) {
            air.send_note(site, *peer, IHAVE, number);
        }
    }

    fn body(&mut self, air: &mut Air, site: Site, from: Site, number: u64, first: bool) {
        if first {
            self.announced.remove(&(site, number));
            self.make_eager(site, from);
        } else {
            self.make_lazy(site, from);
            air.send_note(site, from, PRUNE, number);
        }
    }

    fn note(&mut self, air: &mut Air, site: Site, from: Site, note: Note) {
        match note.kind {
            IHAVE if !air.has_come(site, note.number) => {
                let announced = self.announced.entry((site, note.number)).or_default();
                if announced.is_empty() {
                    air.set_timer(GRAFT_TIMEOUT, site, note.number);
                }
                announced.push_back(from);
            }
            PRUNE => self.make_lazy(site, from),
            GRAFT => {
                self.make_eager(site, from);
                if air.holds(site, note.number) {
                    air.send_answer(site, from, note.number);
                }
            }
            _ => {}
        }
    }

    fn timer(&mut self, air: &mut Air, site: Site, number: u64) {
        if air.has_come(site, number) {
            return;
        }
        let Some(announced) = self.announced.get_mut(&(site, number)) else { return };
        let Some(peer) = announced.pop_front() else { return };
        // The last one is asked again as long as nothing comes.
        if announced.is_empty() {
            announced.push_back(peer);
        }
        self.make_eager(site, peer);
        air.send_note(site, peer, GRAFT, number);
        air.set_timer(NEXT_GRAFT_TIMEOUT, site, number);
    }
}
