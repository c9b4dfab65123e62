//! `orderer.yaml`: the stand-in ordering service.
//!
//! Keys are those of Fabric's `orderer.yaml` (`General.ListenPort`, `General.LocalMSPDir`, `FileLedger.Location`,
//! ...); `ORDERER_…` variables override them (`ORDERER_GENERAL_LISTENPORT=7060`). Ours alone are `Channels` and
//! `Batch`. Relative paths are relative to the directory of the file.

use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::path::{Path, PathBuf};

use serde::Serialize;

use crate::document::Node;
use crate::error::{ConfigError, Finding, Warning, unless_any, without_place};
use crate::fabric;
use crate::load::ConfigFile;
use crate::reader::{Reader, Section, Source};
use crate::units::{ByteSize, Period};

/// `orderer.yaml`.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "PascalCase")]
pub struct OrdererConfig {
    /// `General`.
    pub general: General,
    /// `FileLedger`.
    pub file_ledger: FileLedger,
    /// `Channels`: genesis block files of the channels to serve.
    pub channels: Vec<PathBuf>,
    /// `Batch`: how blocks are cut, where the channel configuration shall not decide.
    pub batch: BatchOverrides,
}

/// `General`.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "PascalCase")]
pub struct General {
    /// IP address to listen on. Default 127.0.0.1, as in Fabric.
    pub listen_address: IpAddr,
    /// Port to listen on; 0 lets the operating system choose. Default 7050, as in Fabric.
    pub listen_port: u16,
    /// `LocalMSPID`: MSP id of the orderer's organisation.
    #[serde(rename = "LocalMSPID")]
    pub local_msp_id: String,
    /// `LocalMSPDir`: MSP directory of this orderer.
    #[serde(rename = "LocalMSPDir")]
    pub local_msp_dir: PathBuf,
    /// `TLS`.
    #[serde(rename = "TLS")]
    pub tls: OrdererTls,
    /// `Authentication`.
    pub authentication: Authentication,
}

/// `General.TLS`.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize)]
#[serde(rename_all = "PascalCase")]
pub struct OrdererTls {
    /// Whether clients must use TLS.
    pub enabled: bool,
    /// Server certificate, PEM.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub certificate: Option<PathBuf>,
    /// Its private key, PEM.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub private_key: Option<PathBuf>,
    /// `RootCAs`: root certificates of this orderer, PEM; what `orderer-mock submit` trusts when it is given this file.
    #[serde(rename = "RootCAs")]
    pub root_cas: Vec<PathBuf>,
    /// Whether clients must show a certificate.
    pub client_auth_required: bool,
    /// `ClientRootCAs`: root certificates of the clients, PEM.
    #[serde(rename = "ClientRootCAs")]
    pub client_root_cas: Vec<PathBuf>,
}

/// `General.Authentication`.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "PascalCase")]
pub struct Authentication {
    /// How far the time of a client's request may be from ours. Default 15m, as in Fabric.
    pub time_window: Period,
}

/// `FileLedger`.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "PascalCase")]
pub struct FileLedger {
    /// Directory of the blocks.
    pub location: PathBuf,
}

/// `Batch`: each key that is given replaces the one of the channel configuration.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize)]
#[serde(rename_all = "PascalCase")]
pub struct BatchOverrides {
    /// Longest wait of a transaction for others.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub timeout: Option<Period>,
    /// Most transactions in a block.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub max_message_count: Option<u32>,
    /// Most bytes of transactions in a block.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub absolute_max_bytes: Option<ByteSize>,
    /// Bytes of transactions above which a block is cut, unless one transaction alone is larger.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub preferred_max_bytes: Option<ByteSize>,
}

impl ConfigFile for OrdererConfig {
    fn parse(
        text: &str,
        name: &str,
        directory: Option<&Path>,
        environment: impl Iterator<Item = (String, String)>,
    ) -> Result<(Self, Vec<Warning>), ConfigError> {
        let node = Node::parse(text, name)?;
        let mut reader = Reader::new(&Source { name, directory, prefix: Some("ORDERER") }, environment);
        let mut root = reader.root(&node);
        let location = "name a directory for the blocks";
        let config = Self {
            general: General::read(&mut root.section("General")),
            file_ledger: FileLedger {
                location: root.section("FileLedger").required_path("Location", location),
            },
            channels: root.paths("Channels"),
            batch: BatchOverrides::read(&mut root.section("Batch")),
        };
        let warnings = reader.finish(&node, &fabric::ORDERER, || config.findings())?;
        Ok((config, warnings))
    }
}

impl OrdererConfig {
    /// Judges a configuration that was built in a program.
    ///
    /// # Errors
    /// [`ConfigError::Invalid`] with every problem.
    pub fn validate(&self) -> Result<(), ConfigError> {
        unless_any(without_place(self.findings()))
    }

    /// Where to listen.
    pub fn listen_socket(&self) -> SocketAddr {
        SocketAddr::new(self.general.listen_address, self.general.listen_port)
    }

    fn findings(&self) -> Vec<Finding> {
        let mut found = self.batch.findings("Batch");
        let mut say = |key: &str, message: &str| found.push((key.to_owned(), message.to_owned()));
        let tls = &self.general.tls;
        if tls.enabled {
            for (key, file) in [("Certificate", &tls.certificate), ("PrivateKey", &tls.private_key)] {
                if file.is_none() {
                    let message = format!("is true, which needs General.TLS.{key}; name the PEM file");
                    say("General.TLS.Enabled", &message);
                }
            }
            if tls.client_auth_required && tls.client_root_cas.is_empty() {
                let message =
                    "needs General.TLS.ClientRootCAs; name the PEM files of the clients' root certificates";
                say("General.TLS.ClientAuthRequired", message);
            }
        } else if tls.client_auth_required {
            say(
                "General.TLS.ClientAuthRequired",
                "needs General.TLS.Enabled; set that to true, or this to false",
            );
        }
        if self.general.authentication.time_window.is_zero() {
            say("General.Authentication.TimeWindow", "must be longer than 0s; 15m is usual");
        }
        found
    }
}

impl General {
    fn read(general: &mut Section<'_, '_>) -> Self {
        let msp = "name the MSP directory of this orderer (with cacerts, signcerts and keystore)";
        Self {
            listen_address: general.value("ListenAddress", IpAddr::V4(Ipv4Addr::LOCALHOST)),
            listen_port: general.value("ListenPort", 7050),
            local_msp_id: general.required(
                "LocalMSPID",
                String::new(),
                "write the MSP id of the organisation",
            ),
            local_msp_dir: general.required_path("LocalMSPDir", msp),
            tls: OrdererTls::read(&mut general.section("TLS")),
            authentication: Authentication {
                time_window: general.section("Authentication").value("TimeWindow", Period::seconds(15 * 60)),
            },
        }
    }
}

impl OrdererTls {
    fn read(tls: &mut Section<'_, '_>) -> Self {
        Self {
            enabled: tls.value("Enabled", false),
            certificate: tls.path("Certificate"),
            private_key: tls.path("PrivateKey"),
            root_cas: tls.paths("RootCAs"),
            client_auth_required: tls.value("ClientAuthRequired", false),
            client_root_cas: tls.paths("ClientRootCAs"),
        }
    }
}

/// Largest `absoluteMaxBytes`: with 1 MiB for header and signatures a block stays below the 100 MiB that peers accept.
pub const ABSOLUTE_MAX_BYTES_MAX: ByteSize = ByteSize::mebibytes(99);

impl BatchOverrides {
    fn read(batch: &mut Section<'_, '_>) -> Self {
        Self {
            timeout: batch.optional("Timeout"),
            max_message_count: batch.optional("MaxMessageCount"),
            absolute_max_bytes: batch.optional("AbsoluteMaxBytes"),
            preferred_max_bytes: batch.optional("PreferredMaxBytes"),
        }
    }

    fn findings(&self, path: &str) -> Vec<Finding> {
        let mut found = Vec::new();
        let mut say = |key: &str, message: String| found.push((format!("{path}.{key}"), message));
        if self.timeout.is_some_and(|timeout| timeout.as_millis() == 0) {
            say("Timeout", "must be at least 1ms".to_owned());
        }
        if self.max_message_count == Some(0) {
            say("MaxMessageCount", "must be at least 1".to_owned());
        }
        for (key, size) in
            [("AbsoluteMaxBytes", self.absolute_max_bytes), ("PreferredMaxBytes", self.preferred_max_bytes)]
        {
            if let Some(size) = size.filter(|size| size.as_bytes() == 0 || *size > ABSOLUTE_MAX_BYTES_MAX) {
                say(key, format!("{size} is out of range; write 1 B to {ABSOLUTE_MAX_BYTES_MAX}"));
            }
        }
        if let (Some(preferred), Some(absolute)) = (self.preferred_max_bytes, self.absolute_max_bytes)
            && preferred > absolute
        {
            say(
                "PreferredMaxBytes",
                format!("{preferred} is more than AbsoluteMaxBytes ({absolute}); make it smaller"),
            );
        }
        found
    }
}
