//! `peer.yaml`: one peer.
//!
//! The file has the shape of Fabric's `core.yaml`, so that an operator can start from one: keys that mean the
//! same here have the same name, others of Fabric's give one warning, anything else is an error. `CORE_…`
//! variables override single keys. Ours alone are `network.id`, `channels` and `ledger.minFreeDiskSpace`. Relative paths are relative to
//! the directory of the file.

use std::net::{Ipv4Addr, SocketAddr, SocketAddrV4};
use std::path::{Path, PathBuf};

use serde::Serialize;

use crate::document::Node;
use crate::endpoint::Endpoint;
use crate::error::{ConfigError, Finding, Warning, unless_any, without_place};
use crate::fabric;
use crate::gossip::GossipConfig;
use crate::load::ConfigFile;
use crate::reader::{Reader, Section, Source};
use crate::units::{ByteSize, Period};

/// `peer.yaml`.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct PeerConfig {
    /// `network`.
    pub network: NetworkSection,
    /// `peer`.
    pub peer: PeerSection,
    /// `ledger`.
    pub ledger: LedgerConfig,
    /// Genesis block files of the channels that are joined at start; one that is joined already is passed over.
    pub channels: Vec<PathBuf>,
}

/// `ledger`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct LedgerConfig {
    /// While less is free on the disk of `peer.fileSystemPath`, no blocks are taken in; 0 turns that off. Ours alone. Default
    /// 256 MB: room for the ledger's log and write buffers several times over.
    pub min_free_disk_space: ByteSize,
}

impl Default for LedgerConfig {
    fn default() -> Self {
        Self { min_free_disk_space: ByteSize::mebibytes(256) }
    }
}

/// `network`.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct NetworkSection {
    /// Name of the network; peers of differently named ones refuse each other. Default `grapevine`.
    pub id: String,
}

/// `peer`.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct PeerSection {
    /// Name of this peer in logs and tables.
    pub id: String,
    /// Address and port the peer listens on.
    pub listen_address: SocketAddr,
    /// Own address for peers of the own organisation, unless `gossip.endpoint` names another.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub address: Option<Endpoint>,
    /// MSP id of the organisation.
    pub local_msp_id: String,
    /// MSP directory of this peer (`cacerts`, `signcerts`, `keystore`, ...).
    pub msp_config_path: PathBuf,
    /// Data directory: ledger, transport key, admin socket.
    pub file_system_path: PathBuf,
    /// `peer.gossip`.
    pub gossip: GossipConfig,
    /// `peer.deliveryclient`.
    pub deliveryclient: DeliveryClientConfig,
    /// `peer.tls`.
    pub tls: TlsConfig,
    /// `peer.deliverService`.
    #[serde(skip_serializing_if = "DeliverServiceConfig::is_off")]
    pub deliver_service: DeliverServiceConfig,
    /// `peer.authentication`.
    pub authentication: AuthenticationConfig,
    /// `peer.limits`.
    pub limits: LimitsConfig,
}

/// `peer.deliverService`: blocks for clients, over gRPC. Ours alone; Fabric serves clients at `peer.listenAddress`, which
/// here is the port for other peers.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct DeliverServiceConfig {
    /// Where clients connect; none: nothing is served.
    pub listen_address: Option<SocketAddr>,
}

/// `peer.authentication`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
pub struct AuthenticationConfig {
    /// How far the time in a client's request may be from this peer's, either way. Default 15m, as in Fabric.
    pub timewindow: Period,
}

/// `peer.limits`.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize)]
pub struct LimitsConfig {
    /// `peer.limits.concurrency`.
    pub concurrency: ConcurrencyConfig,
}

/// `peer.limits.concurrency`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct ConcurrencyConfig {
    /// Most delivery streams at a time. Default 2500, as in Fabric.
    pub deliver_service: u32,
}

/// `peer.deliveryclient`: the connection to the ordering service. It is kept up for ever.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct DeliveryClientConfig {
    /// Longest wait between two attempts. Fabric: 3600s; ours: 10s, for an orderer that is back should be found.
    #[serde(rename = "reConnectBackoffThreshold")]
    pub reconnect_backoff_threshold: Period,
    /// First wait between two attempts, doubled after each. Default 100ms, as in Fabric.
    pub minimal_reconnect_interval: Period,
    /// Longest time to connect. Default 3s, as in Fabric.
    pub conn_timeout: Period,
    /// Orderer addresses of the channel configuration that are reached under another address.
    pub address_overrides: Vec<AddressOverride>,
}

/// One entry of `peer.deliveryclient.addressOverrides`.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct AddressOverride {
    /// The address in the channel configuration.
    pub from: Endpoint,
    /// The address to dial instead.
    pub to: Endpoint,
    /// TLS root certificates (PEM) for it; none: those of the channel configuration.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub ca_certs_file: Option<PathBuf>,
}

/// `peer.tls`: gRPC towards orderers and clients. (Peers talk to each other over a channel of their own.)
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct TlsConfig {
    /// Whether gRPC uses TLS.
    pub enabled: bool,
    /// Whether clients of this peer must show a certificate.
    pub client_auth_required: bool,
    /// Server certificate, PEM.
    #[serde(skip_serializing_if = "FileKey::is_absent")]
    pub cert: FileKey,
    /// Its private key, PEM.
    #[serde(skip_serializing_if = "FileKey::is_absent")]
    pub key: FileKey,
    /// Root certificates trusted for orderers besides those of the channel configuration, PEM.
    #[serde(skip_serializing_if = "FileKey::is_absent")]
    pub rootcert: FileKey,
    /// Client certificate towards orderers; none: the server certificate.
    #[serde(skip_serializing_if = "FileKey::is_absent")]
    pub client_cert: FileKey,
    /// Its private key; none: the server's.
    #[serde(skip_serializing_if = "FileKey::is_absent")]
    pub client_key: FileKey,
    /// `clientRootCAs.files`: root certificates of this peer's clients, PEM.
    #[serde(rename = "clientRootCAs", skip_serializing_if = "FilesKey::is_absent")]
    pub client_root_cas: FilesKey,
}

/// A section whose only key is `file`, as Fabric writes paths of certificates.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize)]
pub struct FileKey {
    /// The file.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub file: Option<PathBuf>,
}

/// A section whose only key is `files`.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize)]
pub struct FilesKey {
    /// The files.
    pub files: Vec<PathBuf>,
}

impl FileKey {
    /// Names a file.
    pub fn of(path: impl Into<PathBuf>) -> Self {
        Self { file: Some(path.into()) }
    }

    pub(crate) fn is_absent(&self) -> bool {
        self.file.is_none()
    }

    pub(crate) fn read(parent: &mut Section<'_, '_>, key: &str) -> Self {
        Self { file: parent.section(key).path("file") }
    }
}

impl FilesKey {
    pub(crate) const fn is_absent(&self) -> bool {
        self.files.is_empty()
    }
}

impl DeliverServiceConfig {
    pub(crate) const fn is_off(&self) -> bool {
        self.listen_address.is_none()
    }
}

impl Default for AuthenticationConfig {
    fn default() -> Self {
        Self { timewindow: Period::seconds(15 * 60) }
    }
}

impl Default for ConcurrencyConfig {
    fn default() -> Self {
        Self { deliver_service: 2500 }
    }
}

impl Default for DeliveryClientConfig {
    fn default() -> Self {
        Self {
            reconnect_backoff_threshold: Period::seconds(10),
            minimal_reconnect_interval: Period::milliseconds(100),
            conn_timeout: Period::seconds(3),
            address_overrides: Vec::new(),
        }
    }
}

pub(crate) const NETWORK_ID: &str = "grapevine";
pub(crate) const ANY: SocketAddr = SocketAddr::V4(SocketAddrV4::new(Ipv4Addr::UNSPECIFIED, 0));
pub(crate) const NOWHERE: Endpoint = Endpoint { host: String::new(), port: 0 };

impl ConfigFile for PeerConfig {
    fn parse(
        text: &str,
        name: &str,
        directory: Option<&Path>,
        environment: impl Iterator<Item = (String, String)>,
    ) -> Result<(Self, Vec<Warning>), ConfigError> {
        let node = Node::parse(text, name)?;
        let mut reader = Reader::new(&Source { name, directory, prefix: Some("CORE") }, environment);
        let mut root = reader.root(&node);
        let config = Self {
            network: NetworkSection { id: root.section("network").value("id", NETWORK_ID.to_owned()) },
            peer: PeerSection::read(&mut root.section("peer")),
            ledger: LedgerConfig {
                min_free_disk_space: root
                    .section("ledger")
                    .value("minFreeDiskSpace", LedgerConfig::default().min_free_disk_space),
            },
            channels: root.paths("channels"),
        };
        let warnings = reader.finish(&node, &fabric::CORE, || config.findings())?;
        Ok((config, warnings))
    }
}

impl PeerConfig {
    /// Judges a configuration that was built in a program.
    ///
    /// # Errors
    /// [`ConfigError::Invalid`] with every problem.
    pub fn validate(&self) -> Result<(), ConfigError> {
        unless_any(without_place(self.findings()))
    }

    /// The address peers of the own organisation are told: `gossip.endpoint`, `peer.address` or
    /// `peer.listenAddress`. Port 0 stands for the port the operating system chose for `peer.listenAddress`.
    pub fn internal_endpoint(&self) -> Endpoint {
        let chosen = self.peer.gossip.endpoint.as_ref().or(self.peer.address.as_ref());
        chosen.cloned().unwrap_or_else(|| self.peer.listen_address.into())
    }

    /// The address peers of other organisations are told, if they are told one.
    pub fn external_endpoint(&self) -> Option<&Endpoint> {
        self.peer.gossip.external_endpoint.as_ref()
    }

    fn findings(&self) -> Vec<Finding> {
        let mut found = network_id_findings("network.id", &self.network.id);
        found.extend(self.peer.gossip.findings("peer.gossip"));
        let mut say = |key: &str, message: &str| found.push((key.to_owned(), message.to_owned()));
        let peer = &self.peer;
        let internal = self.internal_endpoint();
        if peer.gossip.endpoint.is_none() && internal.is_unspecified() {
            let key = if peer.address.is_some() { "peer.address" } else { "peer.listenAddress" };
            let message = format!(
                "other peers cannot reach {internal}; add peer.gossip.endpoint with the name or address of this machine and the port"
            );
            say(key, &message);
        }
        if peer.tls.enabled {
            for (key, file) in [("cert", &peer.tls.cert), ("key", &peer.tls.key)] {
                if file.file.is_none() {
                    let message = format!(
                        "peer.tls.enabled is true, which needs peer.tls.{key}.file; name the PEM file"
                    );
                    say("peer.tls.enabled", &message);
                }
            }
            if peer.tls.client_auth_required && peer.tls.client_root_cas.files.is_empty() {
                let message = "needs peer.tls.clientRootCAs.files; name the PEM files of the clients' root certificates";
                say("peer.tls.clientAuthRequired", message);
            }
        }
        if peer.tls.client_cert.file.is_some() != peer.tls.client_key.file.is_some() {
            let message = "clientCert.file and clientKey.file belong together; name both or neither";
            say("peer.tls.clientCert.file", message);
        }
        let client = &peer.deliveryclient;
        if client.minimal_reconnect_interval.is_zero() {
            say("peer.deliveryclient.minimalReconnectInterval", "must be longer than 0s; 100ms is usual");
        }
        if client.reconnect_backoff_threshold < client.minimal_reconnect_interval {
            let message = "must not be shorter than minimalReconnectInterval; 10s is usual";
            say("peer.deliveryclient.reConnectBackoffThreshold", message);
        }
        if client.conn_timeout.is_zero() {
            say("peer.deliveryclient.connTimeout", "must be longer than 0s; 3s is usual");
        }
        if peer
            .deliver_service
            .listen_address
            .is_some_and(|address| same_socket(address, peer.listen_address))
        {
            let message = "is where other peers connect (peer.listenAddress); choose another port";
            say("peer.deliverService.listenAddress", message);
        }
        if peer.authentication.timewindow.is_zero() {
            say("peer.authentication.timewindow", "must be longer than 0s; 15m is usual");
        }
        if peer.limits.concurrency.deliver_service == 0 {
            let message = "must be at least 1; 2500 is usual, and no peer.deliverService.listenAddress turns the service off";
            say("peer.limits.concurrency.deliverService", message);
        }
        found
    }
}

/// Whether both cannot be listened on; port 0 stands for any free one.
fn same_socket(one: SocketAddr, other: SocketAddr) -> bool {
    let overlap = one.ip() == other.ip() || one.ip().is_unspecified() || other.ip().is_unspecified();
    one.port() != 0 && one.port() == other.port() && overlap
}

impl PeerSection {
    fn read(peer: &mut Section<'_, '_>) -> Self {
        let msp = "name the MSP directory of this peer (with cacerts, signcerts and keystore)";
        Self {
            id: peer.required("id", String::new(), "give this peer a name, such as peer0.org1.example.com"),
            listen_address: peer.required("listenAddress", ANY, "write IP:port, such as 0.0.0.0:7051"),
            address: peer.optional("address"),
            local_msp_id: peer.required("localMspId", String::new(), "write the MSP id of the organisation"),
            msp_config_path: peer.required_path("mspConfigPath", msp),
            file_system_path: peer.required_path("fileSystemPath", "name a directory for the peer's data"),
            gossip: GossipConfig::read(&mut peer.section("gossip"), GossipConfig::default()),
            deliveryclient: DeliveryClientConfig::read(&mut peer.section("deliveryclient")),
            tls: TlsConfig::read(&mut peer.section("tls")),
            deliver_service: DeliverServiceConfig {
                listen_address: peer.section("deliverService").optional("listenAddress"),
            },
            authentication: AuthenticationConfig {
                timewindow: peer
                    .section("authentication")
                    .value("timewindow", AuthenticationConfig::default().timewindow),
            },
            limits: LimitsConfig {
                concurrency: ConcurrencyConfig {
                    deliver_service: peer
                        .section("limits")
                        .section("concurrency")
                        .value("deliverService", ConcurrencyConfig::default().deliver_service),
                },
            },
        }
    }
}

impl DeliveryClientConfig {
    fn read(client: &mut Section<'_, '_>) -> Self {
        let base = Self::default();
        Self {
            reconnect_backoff_threshold: client
                .value("reConnectBackoffThreshold", base.reconnect_backoff_threshold),
            minimal_reconnect_interval: client
                .value("minimalReconnectInterval", base.minimal_reconnect_interval),
            conn_timeout: client.value("connTimeout", base.conn_timeout),
            address_overrides: client.sections("addressOverrides", AddressOverride::read).unwrap_or_default(),
        }
    }
}

impl AddressOverride {
    fn read(entry: &mut Section<'_, '_>) -> Self {
        Self {
            from: entry.required("from", NOWHERE, "write the host:port of the channel configuration"),
            to: entry.required("to", NOWHERE, "write the host:port to dial instead"),
            ca_certs_file: entry.path("caCertsFile"),
        }
    }
}

impl TlsConfig {
    fn read(tls: &mut Section<'_, '_>) -> Self {
        Self {
            enabled: tls.value("enabled", false),
            client_auth_required: tls.value("clientAuthRequired", false),
            cert: FileKey::read(tls, "cert"),
            key: FileKey::read(tls, "key"),
            rootcert: FileKey::read(tls, "rootcert"),
            client_cert: FileKey::read(tls, "clientCert"),
            client_key: FileKey::read(tls, "clientKey"),
            client_root_cas: FilesKey { files: tls.section("clientRootCAs").paths("files") },
        }
    }
}

/// Longest network id; it travels in every handshake.
const NETWORK_ID_BYTES_MAX: usize = 64;

pub(crate) fn network_id_findings(key: &str, id: &str) -> Vec<Finding> {
    let letters = id.chars().all(|c| c.is_ascii_graphic());
    if !id.is_empty() && id.len() <= NETWORK_ID_BYTES_MAX && letters {
        return Vec::new();
    }
    let message = format!(
        "{id:?} cannot name a network; write 1 to {NETWORK_ID_BYTES_MAX} printable letters without blanks"
    );
    vec![(key.to_owned(), message)]
}
