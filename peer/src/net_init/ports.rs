//! Free ports for processes whose description says 0.
//!
//! They are taken below the range from which Linux picks ports for outgoing connections (32768 upwards), so that no
//! connection can sit on the port of a process that is down for a while. The search starts at a place that depends
//! on directory and process, so that networks made at the same time rarely try the same ports.

use std::collections::BTreeSet;
use std::hash::{DefaultHasher, Hash, Hasher};
use std::iter;
use std::net::{SocketAddr, TcpListener};
use std::path::Path;

use grapevine_configs::NetworkConfig;

use super::NetInitError;

/// First port that is tried.
pub(super) const FIRST: u16 = 10_000;
/// Last port that is tried.
pub(super) const LAST: u16 = 32_000;

/// Replaces every port 0, in the order of the description.
pub(super) fn choose(network: &mut NetworkConfig, dir: &Path) -> Result<(), NetInitError> {
    let mut hasher = DefaultHasher::new();
    (std::path::absolute(dir).unwrap_or_else(|_| dir.to_path_buf()), std::process::id()).hash(&mut hasher);
    let mut search = Search { taken: written(network), next: hasher.finish() };
    let domain = network.ordering.domain.clone();
    for orderer in &mut network.ordering.orderers {
        search.fill(&orderer.name, &domain, &mut orderer.listen_address)?;
    }
    for organization in &mut network.organizations {
        for peer in &mut organization.peers {
            search.fill(&peer.name, &organization.domain, &mut peer.listen_address)?;
            if let Some(address) = &mut peer.deliver_listen_address {
                search.fill(&peer.name, &organization.domain, address)?;
            }
        }
    }
    Ok(())
}

/// Ports that the description names for any address.
fn written(network: &NetworkConfig) -> BTreeSet<u16> {
    let peers = network.organizations.iter().flat_map(|organization| &organization.peers);
    let peers = peers.flat_map(|peer| iter::once(peer.listen_address).chain(peer.deliver_listen_address));
    let peers = peers.map(|address| address.port());
    peers.chain(network.ordering.orderers.iter().map(|orderer| orderer.listen_address.port())).collect()
}

struct Search {
    taken: BTreeSet<u16>,
    next: u64,
}

impl Search {
    fn fill(&mut self, name: &str, domain: &str, address: &mut SocketAddr) -> Result<(), NetInitError> {
        if address.port() != 0 {
            return Ok(());
        }
        let name = || grapevine_configs::network::full_name(name, domain);
        let ports = u64::from(LAST - FIRST) + 1;
        for _ in 0..ports {
            let offset = u16::try_from(self.next % ports).unwrap_or_default();
            self.next = self.next.wrapping_add(1);
            let port = FIRST.saturating_add(offset);
            if self.taken.contains(&port) {
                continue;
            }
            match TcpListener::bind((address.ip(), port)) {
                Ok(_released) => {
                    self.taken.insert(port);
                    address.set_port(port);
                    return Ok(());
                }
                Err(error) if error.kind() == std::io::ErrorKind::AddrNotAvailable => {
                    return Err(NetInitError::ForeignAddress { name: name(), address: address.ip() });
                }
                Err(_) => {}
            }
        }
        Err(NetInitError::NoPort { name: name(), address: address.ip() })
    }
}
