//! `network.yaml`: a whole network, from which `grapevine net init` makes certificates, genesis blocks and the
//! configuration of every process.
//!
//! The file is our own. Names of peers are short (`peer0`) or full (`peer0.org1.example.com`); the full name is
//! the certificate's common name and the name of the peer's directory. Nothing but the file counts: no
//! environment variable overrides it, since what is built from it is meant to be built again.

use std::collections::{BTreeMap, BTreeSet};
use std::net::SocketAddr;
use std::path::Path;

use serde::Serialize;

use crate::document::Node;
use crate::endpoint::Endpoint;
use crate::error::{ConfigError, Warning, unless_any, without_place};
use crate::gossip::GossipOverrides;
use crate::load::ConfigFile;
use crate::network_rules;
use crate::peer::{ANY, NETWORK_ID};
use crate::reader::{Foreign, Reader, Scalar, Section, Source};
use crate::units::{ByteSize, Period};

/// `network.yaml`.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct NetworkConfig {
    /// `network`: name and algorithm.
    pub network: Network,
    /// `ordering`: the ordering service.
    pub ordering: Ordering,
    /// `organizations`: whose peers there are.
    pub organizations: Vec<Organization>,
    /// `channels`.
    pub channels: Vec<Channel>,
    /// `gossip`: keys of `peer.gossip` for every peer.
    #[serde(skip_serializing_if = "GossipOverrides::is_empty")]
    pub gossip: GossipOverrides,
}

/// `network`.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Network {
    /// Name of the network; peers of differently named ones refuse each other. Default `grapevine`.
    pub id: String,
    /// Signature algorithm of the members' certificates. Default `ed25519`. (TLS certificates are always P-256.)
    pub algorithm: KeyAlgorithm,
}

/// A signature algorithm for certificates.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum KeyAlgorithm {
    /// Ed25519; in Fabric it needs the channel capability V3_0.
    #[default]
    Ed25519,
    /// ECDSA with P-256, which every version of Fabric takes.
    Ecdsa,
}

impl Scalar for KeyAlgorithm {
    fn read(value: &crate::document::Value) -> Result<Self, String> {
        match String::read(value)?.to_ascii_lowercase().as_str() {
            "ed25519" => Ok(Self::Ed25519),
            "ecdsa" => Ok(Self::Ecdsa),
            other => Err(format!("{other:?} is not an algorithm; write ed25519 or ecdsa")),
        }
    }
}

/// `ordering`.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct Ordering {
    /// `organization`: MSP id of the orderers' organisation. Default `OrdererMSP`.
    pub organization: String,
    /// Its domain, for the names in its certificates. Default `example.com`.
    pub domain: String,
    /// The orderers.
    pub orderers: Vec<Orderer>,
    /// Whether peers and clients must show a TLS certificate. Default false.
    pub client_auth_required: bool,
    /// `batch`: how blocks are cut; goes into every channel's configuration.
    pub batch: Batch,
}

/// One of `ordering.orderers`.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct Orderer {
    /// Short or full name.
    pub name: String,
    /// Address and port to listen on; port 0: `net init` chooses a free port and writes it everywhere.
    pub listen_address: SocketAddr,
    /// Address for peers and clients, if not the one above.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub external_endpoint: Option<Endpoint>,
}

/// `ordering.batch`. Defaults are those of Fabric's sample `configtx.yaml`, but for the timeout.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct Batch {
    /// Longest wait of a transaction for others. Fabric: 2s; ours: 500ms.
    pub timeout: Period,
    /// Most transactions in a block. Default 500.
    pub max_message_count: u32,
    /// Most bytes of transactions in a block. Default 10 MB.
    pub absolute_max_bytes: ByteSize,
    /// Bytes above which a block is cut, unless one transaction alone is larger. Default 2 MB.
    pub preferred_max_bytes: ByteSize,
}

impl Default for Batch {
    fn default() -> Self {
        Self {
            timeout: Period::milliseconds(500),
            max_message_count: 500,
            absolute_max_bytes: ByteSize::mebibytes(10),
            preferred_max_bytes: ByteSize::mebibytes(2),
        }
    }
}

/// One of `organizations`.
#[derive(Clone, Debug, PartialEq, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct Organization {
    /// MSP id.
    pub msp_id: String,
    /// Domain, for the names in its certificates and its directory.
    pub domain: String,
    /// Its peers.
    pub peers: Vec<Peer>,
}

/// One of `organizations[].peers`.
#[derive(Clone, Debug, PartialEq, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct Peer {
    /// Short or full name.
    pub name: String,
    /// Address and port to listen on; port 0: `net init` chooses a free port and writes it everywhere.
    pub listen_address: SocketAddr,
    /// Address for peers of other organisations; its listen address by default.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub external_endpoint: Option<Endpoint>,
    /// Address and port where clients stream blocks, if they may; port 0: `net init` chooses a free port.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub deliver_listen_address: Option<SocketAddr>,
    /// Names of peers of the same organisation to contact at start; by default the first two others.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub bootstrap: Option<Vec<String>>,
    /// Keys of `peer.gossip` for this peer, over those for every peer.
    #[serde(skip_serializing_if = "GossipOverrides::is_empty")]
    pub gossip: GossipOverrides,
}

/// One of `channels`.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct Channel {
    /// Name.
    pub name: String,
    /// MSP ids of the member organisations.
    pub organizations: Vec<String>,
    /// MSP id to names of anchor peers, over which other organisations find this one.
    pub anchor_peers: BTreeMap<String, Vec<String>>,
    /// Full names of the peers that join at their start; by default all of the member organisations.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub peers: Option<Vec<String>>,
}

/// `short` as a name of `domain`: `peer0` → `peer0.org1.example.com`; a full name stays.
pub fn full_name(short: &str, domain: &str) -> String {
    let full = short.strip_suffix(domain).is_some_and(|rest| rest.ends_with('.'));
    if full { short.to_owned() } else { format!("{short}.{domain}") }
}

impl Organization {
    /// Full name of a peer of this organisation.
    pub fn peer_name(&self, peer: &Peer) -> String {
        full_name(&peer.name, &self.domain)
    }

    /// The peer of this short or full name.
    pub fn peer(&self, name: &str) -> Option<&Peer> {
        let name = full_name(name, &self.domain);
        self.peers.iter().find(|peer| self.peer_name(peer) == name)
    }
}

impl Ordering {
    /// Full name of an orderer.
    pub fn orderer_name(&self, orderer: &Orderer) -> String {
        full_name(&orderer.name, &self.domain)
    }
}

impl Channel {
    /// Whether the peer of this full name, of the organisation `msp_id`, joins at its start.
    pub fn joins(&self, msp_id: &str, peer: &str) -> bool {
        let listed = self.peers.as_ref().is_none_or(|peers| peers.iter().any(|name| name == peer));
        listed && self.organizations.iter().any(|member| member == msp_id)
    }

    /// Full names of the anchor peers of an organisation.
    pub fn anchors(&self, organization: &Organization) -> BTreeSet<String> {
        let names = self.anchor_peers.get(&organization.msp_id);
        names.into_iter().flatten().map(|name| full_name(name, &organization.domain)).collect()
    }
}

/// The environment is taken, as by the other configurations, but overrides nothing.
impl ConfigFile for NetworkConfig {
    fn parse(
        text: &str,
        name: &str,
        directory: Option<&Path>,
        environment: impl Iterator<Item = (String, String)>,
    ) -> Result<(Self, Vec<Warning>), ConfigError> {
        let node = Node::parse(text, name)?;
        let mut reader = Reader::new(&Source { name, directory, prefix: None }, environment);
        let config = Self::read(&mut reader.root(&node));
        let mut warnings = reader.finish(&node, &Foreign::NOTHING, || network_rules::findings(&config))?;
        if config.ordering.orderers.len() > 1 {
            warnings.push(Warning(format!(
                "{name}: ordering.orderers: orderer-mock does not replicate, so that peers following different \
                 instances would see different chains; list one, unless real orderers will stand there"
            )));
        }
        Ok((config, warnings))
    }
}

impl NetworkConfig {
    /// Judges a configuration that was built or changed in a program.
    ///
    /// # Errors
    /// [`ConfigError::Invalid`] with every problem.
    pub fn validate(&self) -> Result<(), ConfigError> {
        unless_any(without_place(network_rules::findings(self)))
    }

    /// The organisation of this MSP id.
    pub fn organization(&self, msp_id: &str) -> Option<&Organization> {
        self.organizations.iter().find(|organization| organization.msp_id == msp_id)
    }

    fn read(root: &mut Section<'_, '_>) -> Self {
        let mut network = root.section("network");
        let network = Network {
            id: network.value("id", NETWORK_ID.to_owned()),
            algorithm: network.value("algorithm", KeyAlgorithm::default()),
        };
        Self {
            network,
            ordering: Ordering::read(&mut root.section("ordering")),
            organizations: root.sections("organizations", Organization::read).unwrap_or_default(),
            channels: root.sections("channels", Channel::read).unwrap_or_default(),
            gossip: GossipOverrides::read(root, "gossip"),
        }
    }
}

const LISTEN: &str = "write IP:port, such as 127.0.0.1:7051; port 0 lets net init choose";

impl Ordering {
    fn read(ordering: &mut Section<'_, '_>) -> Self {
        let orderer = |orderer: &mut Section<'_, '_>| Orderer {
            name: orderer.required("name", String::new(), "give the orderer a name, such as orderer"),
            listen_address: orderer.required("listenAddress", ANY, LISTEN),
            external_endpoint: orderer.optional("externalEndpoint"),
        };
        Self {
            organization: ordering.value("organization", "OrdererMSP".to_owned()),
            domain: ordering.value("domain", "example.com".to_owned()),
            orderers: ordering.sections("orderers", orderer).unwrap_or_default(),
            client_auth_required: ordering.value("clientAuthRequired", false),
            batch: Batch::read(&mut ordering.section("batch")),
        }
    }
}

impl Batch {
    fn read(batch: &mut Section<'_, '_>) -> Self {
        let base = Self::default();
        Self {
            timeout: batch.value("timeout", base.timeout),
            max_message_count: batch.value("maxMessageCount", base.max_message_count),
            absolute_max_bytes: batch.value("absoluteMaxBytes", base.absolute_max_bytes),
            preferred_max_bytes: batch.value("preferredMaxBytes", base.preferred_max_bytes),
        }
    }
}

impl Organization {
    fn read(organization: &mut Section<'_, '_>) -> Self {
        Self {
            msp_id: organization.required("mspId", String::new(), "write an MSP id, such as Org1MSP"),
            domain: organization.required(
                "domain",
                String::new(),
                "write a domain, such as org1.example.com",
            ),
            peers: organization.sections("peers", Peer::read).unwrap_or_default(),
        }
    }
}

impl Peer {
    fn read(peer: &mut Section<'_, '_>) -> Self {
        Self {
            name: peer.required("name", String::new(), "give the peer a name, such as peer0"),
            listen_address: peer.required("listenAddress", ANY, LISTEN),
            external_endpoint: peer.optional("externalEndpoint"),
            deliver_listen_address: peer.optional("deliverListenAddress"),
            bootstrap: peer.list("bootstrap"),
            gossip: GossipOverrides::read(peer, "gossip"),
        }
    }
}

impl Channel {
    fn read(channel: &mut Section<'_, '_>) -> Self {
        Self {
            name: channel.required("name", String::new(), "give the channel a name, such as trade"),
            organizations: channel.list("organizations").unwrap_or_default(),
            anchor_peers: channel.names("anchorPeers"),
            peers: channel.list("peers"),
        }
    }
}
