//! Random graphs.

use std::collections::BTreeSet;

use rand::rngs::ChaCha8Rng;
use rand::seq::SliceRandom;

use crate::truth::Site;

/// A connected-as-a-rule random graph in which every site has about `degree` neighbours; everybody knows everybody where there are
/// no more.
pub(crate) fn random(sites: usize, degree: usize, rng: &mut ChaCha8Rng) -> Vec<BTreeSet<Site>> {
    let mut neighbours = vec![BTreeSet::new(); sites];
    if sites <= degree + 1 {
        for (site, known) in neighbours.iter_mut().enumerate() {
            known.extend((0..sites).filter(|other| *other != site));
        }
        return neighbours;
    }
    let mut order: Vec<Site> = (0..sites).collect();
    order.shuffle(rng);
    for site in order {
        let mut others: Vec<Site> = (0..sites).filter(|other| *other != site).collect();
        others.shuffle(rng);
        // Those with too few first, so that degrees stay close to each other.
        others.sort_by_key(|other| neighbours[*other].len() >= degree);
        for other in others {
            if neighbours[site].len() >= degree {
                break;
            }
            if neighbours[site].insert(other) {
                neighbours[other].insert(site);
            }
        }
    }
    neighbours
}
