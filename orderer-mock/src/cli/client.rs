//! Who a command acts as, and which orderer it talks to: a file, flags, or flags over the file.

use std::path::PathBuf;

use anyhow::{Context, Result};
use clap::Args;
use grapevine_configs::{ClientConfig, ClientSection, ConfigFile, Endpoint, Period};
use grapevine_orderer_mock::client::{ClientOptions, ClientTls};

use crate::{log_warnings, read, read_all};

#[derive(Debug, Args)]
pub(crate) struct ClientArgs {
    /// A client.yaml, or the orderer.yaml of the orderer to talk to.
    #[arg(long, required_unless_present = "orderer")]
    config: Option<PathBuf>,
    /// Address of the orderer, host:port.
    #[arg(long, requires = "msp_dir", requires = "msp_id")]
    orderer: Option<Endpoint>,
    /// MSP directory of the client's identity.
    #[arg(long)]
    msp_dir: Option<PathBuf>,
    /// MSP id of the client's identity.
    #[arg(long)]
    msp_id: Option<String>,
    /// PEM file of the CAs of the orderer's TLS certificate; without it plain text, unless the config says otherwise.
    #[arg(long)]
    tls_root: Option<PathBuf>,
}

impl ClientArgs {
    /// The config file, with the flags in its place or over it.
    pub(crate) fn section(&self) -> Result<ClientSection> {
        let mut section = match &self.config {
            Some(path) => {
                let (config, warnings) = ClientConfig::load(path, std::env::vars())?;
                log_warnings(&warnings);
                config.client
            }
            None => ClientSection {
                local_msp_id: String::new(),
                msp_config_path: PathBuf::new(),
                orderer: self.orderer.clone().context("--orderer is missing; write host:port")?,
                conn_timeout: Period::seconds(3),
                tls: grapevine_configs::ClientTls::default(),
            },
        };
        if let Some(orderer) = &self.orderer {
            section.orderer = orderer.clone();
        }
        if let Some(directory) = &self.msp_dir {
            section.msp_config_path = directory.clone();
        }
        if let Some(id) = &self.msp_id {
            section.local_msp_id = id.clone();
        }
        if let Some(root) = &self.tls_root {
            section.tls.enabled = true;
            section.tls.root_cas = vec![root.clone()];
        }
        Ok(section)
    }
}

/// How to reach the orderer that a section names.
pub(crate) fn options(client: &ClientSection) -> Result<ClientOptions> {
    let tls = &client.tls;
    let identity = match (&tls.client_cert.file, &tls.client_key.file) {
        (Some(certificate), Some(key)) if tls.enabled => {
            Some((read(certificate, "TLS client certificate")?, read(key, "TLS client key")?))
        }
        _ => None,
    };
    let tls = match tls.enabled {
        true => Some(ClientTls {
            roots: read_all(&tls.root_cas, "TLS root certificate")?,
            identity,
            server_name: tls.server_host_override.clone(),
        }),
        false => None,
    };
    Ok(ClientOptions {
        address: client.orderer.to_string(),
        tls,
        connect_timeout: client.conn_timeout.as_duration(),
    })
}
