//! Which peers are admitted and which are connected: the one place where it is decided that a pair of
//! peers has one connection.
//!
//! **One connection per pair.** Both sides may dial at once. Of the two peers the one with the smaller
//! PeerId decides, alone, so both always agree:
//! - as a dialer it gives up when an inbound handshake of the same peer is already admitted;
//! - as a listener it refuses when its own dial to that peer is past the secure channel, or has just
//!   become a connection to the same process ([`SIMULTANEOUS`]).
//!
//! The larger PeerId never refuses for this reason. Any peer that already has a connection gives up its
//! own further dials to the same peer. So a handshake that completes while a connection exists means
//! that the other side has lost that connection (it restarted, or noticed a cut before us): the newer
//! one replaces the older at once. A restarted process is told from a simultaneous dial by its instance.
//!
//! **Admissions** wait here between the end of a handshake and the swarm's report; the gate denies a
//! connection that has none. They are keyed by PeerId and remote address, taken once, and thrown away
//! after [`ADMISSION_AGE_MAX`] (the swarm had dropped the connection in between).

use std::{
    collections::HashMap,
    net::IpAddr,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    time::{Duration, Instant},
};

use libp2p::{Multiaddr, PeerId};

use super::{
    RefusalKind,
    handshake::{Refusal, Verified},
    tcp::KillSwitch,
};

/// How long after its own dial succeeded the smaller PeerId takes an inbound handshake of the same
/// process for the other half of a simultaneous dial. Twice the longest handshake.
const SIMULTANEOUS: Duration = Duration::from_secs(10);
/// The swarm reports a finished handshake within milliseconds.
const ADMISSION_AGE_MAX: Duration = Duration::from_secs(60);

/// A finished handshake on its way to becoming a connection.
#[derive(Debug)]
pub(crate) struct Admitted {
    pub(crate) verified: Verified,
    pub(crate) kill: KillSwitch,
    /// Keeps the decision for this connection until it is registered as connected.
    pub(crate) claim: Claim,
    pub(crate) since: Instant,
}

#[derive(Debug)]
struct Connected {
    connection: u64,
    instance: [u8; 16],
    dialer: bool,
    since: Instant,
}

#[derive(Debug, Default)]
struct State {
    admitted: HashMap<(PeerId, Multiaddr), Admitted>,
    dialing: HashMap<PeerId, usize>,
    accepting: HashMap<PeerId, usize>,
    connected: HashMap<PeerId, Connected>,
    handshakes: HashMap<IpAddr, usize>,
    handshakes_total: usize,
}

/// The registry, shared by connection tasks, gate and driver.
#[derive(Debug, Clone)]
pub(crate) struct Registry {
    local: PeerId,
    connections_max: usize,
    handshakes_max: usize,
    handshakes_per_ip_max: usize,
    state: Arc<Mutex<State>>,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum ClaimKind {
    Dialing,
    Accepting,
}

/// A handshake that counts in the decision; dropping it takes it out again.
#[derive(Debug)]
pub(crate) struct Claim {
    registry: Registry,
    peer: PeerId,
    kind: ClaimKind,
}

impl Drop for Claim {
    fn drop(&mut self) {
        let mut state = self.registry.lock();
        let claims = match self.kind {
            ClaimKind::Dialing => &mut state.dialing,
            ClaimKind::Accepting => &mut state.accepting,
        };
        decrement(claims, &self.peer);
    }
}

/// A place among the inbound handshakes; dropping it frees the place.
#[derive(Debug)]
pub(crate) struct HandshakeSlot {
    registry: Registry,
    ip: IpAddr,
}

impl Drop for HandshakeSlot {
    fn drop(&mut self) {
        let mut state = self.registry.lock();
        state.handshakes_total = state.handshakes_total.saturating_sub(1);
        decrement(&mut state.handshakes, &self.ip);
    }
}

fn decrement<K: std::hash::Hash + Eq>(counts: &mut HashMap<K, usize>, key: &K) {
    if let Some(count) = counts.get_mut(key) {
        *count = count.saturating_sub(1);
        if *count == 0 {
            counts.remove(key);
        }
    }
}

impl Registry {
    pub(crate) fn new(
        local: PeerId,
        connections_max: usize,
        handshakes_max: usize,
        handshakes_per_ip_max: usize,
    ) -> Self {
        let state = Arc::default();
        Self { local, connections_max, handshakes_max, handshakes_per_ip_max, state }
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        // Nothing under the lock can leave the state half changed.
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// A place for an inbound handshake from `ip`, or a refusal if all are taken.
    pub(crate) fn handshake_slot(&self, ip: IpAddr) -> Result<HandshakeSlot, Refusal> {
        let mut state = self.lock();
        let from_ip = state.handshakes.get(&ip).copied().unwrap_or(0);
        if state.handshakes_total >= self.handshakes_max || from_ip >= self.handshakes_per_ip_max {
            return Err(Refusal::new(RefusalKind::Busy, "too many handshakes are under way"));
        }
        state.handshakes_total = state.handshakes_total.saturating_add(1);
        state.handshakes.insert(ip, from_ip.saturating_add(1));
        Ok(HandshakeSlot { registry: self.clone(), ip })
    }

    /// Asked by a dialer once the secure channel has shown whom it reached.
    pub(crate) fn claim_dial(&self, peer: PeerId) -> Result<Claim, Refusal> {
        let mut state = self.lock();
        let decides = self.local < peer;
        if state.connected.contains_key(&peer)
            || state.dialing.contains_key(&peer)
            || (decides && state.accepting.contains_key(&peer))
        {
            return Err(Refusal::new(RefusalKind::AlreadyConnected, "this peer has a connection to it"));
        }
        Ok(self.claim(&mut state, peer, ClaimKind::Dialing))
    }

    /// Asked by a listener once the dialer has proved its identity.
    pub(crate) fn claim_accept(&self, peer: PeerId, verified: &Verified) -> Result<Claim, Refusal> {
        let mut state = self.lock();
        let decides = self.local < peer;
        let simultaneous = state.connected.get(&peer).is_some_and(|connected| {
            connected.dialer
                && connected.instance == verified.instance
                && connected.since.elapsed() < SIMULTANEOUS
        });
        if decides && (state.dialing.contains_key(&peer) || simultaneous) {
            return Err(Refusal::new(
                RefusalKind::AlreadyConnected,
                "this peer has dialed it at the same time",
            ));
        }
        let others = state.connected.len().saturating_add(state.accepting.len());
        if others >= self.connections_max && !state.connected.contains_key(&peer) {
            return Err(Refusal::new(RefusalKind::Busy, "too many peers are connected"));
        }
        Ok(self.claim(&mut state, peer, ClaimKind::Accepting))
    }

    fn claim(&self, state: &mut State, peer: PeerId, kind: ClaimKind) -> Claim {
        let claims = match kind {
            ClaimKind::Dialing => &mut state.dialing,
            ClaimKind::Accepting => &mut state.accepting,
        };
        let count = claims.entry(peer).or_default();
        *count = count.saturating_add(1);
        Claim { registry: self.clone(), peer, kind }
    }

    /// Records a finished handshake for the gate and the driver.
    pub(crate) fn admit(&self, peer: PeerId, address: Multiaddr, admitted: Admitted) {
        // Dropped outside the lock: a claim takes the lock itself when it goes.
        let mut stale = Vec::new();
        {
            let mut state = self.lock();
            let old: Vec<_> = state
                .admitted
                .iter()
                .filter(|(_, admitted)| admitted.since.elapsed() > ADMISSION_AGE_MAX)
                .map(|(key, _)| key.clone())
                .collect();
            stale.extend(old.iter().filter_map(|key| state.admitted.remove(key)));
            stale.extend(state.admitted.insert((peer, address), admitted));
        }
        drop(stale);
    }

    /// Whether a finished handshake is on record.
    pub(crate) fn is_admitted(&self, peer: &PeerId, address: &Multiaddr) -> bool {
        self.lock().admitted.contains_key(&(*peer, address.clone()))
    }

    /// Takes the record of a finished handshake.
    pub(crate) fn take(&self, peer: &PeerId, address: &Multiaddr) -> Option<Admitted> {
        self.lock().admitted.remove(&(*peer, address.clone()))
    }

    /// The connection stands; it takes the place of an older one to the same peer.
    pub(crate) fn connected(&self, peer: PeerId, connection: u64, instance: [u8; 16], dialer: bool) {
        let connected = Connected { connection, instance, dialer, since: Instant::now() };
        self.lock().connected.insert(peer, connected);
    }

    /// The connection is over; nothing happens if a newer one has taken its place.
    pub(crate) fn disconnected(&self, peer: &PeerId, connection: u64) {
        let mut state = self.lock();
        if state.connected.get(peer).is_some_and(|connected| connected.connection == connection) {
            state.connected.remove(peer);
        }
    }
}
