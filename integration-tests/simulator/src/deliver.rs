//! Pulling from the orderer, with the rules of a real peer's deliver client: endless attempts with backoff, and a bounded number of
//! blocks between the stream and the ledger.

use std::collections::{BTreeMap, VecDeque};
use std::time::Duration;

use grapevine_channels::block::AuthenticBlock;
use grapevine_channels::node::{Input, OrdererAnswer, Ticket};
use grapevine_channels::wire::Headers;
use rand::RngExt;

use crate::checker::Check;
use crate::event::{Event, HostEvent, Packet, SessionId};
use crate::host::Puller;
use crate::links::Class;
use crate::orderer::Stream;
use crate::simulation::{Cause, Kind, Simulation};
use crate::truth::{ChannelIndex, Site};

/// Blocks on one stream that the peer has not taken.
const STREAM_WINDOW: u64 = 8;
/// First wait after a failed attempt; doubles.
const BACKOFF_MIN: Duration = Duration::from_millis(100);
/// Longest wait.
const BACKOFF_MAX: Duration = Duration::from_secs(10);

impl Simulation {
    /// Pulls a channel from block `next`, in place of a stream that runs.
    pub(crate) fn start_pulling(&mut self, peer: Site, channel: ChannelIndex, next: u64) {
        self.stop_pulling(peer, channel);
        let session = self.new_session();
        let puller = Puller {
            session,
            next,
            connected: false,
            failures: 0,
            waiting: VecDeque::new(),
            consumed: 0,
            verifying: BTreeMap::new(),
            committing: BTreeMap::new(),
        };
        self.hosts[peer].pullers.insert(channel, puller);
        self.attempt(peer, channel, session);
    }

    pub(crate) fn stop_pulling(&mut self, peer: Site, channel: ChannelIndex) {
        if let Some(puller) = self.hosts[peer].pullers.remove(&channel) {
            self.orderer.streams.remove(&(channel, puller.session));
        }
    }

    fn new_session(&mut self) -> SessionId {
        self.next_session += 1;
        self.next_session
    }

    fn attempt(&mut self, peer: Site, channel: ChannelIndex, session: SessionId) {
        let orderer = self.truth.orderer();
        let round_trip = self.orderer_round_trip(peer);
        let (wait, event) = if !self.network.can_talk(peer, orderer) {
            (self.scenario.settings.dial_timeout, HostEvent::DeliverFailed { channel, session })
        } else if self.orderer.up {
            (round_trip, HostEvent::DeliverOpened { channel, session })
        } else {
            (round_trip, HostEvent::DeliverFailed { channel, session })
        };
        self.later(wait, peer, event);
    }

    fn orderer_round_trip(&self, peer: Site) -> Duration {
        let orderer = self.truth.orderer();
        self.wire.latency().round_trip(peer, orderer)
    }

    /// Asks the orderer for its newest block; without an answer within a lease it gives up.
    pub(crate) fn probe(&mut self, peer: Site, channel: ChannelIndex) {
        let answers = self.orderer.up && self.network.can_talk(peer, self.truth.orderer());
        // A connection first, then the question.
        let wait = if answers {
            self.orderer_round_trip(peer) * 2
        } else {
            self.scenario.settings.election.leader_alive_threshold
        };
        self.later(wait, peer, HostEvent::Probed { channel, answers });
    }

    pub(crate) fn probed(&mut self, peer: Site, channel: ChannelIndex, answers: bool) -> Check {
        let round_trip = self.orderer_round_trip(peer);
        let newest = self.orderer.chains[channel].last();
        let first = newest.map_or(0, AuthenticBlock::number);
        let blocks = newest.map(|block| Ok::<_, String>((block.block().clone(), block.size())));
        let newest = Headers::of(first, blocks.into_iter())?;
        let found = answers.then_some(OrdererAnswer { round_trip, newest });
        let id = self.truth.channels[channel].id.clone();
        self.feed(peer, Cause::Other, Input::OrdererProbe { channel: id, found })
    }

    /// The puller of a channel, if `session` is still its own.
    fn puller(&mut self, peer: Site, channel: ChannelIndex, session: SessionId) -> Option<&mut Puller> {
        self.hosts[peer].pullers.get_mut(&channel).filter(|puller| puller.session == session)
    }

    pub(crate) fn deliver_opened(&mut self, peer: Site, channel: ChannelIndex, session: SessionId) -> Check {
        if !self.orderer.up || !self.network.can_talk(peer, self.truth.orderer()) {
            return self.deliver_failed(peer, channel, session);
        }
        let Some(puller) = self.puller(peer, channel, session) else { return Ok(()) };
        puller.connected = true;
        puller.failures = 0;
        puller.consumed = 0;
        let next = puller.next;
        let boot = self.hosts[peer].boot;
        let stream = Stream { peer, boot, next, sent: 0 };
        self.orderer.streams.insert((channel, session), stream);
        let id = self.truth.channels[channel].id.clone();
        let round_trip = self.orderer_round_trip(peer);
        self.feed(
            peer,
            Cause::Other,
            Input::OrdererContact { channel: id, in_contact: true, round_trip: Some(round_trip) },
        )?;
        self.pump(channel, session);
        Ok(())
    }

    pub(crate) fn deliver_failed(&mut self, peer: Site, channel: ChannelIndex, session: SessionId) -> Check {
        let retry = self.new_session();
        let jitter = self.rng.random_range(0.5..1.0);
        let Some(puller) = self.puller(peer, channel, session) else { return Ok(()) };
        puller.connected = false;
        puller.session = retry;
        puller.failures = puller.failures.saturating_add(1);
        puller.waiting.clear();
        let backoff = BACKOFF_MIN * 2u32.saturating_pow(puller.failures.saturating_sub(1)).min(1_000);
        let wait = backoff.min(BACKOFF_MAX).mul_f64(jitter);
        self.orderer.streams.remove(&(channel, session));
        self.later(wait, peer, HostEvent::DeliverRetry { channel, session: retry });
        let id = self.truth.channels[channel].id.clone();
        self.feed(
            peer,
            Cause::Other,
            Input::OrdererContact { channel: id, in_contact: false, round_trip: None },
        )
    }

    pub(crate) fn deliver_retry(&mut self, peer: Site, channel: ChannelIndex, session: SessionId) {
        if self.puller(peer, channel, session).is_some() {
            self.attempt(peer, channel, session);
        }
    }

    pub(crate) fn deliver_silent(&mut self, peer: Site, channel: ChannelIndex, session: SessionId) -> Check {
        if self.network.can_talk(peer, self.truth.orderer()) {
            return Ok(());
        }
        self.deliver_failed(peer, channel, session)
    }

    pub(crate) fn deliver_block(
        &mut self,
        peer: Site,
        channel: ChannelIndex,
        session: SessionId,
        block: AuthenticBlock,
    ) -> Check {
        let orderer = self.truth.orderer();
        self.measurements.trace(self.now, orderer, peer, Kind::Deliver as u8, block.size());
        self.measurements.block_bytes_received += block.size() as u64;
        self.measurements.arrived(peer, channel, block.number(), false);
        let Some(puller) = self.puller(peer, channel, session) else { return Ok(()) };
        puller.waiting.push_back(block);
        self.take_delivered(peer, channel)
    }

    /// Feeds waiting blocks to the node as far as there are places.
    pub(crate) fn take_delivered(&mut self, peer: Site, channel: ChannelIndex) -> Check {
        let settings = &self.scenario.settings;
        let window = usize::try_from(settings.block_buffer_size).unwrap_or(usize::MAX);
        let blocks_max = settings.orderer_blocks_in_flight.min(window).max(1);
        let bytes_max = settings.orderer_bytes_in_flight;
        loop {
            let Some(puller) = self.hosts[peer].pullers.get_mut(&channel) else { return Ok(()) };
            let Some(size) = puller.waiting.front().map(AuthenticBlock::size) else { return Ok(()) };
            let blocks = puller.verifying.len() + puller.committing.len();
            let bytes: usize = puller.verifying.values().chain(puller.committing.values()).sum();
            if blocks >= blocks_max || (blocks > 0 && bytes + size > bytes_max) {
                return Ok(());
            }
            let Some(block) = puller.waiting.pop_front() else { return Ok(()) };
            puller.consumed += 1;
            puller.next = block.number() + 1;
            let session = puller.session;
            let latency = self.wire.latency().one_way(peer, self.truth.orderer());
            self.queue.push(self.now + latency, Event::Pump { channel, session });
            let id = self.truth.channels[channel].id.clone();
            let body = block.encoded().clone();
            self.feed(peer, Cause::Orderer(channel), Input::OrdererBlock { channel: id, body })?;
        }
    }

    /// A block of the orderer goes to verification: it keeps its place.
    pub(crate) fn deliver_verifying(
        &mut self,
        peer: Site,
        channel: ChannelIndex,
        ticket: Ticket,
        size: usize,
    ) {
        if let Some(puller) = self.hosts[peer].pullers.get_mut(&channel) {
            puller.verifying.insert(ticket, size);
        }
    }

    /// A block was verified: it keeps its place until it is committed, or gives it back.
    pub(crate) fn deliver_verified(
        &mut self,
        peer: Site,
        channel: ChannelIndex,
        ticket: Ticket,
        number: Option<u64>,
    ) {
        let host = &mut self.hosts[peer];
        let height = host.height(channel);
        if let Some(puller) = host.pullers.get_mut(&channel)
            && let Some(size) = puller.verifying.remove(&ticket)
            && let Some(number) = number.filter(|number| *number >= height)
        {
            puller.committing.insert(number, size);
        }
    }

    /// All blocks below the ledger's height have given back their places.
    pub(crate) fn deliver_committed(&mut self, peer: Site, channel: ChannelIndex) {
        let host = &mut self.hosts[peer];
        let height = host.height(channel);
        if let Some(puller) = host.pullers.get_mut(&channel) {
            puller.committing = puller.committing.split_off(&height);
        }
    }

    /// Sends what a stream may carry.
    pub(crate) fn pump(&mut self, channel: ChannelIndex, session: SessionId) {
        let orderer = self.truth.orderer();
        let Some(stream) = self.orderer.streams.get_mut(&(channel, session)) else { return };
        let peer = stream.peer;
        if self.network.is_cut(orderer, peer) || self.hosts[peer].boot != stream.boot {
            return;
        }
        let consumed = self.hosts[peer].pullers.get(&channel).map_or(0, |puller| puller.consumed);
        while stream.sent < consumed + STREAM_WINDOW {
            let place = usize::try_from(stream.next).unwrap_or(usize::MAX);
            let Some(block) = self.orderer.chains[channel].get(place).cloned() else { return };
            stream.next += 1;
            stream.sent += 1;
            let (size, boot) = (block.size(), stream.boot);
            self.measurements.orderer_bytes_sent += size as u64;
            let packet = Packet::Orderer { channel, session, boot, block };
            self.wire.send(self.now, orderer, peer, Class::Bulk, size, packet);
        }
    }

    /// The streams of a channel, or of all.
    pub(crate) fn pump_all(&mut self, channel: Option<ChannelIndex>) {
        let streams: Vec<(ChannelIndex, SessionId)> =
            self.orderer.streams.keys().filter(|(of, _)| channel.is_none_or(|c| c == *of)).copied().collect();
        for (channel, session) in streams {
            self.pump(channel, session);
        }
    }

    /// The orderer's process is gone: its streams break.
    pub(crate) fn orderer_stops(&mut self) {
        self.orderer.up = false;
        let orderer = self.truth.orderer();
        for ((channel, session), stream) in std::mem::take(&mut self.orderer.streams) {
            let wait = if self.network.is_cut(orderer, stream.peer) {
                self.scenario.settings.broken_after
            } else {
                self.wire.latency().one_way(orderer, stream.peer)
            };
            let event = HostEvent::DeliverFailed { channel, session };
            self.queue.push(self.now + wait, Event::Host { peer: stream.peer, boot: stream.boot, event });
        }
    }
}
