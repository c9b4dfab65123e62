//! The owner's side of the transport: dial, send, disconnect, shut down.
//!
//! Nothing here waits, apart from [`NetHandle::shutdown`]: sending puts a frame into the bounded queue of
//! its connection or says why not, dialing starts a task. Dials to an endpoint that is being dialed
//! collapse into one.

use std::{
    collections::{HashMap, HashSet, VecDeque},
    net::SocketAddr,
    sync::{Arc, Mutex, MutexGuard, PoisonError, RwLock, atomic::Ordering},
    time::Duration,
};

use bytes::Bytes;
use grapevine_crypto::PkiId;
use libp2p::PeerId;
use tokio::{runtime, sync::mpsc};
use tokio_util::{sync::CancellationToken, task::TaskTracker};

use super::{
    BulkMessage, NetCounters, NetEvent, SendError,
    bulk::{
        budget::Budget,
        outgoing::{Message, Outgoing},
    },
    counters::count,
    driver::Command,
    lanes::Lanes,
    link::Link,
    registry::Registry,
};

/// Addresses of one host name that are tried.
const ADDRESSES_MAX: usize = 4;
/// An endpoint is a host name (at most 253 characters) and a port.
const ENDPOINT_BYTES_MAX: usize = 300;
/// How long a shutdown waits for connections to close in order before it cuts them.
pub(crate) const SHUTDOWN_GRACE: Duration = Duration::from_millis(500);

/// The connections that can be sent to, by peer.
#[derive(Debug, Default)]
pub(crate) struct Links(RwLock<HashMap<PkiId, Arc<Link>>>);

impl Links {
    pub(crate) fn insert(&self, link: &Arc<Link>) {
        self.0.write().unwrap_or_else(PoisonError::into_inner).insert(link.peer, link.clone());
    }

    pub(crate) fn remove(&self, link: &Link) {
        let mut links = self.0.write().unwrap_or_else(PoisonError::into_inner);
        if links.get(&link.peer).is_some_and(|current| current.connection == link.connection) {
            links.remove(&link.peer);
        }
    }

    fn find(&self, peer: &PkiId) -> Option<Arc<Link>> {
        self.0.read().unwrap_or_else(PoisonError::into_inner).get(peer).cloned()
    }
}

/// What handle and driver share.
#[derive(Debug)]
pub(crate) struct Shared {
    pub(crate) links: Arc<Links>,
    pub(crate) registry: Registry,
    pub(crate) counters: Arc<NetCounters>,
    pub(crate) lanes: Lanes,
    /// Bulk messages that wait for all peers.
    pub(crate) outgoing: Mutex<Outgoing>,
    /// Bodies that come in from all peers.
    pub(crate) budget: Budget,
    /// Bounded by its users: one command per endpoint in `dialing`, one per connection.
    pub(crate) commands: mpsc::UnboundedSender<Command>,
    pub(crate) dialing: Mutex<HashSet<String>>,
    pub(crate) tasks: TaskTracker,
    pub(crate) runtime: runtime::Handle,
    pub(crate) stop: CancellationToken,
    pub(crate) hard_stop: CancellationToken,
    pub(crate) local: PeerId,
    pub(crate) listen_address: SocketAddr,
    pub(crate) dial_timeout: Duration,
    pub(crate) dials_max: usize,
    pub(crate) control_frame_bytes_max: usize,
    pub(crate) bulk_header_bytes_max: usize,
    pub(crate) bulk_body_bytes_max: usize,
}

impl Shared {
    /// What waits to be sent. Never held over a wait.
    pub(crate) fn outgoing(&self) -> MutexGuard<'_, Outgoing> {
        self.outgoing.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn dialing(&self) -> MutexGuard<'_, HashSet<String>> {
        self.dialing.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// The dial has ended well.
    pub(crate) fn dialed(&self, endpoint: &str) {
        self.dialing().remove(endpoint);
    }

    /// Reports a failed dial. The endpoint counts as being dialed until the owner has room for the
    /// report, which bounds these tasks.
    pub(crate) fn dial_failed(self: &Arc<Self>, endpoint: String, reason: String) {
        let shared = self.clone();
        let report = async move {
            let event = NetEvent::DialFailed { endpoint: endpoint.clone(), reason };
            tokio::select! {
                () = shared.hard_stop.cancelled() => {}
                // Removed just before: whoever hears of the failure may dial again at once.
                _ = shared.lanes.control_after(event, || shared.dialed(&endpoint)) => {}
            }
        };
        self.tasks.spawn_on(report, &self.runtime);
    }
}

/// A handle on a running transport; clones are equal. Dropping all of them does not stop it.
#[derive(Debug, Clone)]
pub struct NetHandle {
    pub(crate) shared: Arc<Shared>,
}

impl NetHandle {
    /// Dials `host:port`. Ends with `Connected` (as dialer) or `DialFailed`. Does nothing if this
    /// endpoint is being dialed already.
    pub fn dial(&self, endpoint: impl Into<String>) {
        let endpoint = endpoint.into();
        let shared = self.shared.clone();
        {
            let mut dialing = shared.dialing();
            if dialing.contains(&endpoint) {
                return;
            }
            if dialing.len() >= shared.dials_max || endpoint.len() > ENDPOINT_BYTES_MAX {
                drop(dialing);
                count(&shared.counters.dials_dropped);
                let reason = "too many dials are under way, or the endpoint is too long".to_owned();
                // Not waited for: this endpoint holds no place that would bound the waiting.
                shared.lanes.try_control(NetEvent::DialFailed { endpoint, reason });
                return;
            }
            dialing.insert(endpoint.clone());
        }
        let resolving = async move {
            let addresses = tokio::select! {
                () = shared.stop.cancelled() => return,
                addresses = resolve(&endpoint, shared.dial_timeout) => addresses,
            };
            // Fails only when the driver has ended, and then nobody listens for the outcome.
            let _ = shared.commands.send(Command::Dial { endpoint, addresses });
        };
        self.shared.tasks.spawn_on(resolving, &self.shared.runtime);
    }

    /// Queues a control frame for `peer`. An empty frame is a keep-alive and is not delivered.
    pub fn send_control(&self, peer: PkiId, frame: Bytes) -> Result<(), SendError> {
        if frame.len() > self.shared.control_frame_bytes_max {
            return Err(SendError::TooLarge);
        }
        let link = self.shared.links.find(&peer).ok_or(SendError::NotConnected)?;
        let sent = link.send_control(frame);
        if sent.is_err() {
            count(&self.shared.counters.control_dropped);
        }
        sent
    }

    /// Queues a bulk message for `peer`.
    pub fn send_bulk(&self, peer: PkiId, message: BulkMessage) -> Result<(), SendError> {
        let shared = &self.shared;
        let BulkMessage { flow, header, body, is_push } = message;
        if header.len() > shared.bulk_header_bytes_max || body.len() > shared.bulk_body_bytes_max {
            return Err(SendError::TooLarge);
        }
        let link = shared.links.find(&peer).ok_or(SendError::NotConnected)?;
        let (sent, thrown_out) = {
            let mut outgoing = shared.outgoing();
            let before = outgoing.thrown_out();
            let message = Message { header, body, is_droppable: is_push };
            let sent = outgoing.push(link.connection, flow, message);
            (sent, outgoing.thrown_out().saturating_sub(before))
        };
        shared.counters.bulk_thrown_out.fetch_add(thrown_out, Ordering::Relaxed);
        match sent {
            Ok(()) => link.wake_bulk(),
            Err(SendError::QueueFull) => count(&shared.counters.bulk_dropped),
            Err(_) => {}
        }
        sent
    }

    /// Ends the connection to `peer`, if there is one. It is reported as `Disconnected` with `reason`.
    pub fn disconnect(&self, peer: PkiId, reason: &str) {
        if let Some(link) = self.shared.links.find(&peer) {
            // At once, so that a dial right after this one is not taken for a second connection.
            self.shared.registry.disconnected(&link.peer_id, link.connection);
            link.close(reason);
        }
    }

    /// The libp2p PeerId of this peer, as bytes.
    pub fn local_peer_id(&self) -> Vec<u8> {
        self.shared.local.to_bytes()
    }

    /// The address listened on, with the real port if the configured one was 0.
    pub fn listen_address(&self) -> SocketAddr {
        self.shared.listen_address
    }

    /// Bytes of bulk messages that wait to be sent, and of bodies that are accounted for and not taken by the owner, by name.
    pub fn gauges(&self) -> [(&'static str, usize); 2] {
        let shared = &self.shared;
        [
            ("net_bulk_waiting_bytes", shared.outgoing().bytes()),
            ("net_bulk_arriving_bytes", shared.budget.used()),
        ]
    }

    /// What the transport has done so far.
    pub fn counters(&self) -> &NetCounters {
        &self.shared.counters
    }

    /// Stops listening, closes all connections and waits until every task has ended, about half a
    /// second at most.
    pub async fn shutdown(&self) {
        let shared = &self.shared;
        shared.stop.cancel();
        shared.tasks.close();
        // What has not ended in order by then is cut.
        let _ = tokio::time::timeout(SHUTDOWN_GRACE, shared.tasks.wait()).await;
        shared.hard_stop.cancel();
        shared.tasks.wait().await;
    }
}

async fn resolve(endpoint: &str, limit: Duration) -> Result<VecDeque<SocketAddr>, String> {
    match tokio::time::timeout(limit, tokio::net::lookup_host(endpoint)).await {
        Ok(Ok(addresses)) => Ok(addresses.take(ADDRESSES_MAX).collect()),
        Ok(Err(error)) => Err(format!("cannot resolve: {error}")),
        Err(_) => Err("cannot resolve: no answer in time".to_owned()),
    }
}
