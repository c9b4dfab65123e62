//! From a description of a network to one that can run here, now: every process gets a free port, and with links a proxy in front of it.

use std::net::SocketAddr;

use grapevine_configs::{Endpoint, NetworkConfig};

use crate::error::NetworkError;
use crate::links::Links;
use crate::namespaces::Namespaces;
use crate::ports::PortLease;

/// Where a process listens and what others are told.
#[derive(Debug)]
pub(crate) struct Place {
    /// Name of the process, also the name of its directory.
    pub(crate) name: String,
    /// `None` for an orderer.
    pub(crate) msp_id: Option<String>,
    /// The channels it joins at its start (all, for an orderer).
    pub(crate) channels: Vec<String>,
    /// Where it listens.
    pub(crate) listen: SocketAddr,
    /// Keeps the port.
    pub(crate) lease: PortLease,
}

/// Replaces all addresses of `config`; what the processes are told about each other goes through `links` if given; every process gets a namespace of its own
/// if those are given.
///
/// An address that was to be reachable for other organisations stays reachable for them, and no other becomes so.
pub(crate) fn place(
    config: &mut NetworkConfig,
    links: Option<&Links>,
    namespaces: Option<&Namespaces>,
) -> Result<Vec<Place>, NetworkError> {
    config.validate().map_err(|error| NetworkError::Description(error.to_string()))?;
    let mut places = Vec::new();
    let anchors = anchors(config);
    let every_channel: Vec<String> = config.channels.iter().map(|channel| channel.name.clone()).collect();
    let domain = config.ordering.domain.clone();
    for orderer in &mut config.ordering.orderers {
        let name = grapevine_configs::network::full_name(&orderer.name, &domain);
        let (lease, listen, advertised) = address(&name, links, namespaces)?;
        orderer.listen_address = listen;
        orderer.external_endpoint = Some(Endpoint::from(advertised));
        places.push(Place { name, msp_id: None, channels: every_channel.clone(), listen, lease });
    }
    for organization in &mut config.organizations {
        let msp_id = organization.msp_id.clone();
        for peer in &mut organization.peers {
            let name = grapevine_configs::network::full_name(&peer.name, &organization.domain);
            let (lease, listen, advertised) = address(&name, links, namespaces)?;
            let advertised = Endpoint::from(advertised);
            peer.listen_address = listen;
            if peer.external_endpoint.is_some() || anchors.contains(&name) {
                peer.external_endpoint = Some(advertised.clone());
            }
            peer.gossip.0.insert("endpoint".to_owned(), advertised.to_string().into());
            let joins = |channel: &&grapevine_configs::network::Channel| channel.joins(&msp_id, &name);
            let channels = config.channels.iter().filter(joins).map(|channel| channel.name.clone()).collect();
            places.push(Place { name, msp_id: Some(msp_id.clone()), channels, listen, lease });
        }
    }
    config.validate().map_err(|error| NetworkError::Description(error.to_string()))?;
    Ok(places)
}

/// Full names of all peers that are an anchor of some channel.
fn anchors(config: &NetworkConfig) -> std::collections::BTreeSet<String> {
    config
        .channels
        .iter()
        .flat_map(|channel| {
            config.organizations.iter().flat_map(|organization| channel.anchors(organization))
        })
        .collect()
}

/// A port, the address to listen on and the one to tell others.
fn address(
    name: &str,
    links: Option<&Links>,
    namespaces: Option<&Namespaces>,
) -> Result<(PortLease, SocketAddr, SocketAddr), NetworkError> {
    let lease = PortLease::take().map_err(NetworkError::io(format!("taking a port for {name}")))?;
    let listen = match namespaces {
        Some(namespaces) => SocketAddr::from((namespaces.add(name)?, lease.port())),
        None => lease.address(),
    };
    let advertised = match links {
        Some(links) => links
            .open(name, listen)
            .map_err(NetworkError::io(format!("opening a proxy in front of {name}")))?,
        None => listen,
    };
    Ok((lease, listen, advertised))
}

#[cfg(test)]
mod tests {
    use grapevine_configs::ConfigFile as _;

    use super::*;
    use crate::builder::TWO_ORGANIZATIONS;

    fn sample() -> NetworkConfig {
        NetworkConfig::parse(TWO_ORGANIZATIONS, "two-organizations.yaml", None, std::iter::empty()).unwrap().0
    }

    #[test]
    fn every_process_gets_an_address_of_its_own_and_the_channels_it_joins() {
        let mut config = sample();
        let places = place(&mut config, None, None).unwrap();
        let names: Vec<&str> = places.iter().map(|place| place.name.as_str()).collect();
        assert_eq!(
            names,
            [
                "orderer.example.com",
                "peer0.org1.example.com",
                "peer1.org1.example.com",
                "peer0.org2.example.com",
                "peer1.org2.example.com"
            ]
        );
        let channels: Vec<_> = places.iter().map(|place| place.channels.join(",")).collect();
        assert_eq!(channels, ["trade,audit", "trade,audit", "trade,audit", "trade", "trade"]);
        let peer = &config.organizations[0].peers[0];
        assert_eq!(peer.listen_address, places[1].lease.address());
        assert_eq!(peer.external_endpoint, Some(Endpoint::from(places[1].lease.address())));
    }

    #[test]
    fn with_links_nobody_is_told_where_a_process_really_listens() {
        let mut config = sample();
        let links = Links::new().unwrap();
        let places = place(&mut config, Some(&links), None).unwrap();
        for organization in &config.organizations {
            for peer in &organization.peers {
                let real = Endpoint::from(peer.listen_address);
                let told = peer.gossip.0["endpoint"].as_str().unwrap();
                assert_ne!(told, real.to_string());
                assert_eq!(peer.external_endpoint.as_ref().unwrap().to_string(), told);
            }
        }
        let orderer = &config.ordering.orderers[0];
        assert_eq!(orderer.listen_address, places[0].lease.address());
        assert_ne!(orderer.external_endpoint, Some(Endpoint::from(orderer.listen_address)));
    }

    #[test]
    fn a_peer_hidden_from_other_organisations_stays_hidden() {
        let mut config = sample();
        config.organizations[0].peers[1].external_endpoint = None;
        place(&mut config, None, None).unwrap();
        assert_eq!(config.organizations[0].peers[1].external_endpoint, None);
    }

    #[test]
    fn a_description_that_makes_no_sense_is_refused() {
        let mut config = sample();
        config.channels[0].organizations.push("Org9MSP".to_owned());
        let error = place(&mut config, None, None).unwrap_err();
        assert!(matches!(&error, NetworkError::Description(text) if text.contains("Org9MSP")), "{error}");
    }
}
