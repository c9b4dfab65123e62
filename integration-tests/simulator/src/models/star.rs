//! Everybody gets every block from its source, in an order drawn for each block.
//!
//! Closed form for the last of N peers: the largest of i · B ÷ U + latency of the i-th, + one verification.

use rand::seq::SliceRandom;

use super::{Air, Protocol, SOURCE};
use crate::truth::Site;

#[derive(Debug, Default)]
pub(crate) struct Star;

impl Protocol for Star {
    fn holds(&mut self, air: &mut Air, site: Site, _from: Option<Site>, number: u64) {
        if site == SOURCE {
            let mut others: Vec<Site> = (0..air.peers()).filter(|other| *other != SOURCE).collect();
            others.shuffle(&mut air.rng);
            for other in others {
                air.send_body(SOURCE, other, number);
            }
        }
    }
}
