//! What members tell each other of blocks: sending it, and what becomes of it.

use grapevine_crypto::PkiId;
use rand::seq::IteratorRandom;
use std::collections::BTreeSet;
use std::time::Duration;

use super::{Grapevine, Outputs, Peer, Promise, listeners, send, trim_map};
use crate::chain::Chain;
use crate::dissemination::outbox::{Planned, ranges};
use crate::dissemination::pursuit::Told;
use crate::dissemination::{DisseminationCounters, NewBlock};
use crate::time::Time;
use crate::wire::{Announcement, ChannelBody, Holding, Manifest, NUMBERS_PER_FRAME_MAX, Request};

impl Grapevine {
    /// Tells others of a block that has just come.
    pub(super) fn announce(&mut self, now: Time, block: &NewBlock) {
        let is_head = self
            .orders
            .get(&block.number)
            .is_some_and(|orders| orders.hash == block.hash && orders.delegation.heads > 0);
        let list = if is_head { &mut self.outbox.for_all } else { &mut self.outbox.for_few };
        list.insert(block.number);
        self.outbox.handle_put(now, block.size);
    }

    pub(super) fn report_late(&self, number: u64, outputs: &mut Outputs) {
        let broken = self.promises.get(&number).filter(|promise| !promise.taught);
        if let Some(planner) = broken.map(|promise| promise.from).filter(|from| self.peers.contains_key(from))
        {
            outputs.push_back(send(planner, ChannelBody::Late(Request { numbers: vec![number] })));
        }
    }

    pub(super) fn handle_manifest(
        &mut self,
        now: Time,
        peer: PkiId,
        manifest: &Manifest,
        chain: &Chain,
        counters: &mut DisseminationCounters,
    ) {
        let number = manifest.number;
        let Some(sender) = self.peers.get_mut(&peer) else { return };
        sender.known.note(number);
        let round_trip = sender.round_trip;
        if number >= chain.window_end() || number < chain.next_needed() {
            return;
        }
        let follows = self.leader.is_none_or(|leader| leader == peer);
        if follows && manifest.eta_micros > 0 && !self.promises.contains_key(&number) {
            let since = now - round_trip.unwrap_or_default() / 2;
            let arrival = Duration::from_micros(manifest.eta_micros);
            let size = usize::try_from(manifest.size).unwrap_or(usize::MAX);
            self.promises.insert(number, Promise { from: peer, since, arrival, size, taught: false });
            trim_map(&mut self.promises);
        }
        if chain.holds(number) {
            return;
        }
        let unpromised = now + self.patience(manifest.size as usize);
        counters.over_bound += u64::from(!self.pursuit.handle_told(number, peer, Told::Leader, unpromised));
        if let Some(promise) = self.promises.get(&number) {
            self.pursuit.handle_promise(number, promise.since + self.slack.wait(promise.arrival));
        }
    }

    pub(super) fn handle_holding(
        &mut self,
        now: Time,
        peer: PkiId,
        holding: &Holding,
        chain: &Chain,
        counters: &mut DisseminationCounters,
    ) {
        let Some(sender) = self.peers.get_mut(&peer) else { return };
        let told = if holding.to_all { Told::All } else { Told::Few };
        let mut heard = Vec::new();
        for range in holding.ranges.chunks_exact(2) {
            let [first, last] = *range else { continue };
            let first = first.max(chain.next_needed());
            for number in first..=last.min(chain.window_end().saturating_sub(1)) {
                sender.known.note(number);
                if !chain.holds(number) && heard.len() < NUMBERS_PER_FRAME_MAX {
                    heard.push(number);
                }
            }
        }
        for number in heard {
            let due = match self.promises.get(&number) {
                Some(promise) => promise.since + self.slack.wait(promise.arrival),
                None => now + self.patience(self.typical_size),
            };
            counters.over_bound += u64::from(!self.pursuit.handle_told(number, peer, told, due));
        }
    }

    /// Sends the announcements that are due.
    pub(super) fn flush(&mut self, now: Time, outputs: &mut Outputs) {
        let Some(outbox) = self.outbox.take(now) else { return };
        if !outbox.planned.is_empty() {
            for (peer, state) in &self.peers {
                let lacking =
                    outbox.planned.iter().filter(|planned| !state.known.holds(planned.manifest.number));
                let manifests: Vec<Manifest> =
                    lacking.map(|planned| planned.manifest_for(peer, now)).collect();
                if !manifests.is_empty() {
                    outputs.push_back(send(*peer, ChannelBody::Announcement(Announcement { manifests })));
                }
            }
        }
        if !outbox.for_all.is_empty() {
            let all: Vec<PkiId> = self.peers.keys().copied().collect();
            self.tell(&all, &outbox.for_all, true, outputs);
        }
        if !outbox.for_few.is_empty() {
            let lacks = |state: &Peer| outbox.for_few.iter().any(|number| !state.known.holds(*number));
            let lacking = self.peers.iter().filter(|(_, state)| lacks(state)).map(|(peer, _)| *peer);
            let few = lacking.sample(&mut self.rng, listeners(self.peers.len()));
            self.tell(&few, &outbox.for_few, false, outputs);
        }
    }

    fn tell(&self, peers: &[PkiId], numbers: &BTreeSet<u64>, to_all: bool, outputs: &mut Outputs) {
        for peer in peers {
            let Some(state) = self.peers.get(peer) else { continue };
            let ranges = ranges(numbers.iter().copied().filter(|number| !state.known.holds(*number)));
            if !ranges.is_empty() {
                outputs.push_back(send(*peer, ChannelBody::Holding(Holding { ranges, to_all })));
            }
        }
    }
}

impl Planned {
    /// What a member is told: when it should have the block, from now on.
    fn manifest_for(&self, peer: &PkiId, now: Time) -> Manifest {
        let left = self.arrivals.get(peer).map(|arrival| arrival.saturating_sub(now.since(self.since)));
        let micros = left.map_or(0, |left| u64::try_from(left.as_micros()).unwrap_or(u64::MAX).max(1));
        Manifest { eta_micros: micros, ..self.manifest.clone() }
    }
}
