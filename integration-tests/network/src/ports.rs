//! Free TCP ports that stay free.
//!
//! A port found by binding to port 0 and closing the socket again can be taken before the process under test binds it:
//! by another test, or by the kernel as the source port of any outgoing connection. Here a port is *leased*:
//! it lies outside the range from which the kernel picks source ports, and a locked file keeps every other user of
//! this harness, in this process or another, away from it until the lease is dropped. A lease survives restarts of the process under test.

use std::fs::{File, OpenOptions};
use std::io;
use std::net::{Ipv4Addr, SocketAddr, TcpListener};
use std::ops::RangeInclusive;
use std::sync::atomic::{AtomicU32, Ordering};

/// Ports below are left to well-known services.
const PORT_MIN: u16 = 10_240;

/// A TCP port on 127.0.0.1 that nobody else using the harness gets while this value lives.
#[derive(Debug)]
pub struct PortLease {
    port: u16,
    /// Holds the lock; the file itself stays, empty, because removing it would let two holders lock different files.
    _lock: File,
}

impl PortLease {
    /// Takes a port that is free now.
    ///
    /// # Errors
    /// If the directory of the lock files cannot be written, or every port is taken.
    pub fn take() -> io::Result<Self> {
        static NEXT: AtomicU32 = AtomicU32::new(0);
        let candidates = candidate_ports(&ephemeral_ports());
        let count = u32::try_from(candidates.len()).unwrap_or(u32::MAX).max(1);
        // Processes start at different places, so that they rarely try the same lock.
        let start = std::process::id().wrapping_mul(977);
        let directory =
            std::env::temp_dir().join(format!("grapevine-ports-{}", rustix::process::getuid().as_raw()));
        std::fs::create_dir_all(&directory)?;
        for _ in 0..count {
            let step = NEXT.fetch_add(1, Ordering::Relaxed);
            let index = start.wrapping_add(step) % count;
            let Some(&port) = candidates.get(index as usize) else { continue };
            let path = directory.join(port.to_string());
            let lock = OpenOptions::new().create(true).append(true).open(path)?;
            if lock.try_lock().is_ok() && TcpListener::bind((Ipv4Addr::LOCALHOST, port)).is_ok() {
                return Ok(Self { port, _lock: lock });
            }
        }
        Err(io::Error::new(io::ErrorKind::AddrInUse, "every TCP port outside the ephemeral range is taken"))
    }

    /// The port number.
    #[must_use]
    pub const fn port(&self) -> u16 {
        self.port
    }

    /// The port on the loopback address, where the processes under test listen.
    #[must_use]
    pub const fn address(&self) -> SocketAddr {
        SocketAddr::new(std::net::IpAddr::V4(Ipv4Addr::LOCALHOST), self.port)
    }
}

/// The range from which the kernel picks source ports (Linux default 32768 to 60999).
fn ephemeral_ports() -> RangeInclusive<u16> {
    let text = std::fs::read_to_string("/proc/sys/net/ipv4/ip_local_port_range").unwrap_or_default();
    let mut numbers = text.split_whitespace().map_while(|word| word.parse().ok());
    match (numbers.next(), numbers.next()) {
        (Some(low), Some(high)) => low..=high,
        _ => 32_768..=60_999,
    }
}

/// Every port that may be leased; if the kernel uses them all as source ports, a race is better than nothing.
fn candidate_ports(ephemeral: &RangeInclusive<u16>) -> Vec<u16> {
    let outside: Vec<u16> = (PORT_MIN..=u16::MAX).filter(|port| !ephemeral.contains(port)).collect();
    if outside.is_empty() { (PORT_MIN..=u16::MAX).collect() } else { outside }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::collections::BTreeSet;

    #[test]
    fn many_threads_never_get_the_same_port() {
        let leases: Vec<PortLease> = std::thread::scope(|scope| {
            let threads: Vec<_> = (0..8)
                .map(|_| scope.spawn(|| (0..25).map(|_| PortLease::take().unwrap()).collect::<Vec<_>>()))
                .collect();
            threads.into_iter().flat_map(|thread| thread.join().unwrap()).collect()
        });
        let ports: BTreeSet<u16> = leases.iter().map(PortLease::port).collect();
        assert_eq!(ports.len(), 200);
        let ephemeral = ephemeral_ports();
        assert!(ports.iter().all(|port| !ephemeral.contains(port)));
        for lease in &leases {
            TcpListener::bind(lease.address()).unwrap();
        }
    }

    #[test]
    fn a_leased_port_cannot_be_locked_again_until_it_is_dropped() {
        let lease = PortLease::take().unwrap();
        let path = std::env::temp_dir()
            .join(format!("grapevine-ports-{}", rustix::process::getuid().as_raw()))
            .join(lease.port().to_string());
        let second = OpenOptions::new().append(true).open(path).unwrap();
        assert!(second.try_lock().is_err());
        drop(lease);
        second.try_lock().unwrap();
    }

    #[test]
    fn ports_are_chosen_outside_the_ephemeral_range_unless_it_covers_everything() {
        assert!(candidate_ports(&(32_768..=60_999)).contains(&PORT_MIN));
        assert!(!candidate_ports(&(32_768..=60_999)).contains(&40_000));
        assert!(candidate_ports(&(1_024..=65_535)).contains(&40_000));
    }
}
