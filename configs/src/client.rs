//! `client.yaml`: who submits transactions, and where. An `orderer.yaml` serves as well: its orderer then
//! submits to itself under its own identity.

use std::path::{Path, PathBuf};

use serde::Serialize;

use crate::document::Node;
use crate::endpoint::Endpoint;
use crate::error::{ConfigError, Finding, Origin, Problem, Warning, unless_any, without_place};
use crate::load::ConfigFile;
use crate::orderer::OrdererConfig;
use crate::peer::{FileKey, NOWHERE};
use crate::reader::{Foreign, Reader, Section, Source};
use crate::units::Period;

/// `client.yaml`.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct ClientConfig {
    /// `client`.
    pub client: ClientSection,
}

/// `client`.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct ClientSection {
    /// MSP id of the client's organisation.
    pub local_msp_id: String,
    /// MSP directory of the client.
    pub msp_config_path: PathBuf,
    /// Address of the orderer.
    pub orderer: Endpoint,
    /// Longest time to connect. Default 3s.
    pub conn_timeout: Period,
    /// `client.tls`.
    pub tls: ClientTls,
}

/// `client.tls`.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct ClientTls {
    /// Whether the orderer is reached over TLS.
    pub enabled: bool,
    /// `rootCAs`: root certificates of the orderer, PEM.
    #[serde(rename = "rootCAs")]
    pub root_cas: Vec<PathBuf>,
    /// Client certificate, for an orderer that asks for one.
    #[serde(skip_serializing_if = "FileKey::is_absent")]
    pub client_cert: FileKey,
    /// Its private key.
    #[serde(skip_serializing_if = "FileKey::is_absent")]
    pub client_key: FileKey,
    /// Name to expect in the orderer's certificate instead of the host of its address.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub server_host_override: Option<String>,
}

/// Takes a `client.yaml` or an `orderer.yaml`; only `ORDERER_…` variables matter, and only for an `orderer.yaml`.
impl ConfigFile for ClientConfig {
    fn parse(
        text: &str,
        name: &str,
        directory: Option<&Path>,
        environment: impl Iterator<Item = (String, String)>,
    ) -> Result<(Self, Vec<Warning>), ConfigError> {
        let node = Node::parse(text, name)?;
        if node.child("General").is_some() {
            let (orderer, warnings) = OrdererConfig::parse(text, name, directory, environment)?;
            if orderer.general.tls.enabled && orderer.general.tls.root_cas.is_empty() {
                let message =
                    "is missing, which a client of this orderer needs; name the orderer's root certificates";
                let key = "General.TLS.RootCAs".to_owned();
                let (file, message) = (name.to_owned(), message.to_owned());
                return Err(ConfigError::Invalid(vec![Problem {
                    file,
                    origin: Origin::Unknown,
                    key,
                    message,
                }]));
            }
            return Ok((Self::of_orderer(&orderer), warnings));
        }
        let mut reader = Reader::new(&Source { name, directory, prefix: None }, std::iter::empty());
        let mut root = reader.root(&node);
        let config = Self { client: ClientSection::read(&mut root.section("client")) };
        let warnings = reader.finish(&node, &Foreign::NOTHING, || config.findings())?;
        Ok((config, warnings))
    }
}

impl ClientConfig {
    /// The configuration of an orderer that submits to itself.
    pub fn of_orderer(orderer: &OrdererConfig) -> Self {
        let general = &orderer.general;
        // Its own pair is shown only to an orderer that asks for one.
        let own = |path: &Option<PathBuf>| FileKey {
            file: path.clone().filter(|_| general.tls.client_auth_required),
        };
        let mut address = Endpoint::from(orderer.listen_socket());
        if address.is_unspecified() {
            "localhost".clone_into(&mut address.host);
        }
        let tls = ClientTls {
            enabled: general.tls.enabled,
            root_cas: general.tls.root_cas.clone(),
            client_cert: own(&general.tls.certificate),
            client_key: own(&general.tls.private_key),
            server_host_override: None,
        };
        Self {
            client: ClientSection {
                local_msp_id: general.local_msp_id.clone(),
                msp_config_path: general.local_msp_dir.clone(),
                orderer: address,
                conn_timeout: CONN_TIMEOUT,
                tls,
            },
        }
    }

    /// Judges a configuration that was built in a program.
    ///
    /// # Errors
    /// [`ConfigError::Invalid`] with every problem.
    pub fn validate(&self) -> Result<(), ConfigError> {
        unless_any(without_place(self.findings()))
    }

    fn findings(&self) -> Vec<Finding> {
        let mut found = Vec::new();
        let mut say = |key: &str, message: &str| found.push((key.to_owned(), message.to_owned()));
        let tls = &self.client.tls;
        if tls.enabled && tls.root_cas.is_empty() {
            say(
                "client.tls.enabled",
                "is true, which needs client.tls.rootCAs; name the orderer's root certificates",
            );
        }
        if tls.client_cert.file.is_some() != tls.client_key.file.is_some() {
            let message = "clientCert.file and clientKey.file belong together; name both or neither";
            say("client.tls.clientCert.file", message);
        }
        if self.client.conn_timeout.is_zero() {
            say("client.connTimeout", "must be longer than 0s; 3s is usual");
        }
        if self.client.orderer.port == 0 || self.client.orderer.is_unspecified() {
            say("client.orderer", "nobody answers at this address; write the host:port of the orderer");
        }
        found
    }
}

const CONN_TIMEOUT: Period = Period::seconds(3);

impl ClientSection {
    fn read(client: &mut Section<'_, '_>) -> Self {
        let mut tls = client.section("tls");
        let tls = ClientTls {
            enabled: tls.value("enabled", false),
            root_cas: tls.paths("rootCAs"),
            client_cert: FileKey::read(&mut tls, "clientCert"),
            client_key: FileKey::read(&mut tls, "clientKey"),
            server_host_override: tls.optional("serverHostOverride"),
        };
        Self {
            local_msp_id: client.required(
                "localMspId",
                String::new(),
                "write the MSP id of the client's organisation",
            ),
            msp_config_path: client.required_path("mspConfigPath", "name the MSP directory of the client"),
            orderer: client.required("orderer", NOWHERE, "write the host:port of the orderer"),
            conn_timeout: client.value("connTimeout", CONN_TIMEOUT),
            tls,
        }
    }
}
