//! What must hold in a network description beyond the form of its values.

use std::collections::{BTreeMap, BTreeSet};
use std::net::SocketAddr;

use crate::error::Finding;
use crate::gossip::GossipConfig;
use crate::hint::nearest;
use crate::network::{Batch, Channel, NetworkConfig, Organization, full_name};
use crate::orderer::ABSOLUTE_MAX_BYTES_MAX;
use crate::peer::network_id_findings;

/// Longest channel name (Fabric: 249, so that `name-of-database_` prefixes fit into 255).
const CHANNEL_NAME_BYTES_MAX: usize = 249;

/// Longest MSP id or host name that makes a directory name.
const NAME_BYTES_MAX: usize = 200;

pub(crate) fn findings(network: &NetworkConfig) -> Vec<Finding> {
    let mut rules = Rules { network, found: Vec::new(), addresses: BTreeMap::new(), names: BTreeSet::new() };
    rules.found.extend(network_id_findings("network.id", &network.network.id));
    rules.ordering();
    rules.organizations();
    rules.channels();
    rules.found
}

struct Rules<'a> {
    network: &'a NetworkConfig,
    found: Vec<Finding>,
    /// Who listens where.
    addresses: BTreeMap<SocketAddr, String>,
    /// Full names of peers and orderers.
    names: BTreeSet<String>,
}

impl Rules<'_> {
    fn say(&mut self, key: impl Into<String>, message: impl Into<String>) {
        self.found.push((key.into(), message.into()));
    }

    fn ordering(&mut self) {
        let ordering = &self.network.ordering;
        self.msp_id("ordering.organization", &ordering.organization);
        self.domain("ordering.domain", &ordering.domain);
        if ordering.orderers.is_empty() {
            self.say("ordering.orderers", "is empty; list one orderer with name and listenAddress");
        }
        for (index, orderer) in ordering.orderers.iter().enumerate() {
            let path = format!("ordering.orderers[{index}]");
            self.process(&path, &orderer.name, &ordering.domain, orderer.listen_address);
            let endpoint = orderer.external_endpoint.as_ref();
            self.reachable(&path, orderer.listen_address, endpoint.map(|endpoint| endpoint.is_unspecified()));
        }
        self.batch(&ordering.batch);
    }

    fn batch(&mut self, batch: &Batch) {
        let path = "ordering.batch";
        if batch.timeout.as_millis() == 0 {
            self.say(format!("{path}.timeout"), "must be at least 1ms; 500ms is usual");
        }
        if batch.max_message_count == 0 {
            self.say(format!("{path}.maxMessageCount"), "must be at least 1");
        }
        let absolute = batch.absolute_max_bytes;
        if absolute.as_bytes() == 0 || absolute > ABSOLUTE_MAX_BYTES_MAX {
            let message = format!("{absolute} is out of range; write 1 B to {ABSOLUTE_MAX_BYTES_MAX}");
            self.say(format!("{path}.absoluteMaxBytes"), message);
        }
        let preferred = batch.preferred_max_bytes;
        if preferred.as_bytes() == 0 || preferred > absolute {
            let message = format!("{preferred} is out of range; write 1 B to absoluteMaxBytes ({absolute})");
            self.say(format!("{path}.preferredMaxBytes"), message);
        }
    }

    fn organizations(&mut self) {
        let network = self.network;
        if network.organizations.is_empty() {
            self.say(
                "organizations",
                "is empty; list at least one organisation with mspId, domain and peers",
            );
        }
        let mut ids = BTreeSet::from([network.ordering.organization.as_str()]);
        let mut domains = BTreeSet::new();
        for (index, organization) in network.organizations.iter().enumerate() {
            let path = format!("organizations[{index}]");
            self.msp_id(&format!("{path}.mspId"), &organization.msp_id);
            self.domain(&format!("{path}.domain"), &organization.domain);
            if !ids.insert(&organization.msp_id) {
                let message =
                    format!("{} is taken by another organisation; choose another", organization.msp_id);
                self.say(format!("{path}.mspId"), message);
            }
            if !domains.insert(&organization.domain) {
                let message =
                    format!("{} is taken by another organisation; choose another", organization.domain);
                self.say(format!("{path}.domain"), message);
            }
            if organization.peers.is_empty() {
                self.say(
                    format!("{path}.peers"),
                    "is empty; list at least one peer with name and listenAddress",
                );
            }
            self.peers(&path, organization);
        }
    }

    fn peers(&mut self, path: &str, organization: &Organization) {
        for (index, peer) in organization.peers.iter().enumerate() {
            let path = format!("{path}.peers[{index}]");
            self.process(&path, &peer.name, &organization.domain, peer.listen_address);
            if let Some(address) = peer.deliver_listen_address {
                let full = full_name(&peer.name, &organization.domain);
                self.address(&format!("{path}.deliverListenAddress"), full, address);
            }
            let overrides = [&self.network.gossip, &peer.gossip];
            let gossip =
                overrides.into_iter().try_fold(GossipConfig::default(), |base, over| over.apply(base));
            match gossip {
                Ok(gossip) => {
                    self.found.extend(gossip.findings(&format!("{path}.gossip")));
                    let endpoint = gossip.endpoint.as_ref();
                    self.reachable(
                        &path,
                        peer.listen_address,
                        endpoint.map(|endpoint| endpoint.is_unspecified()),
                    );
                }
                Err(error) => self.say(format!("{path}.gossip"), error.to_string()),
            }
            for name in peer.bootstrap.iter().flatten() {
                self.known_peer(&format!("{path}.bootstrap"), name, organization);
            }
        }
    }

    fn channels(&mut self) {
        let mut names = BTreeSet::new();
        for (index, channel) in self.network.channels.iter().enumerate() {
            let path = format!("channels[{index}]");
            if !channel_name(&channel.name) {
                let message = format!(
                    "{:?} cannot name a channel; begin with a small letter, go on with small letters, digits, '.' and '-', \
                     {CHANNEL_NAME_BYTES_MAX} letters at most",
                    channel.name
                );
                self.say(format!("{path}.name"), message);
            }
            if !names.insert(&channel.name) {
                let message = format!("{} is taken by another channel; choose another", channel.name);
                self.say(format!("{path}.name"), message);
            }
            self.channel(&path, channel);
        }
    }

    fn channel(&mut self, path: &str, channel: &Channel) {
        let network = self.network;
        if channel.organizations.is_empty() {
            self.say(format!("{path}.organizations"), "is empty; list the MSP ids of the members");
        }
        let mut seen = BTreeSet::new();
        for (index, member) in channel.organizations.iter().enumerate() {
            let path = format!("{path}.organizations[{index}]");
            if !seen.insert(member) {
                self.say(path, format!("{member} is listed twice; remove one"));
            } else if network.organization(member).is_none() {
                let known = network.organizations.iter().map(|organization| organization.msp_id.as_str());
                let hint = hint(member, known, "add it under organizations");
                self.say(path, format!("there is no organisation {member:?}; {hint}"));
            }
        }
        for (member, anchors) in &channel.anchor_peers {
            let path = format!("{path}.anchorPeers.{member}");
            let Some(organization) = network.organization(member).filter(|_| seen.contains(member)) else {
                let members = channel.organizations.iter().map(String::as_str);
                let hint = hint(member, members, "add it to the channel's organizations");
                self.say(path, format!("{member:?} is no member of this channel; {hint}"));
                continue;
            };
            for name in anchors {
                self.known_peer(&path, name, organization);
            }
        }
        let members =
            || network.organizations.iter().filter(|organization| seen.contains(&organization.msp_id));
        let names: Vec<String> =
            members().flat_map(|org| org.peers.iter().map(|peer| org.peer_name(peer))).collect();
        for name in channel.peers.iter().flatten().filter(|name| !names.contains(name)) {
            let hint = hint(
                name,
                names.iter().map(String::as_str),
                "write the full name, such as peer0.org1.example.com",
            );
            self.say(format!("{path}.peers"), format!("no member organisation has a peer {name:?}; {hint}"));
        }
    }

    /// What holds for every process: a good, unique name and an address of its own.
    fn process(&mut self, path: &str, name: &str, domain: &str, address: SocketAddr) {
        let full = full_name(name, domain);
        if !host_name(&full) {
            let message = format!("{name:?} cannot name a process; use letters, digits, '-' and '.'");
            self.say(format!("{path}.name"), message);
        } else if !self.names.insert(full.to_ascii_lowercase()) {
            self.say(format!("{path}.name"), format!("{full} is taken; choose another name"));
        }
        self.address(&format!("{path}.listenAddress"), full, address);
    }

    /// Nobody else listens there. Port 0 stands for one that is free.
    fn address(&mut self, key: &str, process: String, address: SocketAddr) {
        if address.port() == 0 {
            return;
        }
        if let Some(other) = self.addresses.insert(address, process) {
            let message = format!("{address} is where {other} listens; choose another port");
            self.say(key, message);
        }
    }

    /// A process that listens on any address must say under which one it is reached.
    fn reachable(&mut self, path: &str, address: SocketAddr, endpoint_unspecified: Option<bool>) {
        if endpoint_unspecified.unwrap_or_else(|| address.ip().is_unspecified()) {
            let key = if path.starts_with("ordering") { "externalEndpoint" } else { "gossip.endpoint" };
            let message = format!(
                "others cannot reach {address}; add {key} with the name or address of its machine and the port"
            );
            self.say(format!("{path}.listenAddress"), message);
        }
    }

    fn known_peer(&mut self, key: &str, name: &str, organization: &Organization) {
        if organization.peer(name).is_some() {
            return;
        }
        let names = organization.peers.iter().map(|peer| peer.name.as_str());
        let hint = hint(name, names, "add it to the organisation's peers");
        self.say(key, format!("{} has no peer {name:?}; {hint}", organization.msp_id));
    }

    fn msp_id(&mut self, key: &str, id: &str) {
        let letters = id.chars().all(|c| c.is_ascii_alphanumeric() || matches!(c, '.' | '-' | '_'));
        if id.is_empty() || id.len() > NAME_BYTES_MAX || !letters || id.starts_with('.') {
            let message = format!("{id:?} cannot be an MSP id; use letters, digits, '.', '-' and '_'");
            self.say(key, message);
        }
    }

    fn domain(&mut self, key: &str, domain: &str) {
        if !host_name(domain) {
            self.say(key, format!("{domain:?} is not a domain; write one such as org1.example.com"));
        }
    }
}

fn hint<'a>(name: &str, known: impl Iterator<Item = &'a str>, otherwise: &str) -> String {
    nearest(name, known).map_or_else(|| otherwise.to_owned(), |near| format!("did you mean {near}?"))
}

/// Labels of letters, digits and '-' (and '_', which people use), so that the name is safe as a directory too.
fn host_name(name: &str) -> bool {
    let letter = |c: char| c.is_ascii_alphanumeric() || matches!(c, '-' | '_');
    let label = |label: &str| !label.is_empty() && label.chars().all(letter);
    name.len() <= NAME_BYTES_MAX && name.split('.').all(label)
}

fn channel_name(name: &str) -> bool {
    let rest = |c: char| c.is_ascii_lowercase() || c.is_ascii_digit() || matches!(c, '.' | '-');
    name.len() <= CHANNEL_NAME_BYTES_MAX
        && name.starts_with(|c: char| c.is_ascii_lowercase())
        && name.chars().all(rest)
}
