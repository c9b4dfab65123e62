//! The task around the swarm: dials, takes connections, starts and ends their links.
//!
//! It never waits for anything but its inputs: frames go past it through the links' own tasks, events
//! are passed on by tasks of their own. Every connection has one link; a newer connection to the same
//! peer closes the older one (why that is right: `registry`). Each dial tries the addresses of its
//! endpoint one after the other; two endpoints that lead to one address are one dial.

use std::{
    collections::{HashMap, VecDeque},
    net::SocketAddr,
    sync::Arc,
    time::Duration,
};

use futures::StreamExt as _;
use grapevine_crypto::PkiId;
use libp2p::{
    PeerId, Swarm, TransportError,
    core::{ConnectedPoint, transport::ListenerId},
    swarm::{ConnectionId, DialError, SwarmEvent, dial_opts::DialOpts},
};
use tokio::sync::mpsc;

use super::{
    BodyLimit,
    frames::FrameLimits,
    gate::{LinkStream, MembershipGate},
    handle::Shared,
    handshake::Refusal,
    link::{Greeting, Link, LinkTask, QueueLimits},
    registry::Admitted,
    tcp::{to_multiaddr, to_socket_address},
    upgrade::LogBudget,
};

/// Streams of one connection on their way to its link: four and a possible failure.
const STREAM_EVENTS: usize = 8;
/// How long an ended connection may take to close in order before it is cut.
const CLOSE_GRACE: Duration = Duration::from_secs(1);
/// How long a shutdown waits for the connections to close in order.
const STOP_GRACE: Duration = Duration::from_millis(300);

/// What handles and links ask of the driver.
#[derive(Debug)]
pub(crate) enum Command {
    /// Dial an endpoint whose name has been resolved, or report that it could not be.
    Dial { endpoint: String, addresses: Result<VecDeque<SocketAddr>, String> },
    /// The link of this connection has stopped; close the connection.
    Closing(ConnectionId),
    /// The link of this connection has reported its end.
    Ended(ConnectionId),
}

/// A dial under way.
#[derive(Debug)]
struct Dial {
    /// The first is the one that `Connected` names.
    endpoints: Vec<String>,
    address: SocketAddr,
    remaining: VecDeque<SocketAddr>,
}

#[derive(Debug)]
struct Entry {
    link: Arc<Link>,
    streams: mpsc::Sender<LinkStream>,
}

/// Limits that every link gets.
#[derive(Debug, Clone, Copy)]
pub(crate) struct LinkLimits {
    pub(crate) frames: FrameLimits,
    pub(crate) queues: QueueLimits,
    pub(crate) keep_alive_interval: Duration,
}

/// The state of the task.
pub(crate) struct Driver {
    swarm: Swarm<MembershipGate>,
    listener: ListenerId,
    shared: Arc<Shared>,
    commands: mpsc::UnboundedReceiver<Command>,
    body_limit: Arc<dyn BodyLimit>,
    limits: LinkLimits,
    dials: HashMap<ConnectionId, Dial>,
    entries: HashMap<ConnectionId, Entry>,
    current: HashMap<PkiId, Arc<Link>>,
    next_connection: u64,
    log: LogBudget,
}

impl Driver {
    pub(crate) fn new(
        swarm: Swarm<MembershipGate>,
        listener: ListenerId,
        shared: Arc<Shared>,
        commands: mpsc::UnboundedReceiver<Command>,
        body_limit: Arc<dyn BodyLimit>,
        limits: LinkLimits,
    ) -> Self {
        Self {
            swarm,
            listener,
            shared,
            commands,
            body_limit,
            limits,
            dials: HashMap::new(),
            entries: HashMap::new(),
            current: HashMap::new(),
            next_connection: 1,
            log: LogBudget::default(),
        }
    }

    /// Runs until the transport is stopped.
    pub(crate) async fn run(mut self) {
        let stop = self.shared.stop.clone();
        loop {
            tokio::select! {
                () = stop.cancelled() => break,
                Some(command) = self.commands.recv() => self.on_command(command),
                event = self.swarm.select_next_some() => self.on_swarm_event(event),
            }
        }
        self.shut_down().await;
    }

    async fn shut_down(&mut self) {
        self.swarm.remove_listener(self.listener);
        for (id, entry) in &self.entries {
            entry.link.close("this peer shuts down");
            self.swarm.close_connection(*id);
        }
        let swarm = &mut self.swarm;
        let all_closed = async {
            while swarm.network_info().num_peers() > 0 {
                swarm.select_next_some().await;
            }
        };
        // A peer that does not answer the closing is cut below.
        let _ = tokio::time::timeout(STOP_GRACE, all_closed).await;
        for entry in self.entries.values() {
            entry.link.kill.kill();
        }
    }

    fn on_command(&mut self, command: Command) {
        match command {
            Command::Dial { endpoint, addresses: Ok(addresses) } => {
                self.dial(vec![endpoint], addresses, "the name has no address".to_owned());
            }
            Command::Dial { endpoint, addresses: Err(reason) } => self.shared.dial_failed(endpoint, reason),
            Command::Closing(id) => self.close(id),
            Command::Ended(id) => {
                if let Some(Entry { link, .. }) = self.entries.remove(&id)
                    && self.current.get(&link.peer).is_some_and(|now| now.connection == link.connection)
                {
                    self.current.remove(&link.peer);
                }
            }
        }
    }

    /// Dials the next address, or reports that none is left.
    fn dial(&mut self, endpoints: Vec<String>, mut remaining: VecDeque<SocketAddr>, mut reason: String) {
        while let Some(address) = remaining.pop_front() {
            if let Some(dial) = self.dials.values_mut().find(|dial| dial.address == address) {
                dial.endpoints.extend(endpoints);
                return;
            }
            let options =
                DialOpts::unknown_peer_id().address(to_multiaddr(address)).allocate_new_port().build();
            let id = options.connection_id();
            match self.swarm.dial(options) {
                Ok(()) => {
                    self.dials.insert(id, Dial { endpoints, address, remaining });
                    return;
                }
                // The swarm takes out addresses it listens on itself.
                Err(DialError::NoAddresses) => {
                    reason = "self".to_owned();
                    break;
                }
                Err(error) => reason = error.to_string(),
            }
        }
        for endpoint in endpoints {
            self.shared.dial_failed(endpoint, reason.clone());
        }
    }

    fn on_swarm_event(&mut self, event: SwarmEvent<(ConnectionId, LinkStream)>) {
        match event {
            SwarmEvent::Behaviour((id, stream)) => {
                if let Some(entry) = self.entries.get(&id)
                    && entry.streams.try_send(stream).is_err()
                {
                    // Only a link that has stopped takes no streams.
                    tracing::debug!(connection = entry.link.connection, "stream for an ended connection");
                }
            }
            SwarmEvent::ConnectionEstablished { peer_id, connection_id, endpoint, .. } => {
                self.on_established(peer_id, connection_id, &endpoint);
            }
            SwarmEvent::ConnectionClosed { connection_id, cause, .. } => {
                if let Some(entry) = self.entries.get(&connection_id) {
                    let reason = cause
                        .map_or_else(|| "closed".to_owned(), |cause| format!("connection lost: {cause}"));
                    entry.link.close(&reason);
                }
            }
            SwarmEvent::OutgoingConnectionError { connection_id, error, .. } => {
                self.on_dial_error(connection_id, &error);
            }
            SwarmEvent::ListenerError { error, .. } if self.log.take() => {
                tracing::warn!(%error, "cannot accept connections; raise the limit of open files?");
            }
            SwarmEvent::ListenerClosed { reason, .. } => {
                tracing::error!(?reason, "no longer listening for peers; restart the peer");
            }
            _ => {}
        }
    }

    fn on_dial_error(&mut self, id: ConnectionId, error: &DialError) {
        let Some(Dial { endpoints, remaining, .. }) = self.dials.remove(&id) else { return };
        match refusal_of(error) {
            Some(refusal) => {
                // Another address of the same endpoint leads to the same peer.
                let final_answer = refusal.is_final();
                let remaining = if final_answer { VecDeque::new() } else { remaining };
                self.dial(endpoints, remaining, refusal.to_string());
            }
            None => self.dial(endpoints, remaining, error.to_string()),
        }
    }

    fn on_established(&mut self, peer_id: PeerId, id: ConnectionId, endpoint: &ConnectedPoint) {
        let address = endpoint.get_remote_address();
        let dial = self.dials.remove(&id);
        let Some(admitted) = self.shared.registry.take(&peer_id, address) else {
            // The gate has just seen the record; without it there is nobody to report.
            self.swarm.close_connection(id);
            return;
        };
        let mut endpoints = dial.map(|dial| dial.endpoints).unwrap_or_default().into_iter();
        let remote_address = match endpoints.next() {
            Some(endpoint) => {
                self.shared.dialed(&endpoint);
                endpoint
            }
            None => to_socket_address(address).map_or_else(|| address.to_string(), |a| a.to_string()),
        };
        for endpoint in endpoints {
            self.shared.dial_failed(endpoint, super::ALREADY_CONNECTED.to_owned());
        }
        self.start_link(peer_id, id, admitted, endpoint.is_dialer(), remote_address);
    }

    fn start_link(
        &mut self,
        peer_id: PeerId,
        id: ConnectionId,
        admitted: Admitted,
        dialer: bool,
        remote_address: String,
    ) {
        let Admitted { verified, kill, claim, .. } = admitted;
        let peer = verified.identity.pki_id();
        let connection = self.next_connection;
        self.next_connection = self.next_connection.saturating_add(1);
        let registry = &self.shared.registry;
        registry.connected(peer_id, connection, verified.instance, dialer);
        // The connection counts now; the claim for it is no longer needed.
        drop(claim);
        let link = Arc::new(Link::new(peer, peer_id, connection, kill, self.limits.queues));
        let replaces = self.current.insert(peer, link.clone());
        if let Some(replaced) = &replaces {
            registry.disconnected(&replaced.peer_id, replaced.connection);
            replaced.close("replaced by a newer connection");
        }
        let (sender, streams) = mpsc::channel(STREAM_EVENTS);
        self.entries.insert(id, Entry { link: link.clone(), streams: sender });
        let task = LinkTask {
            link,
            id,
            replaces,
            streams,
            shared: self.shared.clone(),
            body_limit: self.body_limit.clone(),
            limits: self.limits.frames,
            keep_alive_interval: self.limits.keep_alive_interval,
        };
        let greeting =
            Greeting { identity: verified.identity, session: verified.session, dialer, remote_address };
        self.shared.tasks.spawn_on(task.run(greeting), &self.shared.runtime);
    }

    fn close(&mut self, id: ConnectionId) {
        self.swarm.close_connection(id);
        let Some(Entry { link, .. }) = self.entries.get(&id) else { return };
        self.shared.registry.disconnected(&link.peer_id, link.connection);
        let (kill, stop) = (link.kill.clone(), self.shared.stop.clone());
        let cut = async move {
            tokio::select! {
                () = tokio::time::sleep(CLOSE_GRACE) => {}
                () = stop.cancelled() => {}
            }
            kill.kill();
        };
        self.shared.tasks.spawn_on(cut, &self.shared.runtime);
    }
}

/// The refusal inside the swarm's boxed errors.
fn refusal_of(error: &DialError) -> Option<&Refusal> {
    let DialError::Transport(errors) = error else { return None };
    errors.iter().find_map(|(_, error)| match error {
        TransportError::Other(error) => error.get_ref()?.downcast_ref::<Refusal>(),
        TransportError::MultiaddrNotSupported(_) => None,
    })
}
