//! Certificate authorities, MSP directories and genesis blocks.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

use grapevine_channels::ChannelId;
use grapevine_channels::config::{BatchSize, Endpoint as ChannelEndpoint};
use grapevine_channels::genesis::{ApplicationOrg, GenesisBuilder, OrdererOrg};
use grapevine_configs::network::{Channel, KeyAlgorithm, Orderer, Organization as OrganizationConfig};
use grapevine_configs::{Endpoint, NetworkConfig};
use grapevine_crypto::issue::{IssueError, Organization, Validity};
use grapevine_crypto::{Algorithm, MspId, Role};

use super::processes::{advertised, orderer_endpoint};
use super::{NetInitError, directory};

/// How far back certificates are dated, seconds, for clocks that differ (cryptogen: five minutes).
const BACKDATED_SECONDS: i64 = 300;

/// Organisations by MSP id.
pub(super) type Organizations = BTreeMap<String, Organization>;

/// Directory of an organisation of peers, relative to the network's.
pub(super) fn peer_organization_dir(domain: &str) -> PathBuf {
    Path::new("crypto/peerOrganizations").join(domain)
}

/// Directory of the orderers' organisation, relative to the network's.
pub(super) fn orderer_organization_dir(domain: &str) -> PathBuf {
    Path::new("crypto/ordererOrganizations").join(domain)
}

/// Makes every organisation with its members and writes `crypto/`.
pub(super) fn issue(
    network: &NetworkConfig,
    dir: &Path,
    now_unix_seconds: i64,
) -> Result<Organizations, NetInitError> {
    let validity = Validity {
        not_before: now_unix_seconds.saturating_sub(BACKDATED_SECONDS),
        ..Validity::ten_years_from(now_unix_seconds)
    };
    let algorithm = match network.network.algorithm {
        KeyAlgorithm::Ed25519 => Algorithm::Ed25519,
        KeyAlgorithm::Ecdsa => Algorithm::EcdsaP256,
    };
    let mut organizations = Organizations::new();
    let ordering = &network.ordering;
    let issuer = Issuer::new(
        &ordering.organization,
        &ordering.domain,
        algorithm,
        validity,
        dir.join(orderer_organization_dir(&ordering.domain)),
    )?;
    for orderer in &ordering.orderers {
        let names = orderer_names(orderer);
        issuer.member("orderers", &ordering.orderer_name(orderer), Role::Orderer, names)?;
    }
    issuer.user("Admin", Role::Admin)?;
    organizations.insert(ordering.organization.clone(), issuer.organization);
    for organization in &network.organizations {
        let issuer = Issuer::new(
            &organization.msp_id,
            &organization.domain,
            algorithm,
            validity,
            dir.join(peer_organization_dir(&organization.domain)),
        )?;
        for peer in &organization.peers {
            let mut names = vec![Endpoint::from(peer.listen_address).host];
            names.extend(peer.external_endpoint.as_ref().map(|endpoint| endpoint.host.clone()));
            issuer.member("peers", &organization.peer_name(peer), Role::Peer, names)?;
        }
        issuer.user("Admin", Role::Admin)?;
        issuer.user("User1", Role::Client)?;
        organizations.insert(organization.msp_id.clone(), issuer.organization);
    }
    Ok(organizations)
}

fn orderer_names(orderer: &Orderer) -> Vec<String> {
    vec![Endpoint::from(orderer.listen_address).host, orderer_endpoint(orderer).host]
}

/// An organisation while its members are made.
struct Issuer<'a> {
    organization: Organization,
    domain: &'a str,
    validity: Validity,
    directory: PathBuf,
}

impl<'a> Issuer<'a> {
    fn new(
        msp_id: &str,
        domain: &'a str,
        algorithm: Algorithm,
        validity: Validity,
        directory: PathBuf,
    ) -> Result<Self, NetInitError> {
        let organization =
            Organization::new(MspId::from(msp_id), domain, algorithm, validity).map_err(about(msp_id))?;
        organization.save(&directory).map_err(about(msp_id))?;
        Ok(Self { organization, domain, validity, directory })
    }

    /// A process, reachable under its name, on this machine, and under `hosts`.
    fn member(&self, kind: &str, name: &str, role: Role, hosts: Vec<String>) -> Result<(), NetInitError> {
        let mut names = vec![name.to_owned(), "localhost".to_owned(), "127.0.0.1".to_owned()];
        for host in hosts {
            if !names.contains(&host) {
                names.push(host);
            }
        }
        let directory = self.directory.join(kind).join(name);
        self.organization.write_member_dir(&directory, name, role, &names, self.validity).map_err(about(name))
    }

    /// A person. cryptogen calls the TLS pair of a person `client.*`.
    fn user(&self, name: &str, role: Role) -> Result<(), NetInitError> {
        let name = format!("{name}@{}", self.domain);
        let directory = self.directory.join("users").join(&name);
        self.organization
            .write_member_dir(&directory, &name, role, &[], self.validity)
            .map_err(about(&name))?;
        for ending in ["crt", "key"] {
            let tls = directory.join("tls");
            let (from, to) = (tls.join(format!("server.{ending}")), tls.join(format!("client.{ending}")));
            std::fs::rename(&from, &to).map_err(NetInitError::file("rename", &from))?;
        }
        Ok(())
    }
}

fn about(what: &str) -> impl FnOnce(IssueError) -> NetInitError {
    let what = what.to_owned();
    move |source| NetInitError::Issue { what, source }
}

/// Makes the genesis block of every channel and writes `channels/`.
pub(super) fn genesis_blocks(
    network: &NetworkConfig,
    organizations: &Organizations,
    dir: &Path,
    now_unix_seconds: i64,
) -> Result<Vec<(String, PathBuf)>, NetInitError> {
    let mut files = Vec::with_capacity(network.channels.len());
    for channel in &network.channels {
        let refused = |source| NetInitError::Channel { channel: channel.name.clone(), source };
        let block = describe(network, channel, organizations, now_unix_seconds)?.build().map_err(refused)?;
        let path = dir.join("channels").join(format!("{}.block", channel.name));
        directory::write(&path, &block.encode())?;
        files.push((channel.name.clone(), path));
    }
    Ok(files)
}

fn describe(
    network: &NetworkConfig,
    channel: &Channel,
    organizations: &Organizations,
    now_unix_seconds: i64,
) -> Result<GenesisBuilder, NetInitError> {
    let ordering = &network.ordering;
    // The names were judged together with the description.
    let wrong = |message: String| {
        NetInitError::Config(grapevine_configs::ConfigError::Invalid(vec![grapevine_configs::Problem {
            file: String::new(),
            origin: grapevine_configs::Origin::Unknown,
            key: "channels".to_owned(),
            message,
        }]))
    };
    let id: ChannelId = channel.name.parse().map_err(|error| wrong(format!("{}: {error}", channel.name)))?;
    let issued = |msp_id: &str| {
        organizations.get(msp_id).ok_or_else(|| wrong(format!("there is no organisation {msp_id}; add it")))
    };
    let batch = &ordering.batch;
    let bytes = |size: grapevine_configs::ByteSize| u32::try_from(size.as_bytes()).unwrap_or(u32::MAX);
    let mut builder = GenesisBuilder::new(id, rand::random(), now_unix_seconds)
        .batch_timeout_ms(batch.timeout.as_millis())
        .batch_size(BatchSize {
            max_message_count: batch.max_message_count,
            absolute_max_bytes: bytes(batch.absolute_max_bytes),
            preferred_max_bytes: bytes(batch.preferred_max_bytes),
        })
        .orderer_org(OrdererOrg {
            name: ordering.organization.clone(),
            msp: issued(&ordering.organization)?.msp_config(),
            endpoints: ordering
                .orderers
                .iter()
                .map(|orderer| orderer_endpoint(orderer).to_string())
                .collect(),
        });
    for member in network.organizations.iter().filter(|org| channel.organizations.contains(&org.msp_id)) {
        builder = builder.application_org(ApplicationOrg {
            name: member.msp_id.clone(),
            msp: issued(&member.msp_id)?.msp_config(),
            anchor_peers: anchor_peers(channel, member, network),
        });
    }
    Ok(builder)
}

/// Addresses of the anchor peers of an organisation: what they tell other organisations.
fn anchor_peers(
    channel: &Channel,
    organization: &OrganizationConfig,
    network: &NetworkConfig,
) -> Vec<ChannelEndpoint> {
    let anchors = channel.anchors(organization);
    let peers = organization.peers.iter().filter(|peer| anchors.contains(&organization.peer_name(peer)));
    let endpoint = |peer| {
        let Endpoint { host, port } = advertised(network, peer).1;
        ChannelEndpoint { host, port }
    };
    peers.map(endpoint).collect()
}
