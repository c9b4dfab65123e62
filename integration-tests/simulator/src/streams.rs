//! Connections come, carry frames, and break.

use std::time::Duration;

use grapevine_channels::node::Input;
use grapevine_channels::time::Time;
use grapevine_channels::wire::{BulkHeader, BulkKind};

use crate::checker::Check;
use crate::event::{ConnectionId, Event, HostEvent, Message, Packet};
use crate::links::{Class, Delivery};
use crate::simulation::{Cause, Kind, Simulation};
use crate::truth::Site;

impl Simulation {
    /// Puts a message on a connection.
    pub(crate) fn send(&mut self, from: Site, to: Site, id: ConnectionId, message: Message) {
        let Some(message) = self.network.hold_back(id, from, message) else { return };
        let (class, size, boot) = (message.class(), message.size(), self.hosts[to].boot);
        let packet = |message| Packet::Peer { connection: id, boot, message };
        if let Message::Bulk { header, .. } = &message {
            let head = packet(Message::Started { header: header.clone() });
            self.wire.send_bulk(self.now, from, to, size, head, packet(message));
        } else {
            self.wire.send(self.now, from, to, class, size, packet(message));
        }
    }

    /// Something came out of the wire.
    pub(crate) fn delivered(&mut self, delivery: Delivery<Packet>) -> Check {
        let (from, to, packet, is_reset) = match delivery {
            Delivery::Message { from, to, payload } | Delivery::Head { from, to, payload } => {
                (from, to, payload, false)
            }
            Delivery::Reset { from, to, payload } => (from, to, payload, true),
        };
        let (boot, event) = match packet {
            Packet::Peer { connection, boot, message } if !is_reset => {
                (boot, HostEvent::Arrival { connection, message })
            }
            Packet::Peer { connection, boot, .. } => {
                self.later(Duration::ZERO, from, HostEvent::Broken { connection });
                (boot, HostEvent::Broken { connection })
            }
            Packet::Orderer { channel, session, boot, .. } if is_reset => {
                (boot, HostEvent::DeliverFailed { channel, session })
            }
            Packet::Orderer { channel, session, boot, block } => {
                (boot, HostEvent::DeliverBlock { channel, session, block })
            }
        };
        self.happen(Event::Host { peer: to, boot, event })
    }

    pub(crate) fn arrival(&mut self, peer: Site, id: ConnectionId, message: Message) -> Check {
        let Some(connection) = self.network.connections.get(&id) else { return Ok(()) };
        let from = connection.other_end(peer);
        if self.network.open_at(peer, from) != Some(id) {
            return Ok(());
        }
        let sender = self.truth.peers[from].credential.pki_id;
        let kind = if message.class() == Class::Control { Kind::Control } else { Kind::Bulk };
        self.measurements.trace(self.now, from, peer, kind as u8, message.size());
        match message {
            Message::Control(frame) => {
                self.measurements.control_bytes_received += frame.len() as u64;
                self.checker.control_delivered(&self.truth, connection, peer, &frame)?;
                self.score_control(peer, frame.len());
                let cause = Cause::Peer { from, on_request: false };
                self.feed(peer, cause, Input::Control { peer: sender, frame })
            }
            Message::Started { header } => {
                let cause = Cause::Peer { from, on_request: false };
                self.feed(peer, cause, Input::BulkStarted { peer: sender, header })
            }
            Message::Bulk { header, body, size } => {
                self.measurements.block_bytes_received += (header.len() + size) as u64;
                let claim = BulkHeader::parse(header.clone()).map_err(|error| error.to_string())?;
                self.checker.block_delivered(&self.truth, connection, peer, &claim)?;
                // As the transport does: a body is taken only for a tag the node has vouched for.
                let Some(channel) = self.hosts[peer].channel_of(from, &claim.tag) else { return Ok(()) };
                self.checker.block_taken(channel, peer, from, claim.number);
                self.score_body(peer, from, channel, claim.number, header.len() + size);
                let missed = claim.kind() == BulkKind::Reply;
                if self.truth.is_honest(peer) {
                    self.measurements.arrived(peer, channel, claim.number, missed);
                }
                let cause = Cause::Peer { from, on_request: missed };
                self.feed(peer, cause, Input::Bulk { peer: sender, header, body })
            }
        }
    }

    /// A connection is gone for one end.
    pub(crate) fn broken(&mut self, peer: Site, id: ConnectionId) -> Check {
        let Some(connection) = self.network.connections.get(&id) else { return Ok(()) };
        let other = connection.other_end(peer);
        if !self.network.close_at(peer, id) {
            return Ok(());
        }
        self.measurements.trace(self.now, other, peer, Kind::Broken as u8, 0);
        let gone = self.truth.peers[other].credential.pki_id;
        self.hosts[peer].forget_tags(other);
        // What had not left yet never will.
        self.wire.drop_waiting(peer, other);
        self.feed(peer, Cause::Other, Input::Disconnected { peer: gone })
    }

    /// Ends a connection from one side: the other hears of it a moment later, or never while it is cut off.
    pub(crate) fn hang_up(&mut self, peer: Site, other: Site, id: ConnectionId) {
        let wait = if self.network.is_cut(peer, other) {
            self.scenario.settings.broken_after
        } else {
            self.wire.latency().one_way(peer, other)
        };
        self.later(wait, other, HostEvent::Broken { connection: id });
    }

    pub(crate) fn dial(&mut self, dialer: Site, endpoint: String) {
        let Some(listener) = self.truth.site_at(&endpoint) else {
            return self.later(
                self.scenario.settings.dial_timeout,
                dialer,
                HostEvent::DialFailed { endpoint },
            );
        };
        let round_trip = self.wire.latency().round_trip(dialer, listener);
        if !self.network.can_talk(dialer, listener) {
            return self.later(
                self.scenario.settings.dial_timeout,
                dialer,
                HostEvent::DialFailed { endpoint },
            );
        }
        if self.hosts[listener].node.is_none() {
            return self.later(round_trip, dialer, HostEvent::DialFailed { endpoint });
        }
        let boots = (self.hosts[dialer].boot, self.hosts[listener].boot);
        self.queue.push(self.now + round_trip, Event::Established { dialer, listener, boots, endpoint });
    }

    pub(crate) fn established(
        &mut self,
        dialer: Site,
        listener: Site,
        boots: (u64, u64),
        endpoint: String,
    ) -> Check {
        let [ours, theirs] = [dialer, listener].map(|site| &self.hosts[site]);
        if ours.boot != boots.0 || ours.node.is_none() {
            return Ok(());
        }
        let refused = theirs.boot != boots.1
            || theirs.node.is_none()
            || ours.keeps_out(listener, self.now)
            || theirs.keeps_out(dialer, self.now);
        let silent = ours.paused || theirs.paused || !self.network.can_talk(dialer, listener);
        if refused || silent {
            let wait = if refused { Duration::ZERO } else { self.scenario.settings.dial_timeout };
            self.later(wait, dialer, HostEvent::DialFailed { endpoint });
            return Ok(());
        }
        let (here, there) = (self.network.open_at(dialer, listener), self.network.open_at(listener, dialer));
        if here.is_some() && here == there {
            return Ok(());
        }
        // One side has not noticed yet that the former connection ended.
        for (site, former) in [(dialer, here), (listener, there)] {
            if let Some(former) = former {
                self.broken(site, former)?;
            }
        }
        self.measurements.trace(self.now, dialer, listener, Kind::Connected as u8, 0);
        let session = self.network.connect(dialer, listener, self.seed, &self.truth);
        for (site, other, endpoint) in [(dialer, listener, Some(endpoint)), (listener, dialer, None)] {
            let credential = self.truth.peers[other].credential.clone();
            self.feed(site, Cause::Other, Input::Connected { credential, session, endpoint })?;
        }
        Ok(())
    }

    /// A direction has been cut for so long that keep-alives have given up.
    pub(crate) fn silence(&mut self, id: ConnectionId, direction: usize, since: Time) {
        let Some(connection) = self.network.connections.get(&id) else { return };
        if connection.cut_since[direction] == Some(since) {
            for end in connection.ends {
                self.later(Duration::ZERO, end, HostEvent::Broken { connection: id });
            }
        }
    }
}
