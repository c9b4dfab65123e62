//! A warm start: a network that has been up for a while, without the time that takes.
//!
//! At time zero all peers start, everybody who may be is connected with everybody, and both ends of every connection hear
//! what the other says on connecting: its own record and the channels it has joined. What that makes them say in
//! turn is not delivered; it would tell nobody anything new. No link is used and no byte is counted.
//! The order is all connections first, then all frames, so that no view holds more than its sender: N² small frames,
//! not N² views of N members.

use grapevine_channels::node::{Input, Node, Output};
use rand::rngs::ChaCha8Rng;
use rand::{RngExt, SeedableRng};

use crate::carry_out::is_of_members;
use crate::checker::Check;
use crate::simulation::{Cause, Simulation};
use crate::truth::Site;

/// Distinguishes the randomness of views from that of the run with the same seed.
const VIEWS_STREAM: u64 = 0x71e5;

impl Simulation {
    pub(crate) fn warm_up(&mut self) -> Check {
        let peers: Vec<Site> =
            (0..self.hosts.len()).filter(|peer| !self.scenario.starts.contains_key(peer)).collect();
        for peer in &peers {
            self.boot(*peer)?;
        }
        let (mut said, mut unknown) = (Vec::new(), Vec::new());
        let views_off = self.scenario.views_off.clamp(0.0, 1.0);
        let mut rng = ChaCha8Rng::seed_from_u64(self.seed ^ VIEWS_STREAM);
        for (place, dialer) in peers.iter().enumerate() {
            for listener in &peers[place + 1..] {
                if !self.may_know(*dialer, *listener) {
                    continue;
                }
                let pairs = [(*dialer, *listener), (*listener, *dialer)];
                unknown.extend(pairs.into_iter().filter(|_| rng.random_bool(views_off)));
                let session = self.network.connect(*dialer, *listener, self.seed, &self.truth);
                let endpoint = Some(self.endpoint_for(*dialer, *listener));
                for (site, other, endpoint) in [(*dialer, *listener, endpoint), (*listener, *dialer, None)] {
                    self.connect_quietly(site, other, session, endpoint, &mut said);
                }
            }
        }
        for (from, to, frame) in said {
            if self.scenario.frozen && is_of_members(&frame) {
                continue;
            }
            let sender = self.truth.peers[from].credential.pki_id;
            let now = self.hosts[to].local(self.now);
            if let Some(node) = &mut self.hosts[to].node {
                node.handle(now, Input::Control { peer: sender, frame });
            }
            self.carry_out_quietly(to)?;
        }
        for (viewer, member) in unknown {
            self.forget(viewer, member);
        }
        peers.into_iter().try_for_each(|peer| self.carry_out(peer, Cause::Other))
    }

    /// One peer's membership has never heard of another, though they are connected: it sends it nothing of its own accord.
    fn forget(&mut self, viewer: Site, member: Site) {
        let member = self.truth.peers[member].credential.pki_id;
        let now = self.hosts[viewer].local(self.now);
        let Some(node) = &mut self.hosts[viewer].node else { return };
        let channels: Vec<_> = node.channels().cloned().collect();
        for channel in channels {
            node.forget_in_dissemination(now, &channel, member);
        }
    }

    /// Whether two peers would find each other.
    fn may_know(&self, one: Site, other: Site) -> bool {
        let visible = |site: Site| !self.truth.peers[site].external_endpoint.is_empty();
        self.truth.same_organization(one, other)
            || (visible(one) && visible(other) && self.share_a_channel(one, other))
    }

    fn share_a_channel(&self, one: Site, other: Site) -> bool {
        (0..self.truth.channels.len())
            .any(|channel| self.truth.is_member(one, channel) && self.truth.is_member(other, channel))
    }

    /// The endpoint at which one peer reaches another.
    fn endpoint_for(&self, dialer: Site, listener: Site) -> String {
        let peer = &self.truth.peers[listener];
        let inside = self.truth.same_organization(dialer, listener);
        if inside { peer.internal_endpoint.clone() } else { peer.external_endpoint.clone() }
    }

    fn connect_quietly(
        &mut self,
        site: Site,
        other: Site,
        session: [u8; 32],
        endpoint: Option<String>,
        said: &mut Vec<(Site, Site, bytes::Bytes)>,
    ) {
        let credential = self.truth.peers[other].credential.clone();
        let peer = credential.pki_id;
        let now = self.hosts[site].local(self.now);
        let Some(node) = &mut self.hosts[site].node else { return };
        node.handle(now, Input::Connected { credential, session, endpoint });
        let round_trip = self.wire.latency().round_trip(site, other);
        node.handle(now, Input::RoundTrip { peer, round_trip });
        while let Some(output) = node.poll_output() {
            if let Output::SendControl { peer: to, frame } = output
                && to == peer
            {
                said.push((site, other, frame));
            }
        }
    }

    /// Does all that a node wants but sending.
    fn carry_out_quietly(&mut self, peer: Site) -> Check {
        while let Some(output) = self.hosts[peer].node.as_mut().and_then(Node::poll_output) {
            if !matches!(output, Output::SendControl { .. } | Output::SendBlock { .. }) {
                self.carry_out_one(peer, Cause::Other, output)?;
            }
        }
        Ok(())
    }
}
