//! Configuration files of the processes and of a client. Paths in them are relative to the file.

use std::path::{Path, PathBuf};

use grapevine_configs::network::{Orderer, Organization, Peer};
use grapevine_configs::orderer::{Authentication, BatchOverrides, FileLedger, General, OrdererTls};
use grapevine_configs::peer::{AuthenticationConfig, LimitsConfig, NetworkSection, PeerSection};
use grapevine_configs::{
    ClientConfig, ClientSection, ClientTls, ConfigFile, DeliverServiceConfig, Endpoint, FileKey,
    GossipConfig, NetworkConfig, OrdererConfig, PeerConfig, Period, TlsConfig,
};

use super::material::{orderer_organization_dir, peer_organization_dir};
use super::{NetInitError, ProcessKind, ProcessReport, directory};

/// Name of the client's configuration.
pub(super) const CLIENT_FILE: &str = "client.yaml";
/// Name of the data directory in the directory of a process.
pub(super) const DATA: &str = "data";
/// Peers of its organisation that a peer contacts at start; one may be down.
const BOOTSTRAP_PEERS: usize = 2;

/// The processes of a network, orderers first.
pub(super) fn list(network: &NetworkConfig, dir: &Path) -> Vec<ProcessReport> {
    let ordering = &network.ordering;
    let orderers = ordering.orderers.iter().map(|orderer| {
        let name = ordering.orderer_name(orderer);
        ProcessReport {
            config: dir.join(&name).join("orderer.yaml"),
            name,
            msp_id: ordering.organization.clone(),
            kind: ProcessKind::Orderer,
            listen_address: orderer.listen_address,
        }
    });
    let peers = network.organizations.iter().flat_map(|organization| {
        organization.peers.iter().map(move |peer| {
            let name = organization.peer_name(peer);
            ProcessReport {
                config: dir.join(&name).join("peer.yaml"),
                name,
                msp_id: organization.msp_id.clone(),
                kind: ProcessKind::Peer,
                listen_address: peer.listen_address,
            }
        })
    });
    orderers.chain(peers).collect()
}

/// Writes the configuration of every process and of the client.
pub(super) fn write(network: &NetworkConfig, dir: &Path) -> Result<(), NetInitError> {
    for orderer in &network.ordering.orderers {
        let config = orderer_config(network, orderer);
        config.validate()?;
        let path = dir.join(network.ordering.orderer_name(orderer)).join("orderer.yaml");
        directory::write(&path, config.to_yaml()?.as_bytes())?;
    }
    for organization in &network.organizations {
        for peer in &organization.peers {
            let config = peer_config(network, organization, peer)?;
            config.validate()?;
            let path = dir.join(&config.peer.id).join("peer.yaml");
            directory::write(&path, config.to_yaml()?.as_bytes())?;
        }
    }
    if let (Some(organization), Some(orderer)) =
        (network.organizations.first(), network.ordering.orderers.first())
    {
        let config = client_config(network, organization, orderer);
        config.validate()?;
        directory::write(&dir.join(CLIENT_FILE), config.to_yaml()?.as_bytes())?;
    }
    Ok(())
}

/// The address peers and clients are told for an orderer.
pub(super) fn orderer_endpoint(orderer: &Orderer) -> Endpoint {
    orderer.external_endpoint.clone().unwrap_or_else(|| orderer.listen_address.into())
}

/// What a peer tells its own organisation, and others. Both are the listen address unless the description says otherwise,
/// so that every peer can serve the other organisations of its channels, whichever anchor peers are up.
pub(super) fn advertised(network: &NetworkConfig, peer: &Peer) -> (Endpoint, Endpoint) {
    // Both were judged with the description.
    let gossip = network.gossip.apply(GossipConfig::default()).and_then(|base| peer.gossip.apply(base));
    let gossip = gossip.unwrap_or_default();
    let internal = gossip.endpoint.unwrap_or_else(|| Endpoint::from(peer.listen_address));
    let external = gossip.external_endpoint.or_else(|| peer.external_endpoint.clone());
    let external = external.unwrap_or_else(|| internal.clone());
    (internal, external)
}

fn peer_config(
    network: &NetworkConfig,
    organization: &Organization,
    peer: &Peer,
) -> Result<PeerConfig, NetInitError> {
    let name = organization.peer_name(peer);
    let base = GossipConfig {
        bootstrap: bootstrap(network, organization, peer),
        external_endpoint: Some(advertised(network, peer).1),
        ..GossipConfig::default()
    };
    let gossip = peer.gossip.apply(network.gossip.apply(base)?)?;
    let own = Path::new("..").join(peer_organization_dir(&organization.domain)).join("peers").join(&name);
    let channels = network.channels.iter().filter(|channel| channel.joins(&organization.msp_id, &name));
    let channels = channels.map(|channel| block_file(&channel.name)).collect();
    Ok(PeerConfig {
        network: NetworkSection { id: network.network.id.clone() },
        peer: PeerSection {
            listen_address: peer.listen_address,
            address: None,
            local_msp_id: organization.msp_id.clone(),
            msp_config_path: own.join("msp"),
            file_system_path: DATA.into(),
            gossip,
            deliveryclient: grapevine_configs::DeliveryClientConfig::default(),
            tls: TlsConfig {
                enabled: true,
                cert: FileKey::of(own.join("tls/server.crt")),
                key: FileKey::of(own.join("tls/server.key")),
                rootcert: FileKey::of(own.join("tls/ca.crt")),
                ..TlsConfig::default()
            },
            deliver_service: DeliverServiceConfig { listen_address: peer.deliver_listen_address },
            authentication: AuthenticationConfig::default(),
            limits: LimitsConfig::default(),
            id: name,
        },
        ledger: grapevine_configs::LedgerConfig::default(),
        channels,
    })
}

/// Addresses of the peers that are named, else of the first others of the organisation.
fn bootstrap(network: &NetworkConfig, organization: &Organization, peer: &Peer) -> Vec<Endpoint> {
    let told = |peer: &Peer| advertised(network, peer).0;
    if let Some(names) = &peer.bootstrap {
        return names.iter().filter_map(|name| organization.peer(name)).map(told).collect();
    }
    organization
        .peers
        .iter()
        .filter(|other| other.name != peer.name)
        .take(BOOTSTRAP_PEERS)
        .map(told)
        .collect()
}

/// A genesis block as a process names it.
fn block_file(channel: &str) -> PathBuf {
    Path::new("../channels").join(format!("{channel}.block"))
}

fn orderer_config(network: &NetworkConfig, orderer: &Orderer) -> OrdererConfig {
    let ordering = &network.ordering;
    let organization = Path::new("..").join(orderer_organization_dir(&ordering.domain));
    let own = organization.join("orderers").join(ordering.orderer_name(orderer));
    let peers_roots = network.organizations.iter().map(|organization| {
        let root = format!("tlsca/tlsca.{}-cert.pem", organization.domain);
        Path::new("..").join(peer_organization_dir(&organization.domain)).join(root)
    });
    let client_root_cas = std::iter::once(own.join("tls/ca.crt")).chain(peers_roots);
    OrdererConfig {
        general: General {
            listen_address: orderer.listen_address.ip(),
            listen_port: orderer.listen_address.port(),
            local_msp_id: ordering.organization.clone(),
            local_msp_dir: own.join("msp"),
            tls: OrdererTls {
                enabled: true,
                certificate: Some(own.join("tls/server.crt")),
                private_key: Some(own.join("tls/server.key")),
                root_cas: vec![own.join("tls/ca.crt")],
                client_auth_required: ordering.client_auth_required,
                client_root_cas: client_root_cas.filter(|_| ordering.client_auth_required).collect(),
            },
            authentication: Authentication { time_window: Period::seconds(15 * 60) },
        },
        file_ledger: FileLedger { location: DATA.into() },
        channels: network.channels.iter().map(|channel| block_file(&channel.name)).collect(),
        batch: BatchOverrides::default(),
    }
}

fn client_config(network: &NetworkConfig, organization: &Organization, orderer: &Orderer) -> ClientConfig {
    let user = format!("users/User1@{}", organization.domain);
    let user = peer_organization_dir(&organization.domain).join(user);
    let ordering = &network.ordering;
    let orderer_dir =
        orderer_organization_dir(&ordering.domain).join("orderers").join(ordering.orderer_name(orderer));
    let pair =
        |file: &str| FileKey { file: ordering.client_auth_required.then(|| user.join("tls").join(file)) };
    ClientConfig {
        client: ClientSection {
            local_msp_id: organization.msp_id.clone(),
            msp_config_path: user.join("msp"),
            orderer: orderer_endpoint(orderer),
            conn_timeout: Period::seconds(3),
            tls: ClientTls {
                enabled: true,
                root_cas: vec![orderer_dir.join("tls/ca.crt")],
                client_cert: pair("client.crt"),
                client_key: pair("client.key"),
                server_host_override: None,
            },
        },
    }
}
