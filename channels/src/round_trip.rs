//! Round trips to the connected peers, measured by pings.
//!
//! # Promise
//! Every connected peer is pinged when it connects, [`QUICK_PROBES`] times in short order, and then rarely: once in
//! [`PROBE_INTERVAL`], longer with many peers, each time at a random moment within it. The smoothed round trip follows TCP's
//! rule (RFC 6298: an eighth of each new sample). An unanswered ping is given up when the next is due.
//!
//! # Bounds
//! One open ping and one estimate for each connected peer; they go with the connection.
//!
//! # Attacks
//! A pong counts only with the random nonce of the open ping, so a peer can seem farther than it is (and is then given
//! less to do) but not nearer.

use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::time::Duration;

use grapevine_crypto::PkiId;
use rand::RngExt;
use rand::rngs::ChaCha8Rng;

use crate::time::Time;

/// Pings in short order after connecting.
pub const QUICK_PROBES: u32 = 3;
/// Time between them.
pub const QUICK_INTERVAL: Duration = Duration::from_millis(200);
/// Mean time between pings of one peer afterwards.
pub const PROBE_INTERVAL: Duration = Duration::from_secs(30);
/// Mean time between pings of all peers together: with more than [`PROBE_INTERVAL`] ÷ this many, each is pinged less often.
pub const PROBE_SPACING: Duration = Duration::from_millis(100);

/// A ping to be sent.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Ping {
    /// To.
    pub peer: PkiId,
    /// What the pong must repeat.
    pub nonce: u64,
}

#[derive(Debug)]
struct Estimate {
    smoothed: Option<Duration>,
    open: Option<(u64, Time)>,
    next_probe: Time,
    quick_probes: u32,
}

/// The machine. See the module's header.
#[derive(Debug)]
pub struct RoundTrips {
    peers: BTreeMap<PkiId, Estimate>,
    due: BTreeSet<(Time, PkiId)>,
    rng: ChaCha8Rng,
    pings: VecDeque<Ping>,
}

impl RoundTrips {
    /// Nobody is connected.
    pub fn new(rng: ChaCha8Rng) -> Self {
        Self { peers: BTreeMap::new(), due: BTreeSet::new(), rng, pings: VecDeque::new() }
    }

    /// A peer is connected.
    pub fn handle_connected(&mut self, now: Time, peer: PkiId) {
        self.handle_disconnected(peer);
        let estimate = Estimate { smoothed: None, open: None, next_probe: now, quick_probes: QUICK_PROBES };
        self.peers.insert(peer, estimate);
        self.due.insert((now, peer));
        self.handle_timeout(now);
    }

    /// It no longer is.
    pub fn handle_disconnected(&mut self, peer: PkiId) {
        if let Some(estimate) = self.peers.remove(&peer) {
            self.due.remove(&(estimate.next_probe, peer));
        }
    }

    /// A round trip measured elsewhere, such as by the transport's handshake; no quick pings are needed any more.
    pub fn handle_measured(&mut self, now: Time, peer: PkiId, round_trip: Duration) {
        let next = now + self.interval();
        let Some(estimate) = self.peers.get_mut(&peer) else { return };
        estimate.smoothed = Some(smooth(estimate.smoothed, round_trip));
        if estimate.quick_probes > 0 {
            estimate.quick_probes = 0;
            self.due.remove(&(estimate.next_probe, peer));
            estimate.next_probe = next;
            self.due.insert((next, peer));
        }
    }

    /// A pong: the smoothed round trip, if it answers the open ping.
    pub fn handle_pong(&mut self, now: Time, peer: PkiId, nonce: u64) -> Option<Duration> {
        let estimate = self.peers.get_mut(&peer)?;
        let (_, sent) = estimate.open.take_if(|(open, _)| *open == nonce)?;
        let smoothed = smooth(estimate.smoothed, now.since(sent));
        estimate.smoothed = Some(smoothed);
        Some(smoothed)
    }

    /// Pings who is due.
    pub fn handle_timeout(&mut self, now: Time) {
        while let Some((at, peer)) = self.due.first().copied().filter(|(at, _)| *at <= now) {
            self.due.remove(&(at, peer));
            let (nonce, interval) = (self.rng.random::<u64>(), self.interval());
            let Some(estimate) = self.peers.get_mut(&peer) else { continue };
            estimate.open = Some((nonce, now));
            estimate.quick_probes = estimate.quick_probes.saturating_sub(1);
            estimate.next_probe = now + if estimate.quick_probes > 0 { QUICK_INTERVAL } else { interval };
            self.due.insert((estimate.next_probe, peer));
            self.pings.push_back(Ping { peer, nonce });
        }
    }

    /// When [`RoundTrips::handle_timeout`] is due next.
    pub fn next_deadline(&self) -> Option<Time> {
        self.due.first().map(|(at, _)| *at)
    }

    /// The next ping to send.
    pub fn poll_ping(&mut self) -> Option<Ping> {
        self.pings.pop_front()
    }

    /// The smoothed round trip to a connected peer, once one is known.
    pub fn round_trip(&self, peer: &PkiId) -> Option<Duration> {
        self.peers.get(peer)?.smoothed
    }

    /// Half to one and a half times the mean, so that peers that started together drift apart.
    fn interval(&mut self) -> Duration {
        let peers = u32::try_from(self.peers.len()).unwrap_or(u32::MAX);
        PROBE_INTERVAL.max(PROBE_SPACING.saturating_mul(peers)).mul_f64(self.rng.random_range(0.5..1.5))
    }
}

fn smooth(former: Option<Duration>, sample: Duration) -> Duration {
    former.map_or(sample, |former| former - former / 8 + sample / 8)
}

#[cfg(test)]
mod tests {
    use super::*;
    use rand::SeedableRng;

    fn peer(index: usize) -> PkiId {
        PkiId::new(&"Org1MSP".into(), &format!("peer{index}"))
    }

    fn new() -> RoundTrips {
        RoundTrips::new(ChaCha8Rng::seed_from_u64(1))
    }

    #[test]
    fn a_peer_is_pinged_at_once_and_the_estimate_follows() {
        let mut machine = new();
        machine.handle_connected(Time::ZERO, peer(1));
        let ping = machine.poll_ping().unwrap();
        assert_eq!(machine.poll_ping(), None);
        assert_eq!(machine.handle_pong(Time::from_millis(5), peer(1), ping.nonce ^ 1), None, "wrong nonce");
        assert_eq!(machine.handle_pong(Time::from_millis(5), peer(2), ping.nonce), None, "wrong peer");
        let round_trip = machine.handle_pong(Time::from_millis(8), peer(1), ping.nonce);
        assert_eq!(round_trip, Some(Duration::from_millis(8)));
        assert_eq!(machine.handle_pong(Time::from_millis(9), peer(1), ping.nonce), None, "answered already");
        machine.handle_timeout(Time::ZERO + QUICK_INTERVAL);
        let ping = machine.poll_ping().unwrap();
        let answered = Time::ZERO + QUICK_INTERVAL + Duration::from_millis(16);
        machine.handle_pong(answered, peer(1), ping.nonce);
        assert_eq!(machine.round_trip(&peer(1)), Some(Duration::from_millis(9)));
    }

    #[test]
    fn after_the_quick_pings_one_in_half_to_one_and_a_half_intervals() {
        let mut machine = new();
        machine.handle_connected(Time::ZERO, peer(1));
        let mut now = Time::ZERO;
        for _ in 1..QUICK_PROBES {
            now = now + QUICK_INTERVAL;
            assert_eq!(machine.next_deadline(), Some(now));
            machine.handle_timeout(now);
        }
        for _ in 0..20 {
            let next = machine.next_deadline().unwrap();
            let wait = next.since(now);
            assert!(wait >= PROBE_INTERVAL / 2 && wait <= PROBE_INTERVAL * 3 / 2, "{wait:?}");
            machine.handle_timeout(next);
            now = next;
        }
    }

    #[test]
    fn a_measured_round_trip_saves_the_quick_pings() {
        let mut machine = new();
        machine.handle_connected(Time::ZERO, peer(1));
        machine.handle_measured(Time::ZERO, peer(1), Duration::from_millis(30));
        assert_eq!(machine.round_trip(&peer(1)), Some(Duration::from_millis(30)));
        assert!(machine.next_deadline().unwrap() >= Time::ZERO + PROBE_INTERVAL / 2);
    }

    #[test]
    fn what_is_kept_goes_with_the_connection() {
        let mut machine = new();
        for _ in 0..3 {
            (0..10).for_each(|index| machine.handle_connected(Time::ZERO, peer(index)));
        }
        assert_eq!((machine.peers.len(), machine.due.len()), (10, 10));
        (0..10).for_each(|index| machine.handle_disconnected(peer(index)));
        assert_eq!((machine.peers.len(), machine.due.len()), (0, 0));
        assert_eq!(machine.next_deadline(), None);
    }

    #[test]
    fn many_peers_are_each_pinged_less_often() {
        let mut machine = new();
        (0..1_000).for_each(|index| machine.handle_connected(Time::ZERO, peer(index)));
        let mut pings = 0;
        while let Some(at) = machine.next_deadline().filter(|at| *at < Time::from_millis(1_000_000)) {
            machine.handle_timeout(at);
            pings += std::iter::from_fn(|| machine.poll_ping()).count();
        }
        assert!(pings < 14_000, "{pings} pings in 1000 s");
    }
}
