//! The server's side of TLS.

use std::fmt;
use std::path::{Path, PathBuf};
use std::time::Duration;

use grapevine_configs::TlsConfig;
use tonic::transport::{Certificate, Identity, ServerTlsConfig};

use super::DeliverServerError;

/// A TLS handshake that takes longer is cut off (Fabric's default connection timeout).
const HANDSHAKE_TIMEOUT: Duration = Duration::from_secs(5);

/// TLS material, PEM.
#[derive(Clone)]
pub struct ServerTls {
    /// Certificate chain of the server, leaf first.
    pub certificate: Vec<u8>,
    /// Its private key.
    pub key: Vec<u8>,
    /// With client authentication required: the CAs of client certificates.
    pub client_roots: Option<Vec<u8>>,
}

impl fmt::Debug for ServerTls {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter
            .debug_struct("ServerTls")
            .field("client_roots", &self.client_roots.is_some())
            .finish_non_exhaustive()
    }
}

impl ServerTls {
    /// Reads the files of `peer.tls`; `None` if TLS is off.
    pub fn read(config: &TlsConfig) -> Result<Option<Self>, DeliverServerError> {
        if !config.enabled {
            return Ok(None);
        }
        let named = |key, file: &Option<PathBuf>| read(key, file.as_deref().unwrap_or_else(|| Path::new("")));
        let mut client_roots = None;
        if config.client_auth_required {
            let mut roots = Vec::new();
            for file in &config.client_root_cas.files {
                roots.extend(read("peer.tls.clientRootCAs.files", file)?);
                roots.push(b'\n');
            }
            client_roots = Some(roots);
        }
        Ok(Some(Self {
            certificate: named("peer.tls.cert.file", &config.cert.file)?,
            key: named("peer.tls.key.file", &config.key.file)?,
            client_roots,
        }))
    }

    pub(super) fn config(&self) -> ServerTlsConfig {
        let config = ServerTlsConfig::new()
            .identity(Identity::from_pem(&self.certificate, &self.key))
            .timeout(HANDSHAKE_TIMEOUT);
        match &self.client_roots {
            Some(roots) => config.client_ca_root(Certificate::from_pem(roots)),
            None => config,
        }
    }
}

fn read(key: &'static str, path: &Path) -> Result<Vec<u8>, DeliverServerError> {
    std::fs::read(path).map_err(|source| DeliverServerError::File { key, path: path.to_path_buf(), source })
}

/// An error with its causes in one line; the transport's own text alone says nothing.
pub(super) fn with_causes(error: &dyn std::error::Error) -> String {
    let mut text = error.to_string();
    let mut source = error.source();
    while let Some(cause) = source {
        let cause_text = cause.to_string();
        if !text.ends_with(&cause_text) {
            text = format!("{text}: {cause_text}");
        }
        source = cause.source();
    }
    text
}
