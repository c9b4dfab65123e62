//! What all processes of a network have cost up to a moment, and what they cost between two.

use std::time::{Duration, Instant};

use grapevine_network::{Network, NetworkError};

/// Sums over all peers that run.
#[derive(Debug, Clone)]
pub(crate) struct Sample {
    at: Instant,
    peers: usize,
    cpu: Duration,
    /// Bytes read from sockets of other peers.
    from_peers: u64,
    /// Bytes written by the orderers, all of which peers read, but for the few that answer who submits.
    from_orderers: u64,
}

/// What happened between two samples.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Spent {
    /// Length of the time.
    pub(crate) seconds: f64,
    /// Processor seconds of a peer, mean over the peers.
    pub(crate) cpu_seconds_per_peer: f64,
    /// Bytes a peer read from its sockets, the orderer's among them, mean over the peers.
    pub(crate) bytes_in_per_peer: f64,
    /// Bytes the orderers wrote.
    pub(crate) orderer_bytes: f64,
}

impl Sample {
    /// Looks at every peer and orderer; takes some milliseconds.
    pub(crate) fn take(network: &Network) -> Result<Self, NetworkError> {
        let (mut cpu, mut from_peers, mut from_orderers) = (Duration::ZERO, 0u64, 0u64);
        let mut peers = 0;
        for peer in network.peers() {
            if !network.is_running(peer)? {
                continue;
            }
            peers += 1;
            cpu += network.cpu_time(peer)?;
            let status = network.status(peer)?;
            let bytes = status.counters.get("net_bytes_in").copied();
            from_peers += bytes.ok_or_else(|| {
                NetworkError::State(format!("{peer} does not count the bytes of its sockets"))
            })?;
        }
        for orderer in network.orderers() {
            from_orderers += network.orderer_traffic(orderer)?.bytes_out;
        }
        Ok(Self { at: Instant::now(), peers, cpu, from_peers, from_orderers })
    }

    /// What happened since an earlier sample of the same processes.
    pub(crate) fn since(&self, earlier: &Self) -> Spent {
        let peers = to_f64(self.peers.max(1) as u64);
        let orderer_bytes = to_f64(self.from_orderers.saturating_sub(earlier.from_orderers));
        let peer_bytes = to_f64(self.from_peers.saturating_sub(earlier.from_peers));
        Spent {
            seconds: self.at.duration_since(earlier.at).as_secs_f64(),
            cpu_seconds_per_peer: self.cpu.saturating_sub(earlier.cpu).as_secs_f64() / peers,
            bytes_in_per_peer: (peer_bytes + orderer_bytes) / peers,
            orderer_bytes,
        }
    }
}

/// Numbers here stay far below 2^53.
pub(crate) fn to_f64(value: u64) -> f64 {
    value as f64
}

/// Mean over the running peers of some amount of memory in KiB, and the largest, in MB of 10^6 bytes.
pub(crate) fn memory_mb(
    network: &Network,
    of: impl Fn(&str) -> Result<Option<u64>, NetworkError>,
) -> Result<(f64, f64), NetworkError> {
    let mut all = Vec::new();
    for peer in network.peers() {
        if network.is_running(peer)? {
            all.extend(of(peer)?.map(|kib| to_f64(kib * 1_024) / 1e6));
        }
    }
    let mean = all.iter().sum::<f64>() / to_f64(all.len().max(1) as u64);
    Ok((mean, all.into_iter().fold(0.0, f64::max)))
}
