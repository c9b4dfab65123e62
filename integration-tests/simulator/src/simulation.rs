//! The run: takes one event after another and lets it happen.

use std::collections::BTreeSet;
use std::time::Duration;

use grapevine_channels::authority::ToyAuthority;
use grapevine_channels::node::{ChannelSetup, Input, Node, Start};
use grapevine_channels::time::Time;
use rand::rngs::ChaCha8Rng;
use rand::{Rng, SeedableRng};

use crate::checker::{Check, Checker, Violation};
use crate::event::{Event, HostEvent, Packet, Queue, SessionId};
use crate::host::Host;
use crate::links::{Latency, Wire};
use crate::measured::Bytes;
use crate::network::Network;
use crate::orderer::Orderer;
use crate::report::{Measurements, Report, ms};
use crate::scenario::Scenario;
use crate::scoreboard::Scoreboard;
use crate::truth::{ChannelIndex, Site, Truth};

/// Events between two whole checks, of small networks.
const WHOLE_CHECK_EVENTS: u64 = 1_000;
/// Timeouts of one peer without time passing, after which it is stuck in a loop.
const TIMEOUTS_AT_ONE_MOMENT_MAX: u32 = 1_000;
/// Time between two looks whether everybody has everything.
pub(crate) const CHECK_INTERVAL: Duration = Duration::from_millis(50);
/// Unix time at virtual zero.
const WALL_START_MS: i64 = 1_700_000_000_000;

/// Kinds of events in the trace.
#[derive(Debug, Clone, Copy)]
pub(crate) enum Kind {
    Control = 1,
    Bulk = 2,
    Deliver = 3,
    Connected = 4,
    Broken = 5,
    Committed = 6,
    Fault = 7,
    Boot = 8,
    Made = 9,
}

/// Why a node does something: decides whom a block under verification counts for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Cause {
    /// `on_request`: a block that this peer asked for.
    Peer {
        from: Site,
        on_request: bool,
    },
    Orderer(ChannelIndex),
    Other,
}

/// One run of a scenario.
#[derive(Debug)]
pub struct Simulation {
    pub(crate) scenario: Scenario,
    pub(crate) truth: Truth,
    pub(crate) seed: u64,
    pub(crate) rng: ChaCha8Rng,
    pub(crate) wire: Wire<Packet>,
    pub(crate) now: Time,
    pub(crate) queue: Queue,
    pub(crate) network: Network,
    pub(crate) orderer: Orderer,
    pub(crate) hosts: Vec<Host>,
    pub(crate) checker: Checker,
    pub(crate) measurements: Measurements,
    pub(crate) board: Scoreboard,
    pub(crate) bytes: Bytes,
    /// The run is for its figures: it does not end by itself.
    pub(crate) is_measured: bool,
    pub(crate) next_session: SessionId,
    pub(crate) last_fault: Time,
    pub(crate) calm_since: Option<Time>,
    pub(crate) settled_at: Option<Time>,
}

impl Simulation {
    /// A run over links as the scenario has them.
    ///
    /// # Errors
    /// A scenario that contradicts itself.
    pub fn new(scenario: Scenario, seed: u64) -> Result<Self, Violation> {
        let latency = Latency::of(scenario.distance, scenario.peers() + 1, seed);
        Self::with_latency(scenario, latency, seed)
    }

    /// A run of sites that are so far apart, whatever the scenario says.
    ///
    /// # Errors
    /// A scenario that contradicts itself.
    pub fn with_latency(scenario: Scenario, latency: Latency, seed: u64) -> Result<Self, Violation> {
        let truth = Truth::new(&scenario).map_err(|what| Violation { seed, at: Time::ZERO, what })?;
        let peers = truth.peers.len();
        let mut queue = Queue::default();
        if scenario.warm {
            queue.push(Time::ZERO, Event::Warm);
        }
        for peer in 0..peers {
            queue.push(scenario.starts.get(&peer).copied().unwrap_or_default(), Event::Boot { peer });
        }
        for channel in 0..truth.channels.len() {
            queue.push(scenario.first_block, Event::Produce { channel });
        }
        for (at, fault) in &scenario.faults {
            queue.push(*at, Event::Fault(fault.clone()));
        }
        queue.push(Time::ZERO + CHECK_INTERVAL, Event::Check);
        let mut orderer = Orderer::new(&truth);
        for channel in 0..truth.channels.len() {
            (0..scenario.history).for_each(|_| orderer.make(channel, scenario.block_bytes, Time::ZERO));
        }
        let hosts = (0..peers).map(|peer| {
            let joined = (0..truth.channels.len())
                .filter(|channel| truth.is_member(peer, *channel))
                .filter(|channel| !scenario.joins_later.contains(&(peer, *channel)));
            let drift_ppm = scenario.clock_drift_ppm.get(&peer).copied().unwrap_or(0);
            let mut host = Host::new(truth.channels.len(), joined.collect(), drift_ppm);
            if scenario.history > 0 && !scenario.behind.contains(&peer) {
                for channel in &host.joined {
                    host.ledgers[*channel].clone_from(&orderer.chains[*channel]);
                }
            }
            host
        });
        Ok(Self {
            hosts: hosts.collect(),
            orderer,
            checker: Checker::new(peers, &scenario.settings.dissemination),
            last_fault: scenario
                .faults
                .iter()
                .map(|(at, _)| *at)
                .chain(scenario.starts.values().copied())
                .max()
                .unwrap_or_default(),
            network: Network::default(),
            measurements: Measurements::default(),
            board: Scoreboard::default(),
            bytes: Bytes::default(),
            is_measured: false,
            rng: ChaCha8Rng::seed_from_u64(seed),
            now: Time::ZERO,
            next_session: 0,
            calm_since: None,
            settled_at: None,
            truth,
            seed,
            wire: Wire::new(scenario.links.clone(), latency, peers + 1, seed),
            queue,
            scenario,
        })
    }

    /// Runs to the end.
    ///
    /// # Errors
    /// The first violation.
    pub fn run(mut self) -> Result<Report, Violation> {
        loop {
            let finished = self.step().map_err(|what| Violation { seed: self.seed, at: self.now, what })?;
            if finished {
                return Ok(self.report());
            }
        }
    }

    /// When the next event happens.
    pub(crate) fn next_event(&self) -> Option<Time> {
        self.wire.next().into_iter().chain(self.queue.next()).min()
    }

    /// Lets the next event happen. True at the end.
    pub(crate) fn step(&mut self) -> Result<bool, String> {
        if let Some(at) = self.wire.next().filter(|at| self.queue.next().is_none_or(|next| *at <= next)) {
            self.now = at;
            let Some(delivery) = self.wire.step() else { return Ok(false) };
            self.count_event()?;
            self.delivered(delivery)?;
            return Ok(false);
        }
        let Some((at, event)) = self.queue.pop() else { return Err("nothing happens any more".into()) };
        self.now = at;
        if matches!(event, Event::Check) {
            return self.look();
        }
        self.count_event()?;
        self.happen(event)?;
        Ok(false)
    }

    /// Checks everything now and then.
    fn count_event(&mut self) -> Check {
        self.measurements.events += 1;
        if self.measurements.events.is_multiple_of(WHOLE_CHECK_EVENTS) {
            self.checker.regular(&self.truth, &self.orderer, &self.hosts)?;
        }
        Ok(())
    }

    pub(crate) fn happen(&mut self, event: Event) -> Check {
        match event {
            Event::Host { peer, boot, event } => {
                let host = &mut self.hosts[peer];
                if host.boot != boot || host.node.is_none() {
                    return Ok(());
                }
                if host.paused {
                    host.inbox.push_back(event);
                    return Ok(());
                }
                self.host_event(peer, event)
            }
            Event::Warm => self.warm_up(),
            Event::Boot { peer } => self.boot(peer),
            Event::Fault(fault) => self.fault(fault),
            Event::Established { dialer, listener, boots, endpoint } => {
                self.established(dialer, listener, boots, endpoint)
            }
            Event::Silence { connection, direction, since } => {
                self.silence(connection, direction, since);
                Ok(())
            }
            Event::Produce { channel } => {
                self.produce(channel);
                Ok(())
            }
            Event::Pump { channel, session } => {
                self.pump(channel, session);
                Ok(())
            }
            Event::Check => Ok(()),
        }
    }

    pub(crate) fn host_event(&mut self, peer: Site, event: HostEvent) -> Check {
        match event {
            HostEvent::Timer { generation } => self.timer(peer, generation),
            HostEvent::Arrival { connection, message } => self.arrival(peer, connection, message),
            HostEvent::Broken { connection } => self.broken(peer, connection),
            HostEvent::DialFailed { endpoint } => self.feed(
                peer,
                Cause::Other,
                Input::DialFailed { endpoint, reason: "nobody answers".to_owned() },
            ),
            HostEvent::Verified { ticket, channel, from, on_request, result } => {
                if let Some(from) = from.filter(|_| !on_request) {
                    self.checker.verifying(peer, from, false)?;
                }
                if let Ok(block) = &result {
                    self.checker.verified(peer, block);
                    self.score_verified(peer, channel, block, from.is_none(), on_request);
                }
                let number = result.as_ref().ok().map(|block| block.number());
                self.deliver_verified(peer, channel, ticket, number);
                self.feed(peer, Cause::Other, Input::Verified { ticket, result })?;
                self.take_delivered(peer, channel)
            }
            HostEvent::HeadersVerified { ticket, result } => {
                self.feed(peer, Cause::Other, Input::HeadersVerified { ticket, result })
            }
            HostEvent::HeadersRead { peer: to, channel, headers } => {
                self.feed(peer, Cause::Other, Input::HeadersRead { peer: to, channel, headers })
            }
            HostEvent::DiskDone => self.disk_done(peer),
            HostEvent::Probed { channel, answers } => self.probed(peer, channel, answers),
            HostEvent::DeliverOpened { channel, session } => self.deliver_opened(peer, channel, session),
            HostEvent::DeliverFailed { channel, session } => self.deliver_failed(peer, channel, session),
            HostEvent::DeliverSilent { channel, session } => self.deliver_silent(peer, channel, session),
            HostEvent::DeliverRetry { channel, session } => {
                self.deliver_retry(peer, channel, session);
                Ok(())
            }
            HostEvent::DeliverBlock { channel, session, block } => {
                self.deliver_block(peer, channel, session, block)
            }
        }
    }

    /// Schedules something at a peer.
    pub(crate) fn later(&mut self, wait: Duration, peer: Site, event: HostEvent) {
        let boot = self.hosts[peer].boot;
        self.queue.push(self.now + wait, Event::Host { peer, boot, event });
    }

    /// Feeds a node and does what it wants.
    pub(crate) fn feed(&mut self, peer: Site, cause: Cause, input: Input) -> Check {
        let now = self.hosts[peer].local(self.now);
        let Some(node) = &mut self.hosts[peer].node else { return Ok(()) };
        node.handle(now, input);
        self.carry_out(peer, cause)
    }

    /// Does all that a node wants, then sets its timer.
    pub(crate) fn carry_out(&mut self, peer: Site, cause: Cause) -> Check {
        while let Some(output) = self.hosts[peer].node.as_mut().and_then(Node::poll_output) {
            self.carry_out_one(peer, cause, output)?;
        }
        let host = &mut self.hosts[peer];
        let Some(deadline) = host.node.as_ref().and_then(Node::next_deadline) else { return Ok(()) };
        let at = host.global(deadline).max(self.now);
        if host.timer_at != Some(at) {
            host.timer_at = Some(at);
            host.timer_generation += 1;
            let event = HostEvent::Timer { generation: host.timer_generation };
            self.queue.push(at, Event::Host { peer, boot: host.boot, event });
        }
        Ok(())
    }

    fn timer(&mut self, peer: Site, generation: u64) -> Check {
        let host = &mut self.hosts[peer];
        if host.timer_generation != generation {
            return Ok(());
        }
        host.timer_at = None;
        host.timeouts =
            if host.timeouts.0 == self.now { (self.now, host.timeouts.1 + 1) } else { (self.now, 1) };
        if host.timeouts.1 > TIMEOUTS_AT_ONE_MOMENT_MAX {
            return Err(format!("{} sets timers for the past without end", self.truth.name(peer)));
        }
        let now = host.local(self.now);
        if let Some(node) = &mut host.node {
            node.handle_timeout(now);
        }
        self.carry_out(peer, Cause::Other)
    }

    pub(crate) fn boot(&mut self, peer: Site) -> Check {
        if self.hosts[peer].node.is_some() {
            return Ok(());
        }
        self.measurements.trace(self.now, peer, peer, Kind::Boot as u8, 0);
        let truth = &self.truth.peers[peer];
        let organizations: Vec<&str> =
            self.scenario.organizations.iter().map(|organization| organization.name.as_str()).collect();
        let name = &truth.credential.name;
        let authority = ToyAuthority::new(truth.credential.msp_id.as_str(), name, &organizations);
        let host = &mut self.hosts[peer];
        host.incarnation += 1;
        host.booted_at = self.now;
        let start = Start {
            own: truth.credential.clone(),
            peer_id: format!("{name} {}", host.wipes).into_bytes(),
            incarnation: host.incarnation,
            wall_ms: WALL_START_MS + i64::try_from(self.now.as_nanos() / 1_000_000).unwrap_or_default(),
            seed: self.rng.next_u64(),
        };
        let config = self.scenario.node_config(truth, &self.truth.peers);
        host.node = Some(Node::new(config, start, Box::new(authority), Time::ZERO));
        self.checker.started(peer, &self.hosts[peer]);
        let channels: Vec<ChannelIndex> = self.hosts[peer].joined.iter().copied().collect();
        for channel in channels {
            self.join(peer, channel)?;
        }
        self.carry_out(peer, Cause::Other)
    }

    /// Joins a channel with what the ledger holds of it, at least its genesis block.
    pub(crate) fn join(&mut self, peer: Site, channel: ChannelIndex) -> Check {
        let host = &mut self.hosts[peer];
        host.joined.insert(channel);
        if host.node.as_ref().is_none_or(|node| node.height(&self.truth.channels[channel].id).is_some()) {
            return Ok(());
        }
        let truth = &self.truth.channels[channel];
        let ledger = &mut host.ledgers[channel];
        if ledger.is_empty() {
            ledger.push(truth.genesis.clone());
        }
        let tip = ledger.last().unwrap_or(&truth.genesis).hash();
        let setup = ChannelSetup {
            channel: truth.id.clone(),
            scope: truth.scope.clone(),
            anchors: truth.anchors.clone(),
            height: ledger.len() as u64,
            tip,
        };
        self.checker.joined(peer, channel, &self.hosts[peer]);
        self.feed(peer, Cause::Other, Input::Join(setup))
    }

    fn produce(&mut self, channel: ChannelIndex) {
        if self.orderer.height(channel) > self.scenario.blocks {
            return;
        }
        if self.orderer.up {
            self.orderer.make(channel, self.scenario.block_bytes, self.now);
            let orderer = self.truth.orderer();
            self.measurements.trace(self.now, orderer, channel, Kind::Made as u8, self.scenario.block_bytes);
            self.pump_all(Some(channel));
        }
        self.queue.push(self.now + self.scenario.block_interval, Event::Produce { channel });
    }

    /// Writes what waits, as one batch.
    pub(crate) fn write(&mut self, peer: Site) {
        let host = &mut self.hosts[peer];
        if host.disk_writing.is_some() || host.disk_waiting.is_empty() {
            return;
        }
        let batch = std::mem::take(&mut host.disk_waiting);
        let bytes: usize = batch.iter().map(|(_, block)| block.size()).sum();
        host.disk_writing = Some(batch);
        let settings = &self.scenario.settings;
        let cost = settings.disk_cost + cost_of(settings.disk_cost_per_mb, bytes);
        self.later(cost, peer, HostEvent::DiskDone);
    }

    fn disk_done(&mut self, peer: Site) -> Check {
        let host = &mut self.hosts[peer];
        let batch = host.disk_writing.take().unwrap_or_default();
        let mut channels = BTreeSet::new();
        for (channel, block) in batch {
            let made_at =
                usize::try_from(block.number()).ok().and_then(|n| self.orderer.made_at[channel].get(n));
            if let Some(made_at) = made_at.filter(|_| self.truth.is_honest(peer)) {
                self.measurements.committed(channel, block.number(), self.now.since(*made_at));
            }
            self.measurements.trace(self.now, peer, channel, Kind::Committed as u8, block.size());
            host.ledgers[channel].push(block);
            channels.insert(channel);
        }
        self.write(peer);
        for channel in channels {
            self.deliver_committed(peer, channel);
            let host = &self.hosts[peer];
            let Some(tip) = host.ledgers[channel].last() else { continue };
            let (height, tip) = (host.height(channel), tip.hash());
            let id = self.truth.channels[channel].id.clone();
            self.feed(peer, Cause::Other, Input::Committed { channel: id, height, tip })?;
            self.take_delivered(peer, channel)?;
        }
        Ok(())
    }

    fn report(&self) -> Report {
        let scenario = &self.scenario;
        let latencies = self.measurements.latencies();
        let made = |channel: ChannelIndex| self.orderer.height(channel).saturating_sub(1);
        let channels = 0..self.truth.channels.len();
        let bytes = |blocks: u64| (blocks as f64 * scenario.block_bytes as f64).max(1.0);
        // What the leaders had to send at least once: every block for each organisation of its channel.
        let led: u64 = channels
            .clone()
            .map(|channel| made(channel) * self.truth.channels[channel].organizations.len() as u64)
            .sum();
        let peer_seconds = self.now.as_nanos() as f64 / 1e9 * scenario.peers() as f64;
        let settled = self.settled_at.unwrap_or(self.now).since(self.calm_since.unwrap_or(self.now));
        Report {
            protocol: "grapevine".into(),
            peers: scenario.peers(),
            organizations: scenario.organizations.len(),
            block_bytes: scenario.block_bytes,
            blocks: channels.map(made).sum(),
            seed: self.seed,
            p50_ms: latencies.p50_ms,
            p99_ms: latencies.p99_ms,
            last_ms_mean: latencies.last_ms_mean,
            last_ms_max: latencies.last_ms_max,
            copies: self.measurements.block_bytes_received as f64 / bytes(self.measurements.commits()),
            leader_egress_blocks: self.measurements.leader_bytes_sent as f64 / bytes(led),
            control_bytes_per_s: self.measurements.control_bytes_received as f64 / peer_seconds.max(1e-9),
            missed: self.measurements.missed(),
            leader_changes: self.measurements.leader_changes,
            penalties: self.measurements.penalties,
            events: self.measurements.events,
            virtual_s: self.now.as_nanos() as f64 / 1e9,
            settled_ms: ms(settled),
            trace_hash: self.measurements.trace_hash(),
        }
    }
}

/// Time for `bytes` at a price per MB.
pub(crate) fn cost_of(per_mb: Duration, bytes: usize) -> Duration {
    per_mb.mul_f64(bytes as f64 / 1e6)
}
