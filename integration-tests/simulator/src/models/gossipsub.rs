//! libp2p's gossipsub v1.2, as its specification has it, with a mesh of 8.
//!
//! A body is verified, then sent to the mesh but for its sender and those that said IDONTWANT, which is said to the mesh as soon as a
//! body of [`IDONTWANT_BYTES_MIN`] has come; a body that still waits for somebody who no longer wants it is taken back. Once a second
//! every peer tells [`GOSSIP_PEERS`] others outside its mesh what came in the last three seconds (IHAVE), and they ask for what they
//! lack (IWANT). Meshes are there from the start; scores and grafting are left out, for nobody in the model earns a bad one.

use std::collections::BTreeSet;
use std::time::Duration;

use rand::RngExt;
use rand::seq::IteratorRandom;

use super::{Air, Note, Protocol, graph};
use crate::truth::Site;

/// Peers in a mesh (D).
const MESH: usize = 8;
/// Peers that hear IHAVE (D_lazy).
const GOSSIP_PEERS: usize = 6;
const HEARTBEAT: Duration = Duration::from_secs(1);
/// Heartbeats for which a message is announced (mcache_gossip).
const GOSSIP_HEARTBEATS: u64 = 3;
/// Smaller messages are not worth an IDONTWANT (idontwant_message_size_threshold).
const IDONTWANT_BYTES_MIN: usize = 1_000;

const IDONTWANT: u8 = 1;
const IHAVE: u8 = 2;
const IWANT: u8 = 3;

#[derive(Debug, Default)]
pub(crate) struct Gossipsub {
    mesh: Vec<BTreeSet<Site>>,
    /// Who has said to whom that it does not want which block.
    unwanted: BTreeSet<(Site, Site, u64)>,
    asked: BTreeSet<(Site, u64)>,
    /// Blocks of each site's last heartbeats, with the number of heartbeats they are still announced.
    recent: Vec<Vec<(u64, u64)>>,
}

impl Protocol for Gossipsub {
    fn begin(&mut self, air: &mut Air) {
        self.mesh = graph::random(air.peers(), MESH, &mut air.rng);
        self.recent = vec![Vec::new(); air.peers()];
        for site in 0..air.peers() {
            let phase = HEARTBEAT.mul_f64(air.rng.random_range(0.0..1.0));
            air.set_timer(phase, site, 0);
        }
    }

    fn holds(&mut self, air: &mut Air, site: Site, from: Option<Site>, number: u64) {
        self.recent[site].push((number, GOSSIP_HEARTBEATS));
        for peer in &self.mesh[site] {
            if Some(*peer) != from && !self.unwanted.contains(&(*peer, site, number)) {
                air.send_body(site, *peer, number);
            }
        }
    }

    fn body(&mut self, air: &mut Air, site: Site, from: Site, number: u64, first: bool) {
        // Who sent it has it.
        self.unwanted.insert((from, site, number));
        if first && air.stage.block_bytes >= IDONTWANT_BYTES_MIN {
            for peer in self.mesh[site].iter().filter(|peer| **peer != from) {
                air.send_note(site, *peer, IDONTWANT, number);
            }
        }
    }

    fn note(&mut self, air: &mut Air, site: Site, from: Site, note: Note) {
        match note.kind {
            IDONTWANT => {
                self.unwanted.insert((from, site, note.number));
                air.call_back(site, from, note.number);
            }
            IHAVE if !air.has_come(site, note.number) && self.asked.insert((site, note.number)) => {
                air.send_note(site, from, IWANT, note.number);
            }
            IWANT if air.holds(site, note.number) => air.send_answer(site, from, note.number),
            _ => {}
        }
    }

    fn timer(&mut self, air: &mut Air, site: Site, _name: u64) {
        air.set_timer(HEARTBEAT, site, 0);
        let outside = (0..air.peers()).filter(|other| *other != site && !self.mesh[site].contains(other));
        let told = outside.sample(&mut air.rng, GOSSIP_PEERS);
        for (number, _) in &self.recent[site] {
            for peer in &told {
                air.send_note(site, *peer, IHAVE, *number);
            }
        }
        for (_, left) in &mut self.recent[site] {
            *left -= 1;
        }
        self.recent[site].retain(|(_, left)| *left > 0);
        // What was asked for and did not come may be asked for again.
        self.asked.retain(|(of, _)| *of != site);
    }
}
