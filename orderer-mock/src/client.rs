//! Connects to an ordering service as a client.

use std::time::Duration;

use tonic::transport::{Certificate, Channel, ClientTlsConfig, Endpoint, Identity};

use crate::rpc::{AtomicBroadcastClient, CONNECTION_WINDOW_BYTES, MESSAGE_BYTES_MAX, STREAM_WINDOW_BYTES};
use crate::server::chain_of;

/// TLS towards the ordering service, PEM.
#[derive(Clone, Default)]
pub struct ClientTls {
    /// CAs of the server's certificate.
    pub roots: Vec<Vec<u8>>,
    /// Certificate and private key to show when asked.
    pub identity: Option<(Vec<u8>, Vec<u8>)>,
    /// Name to expect in the server's certificate instead of the host of its address.
    pub server_name: Option<String>,
}

impl std::fmt::Debug for ClientTls {
    fn fmt(&self, formatter: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        formatter
            .debug_struct("ClientTls")
            .field("roots", &self.roots.len())
            .field("identity", &self.identity.is_some())
            .field("server_name", &self.server_name)
            .finish()
    }
}

/// Where an ordering service is and how to reach it.
#[derive(Debug, Clone)]
pub struct ClientOptions {
    /// `host:port`.
    pub address: String,
    /// TLS; `None` for plain text.
    pub tls: Option<ClientTls>,
    /// Longest time to connect.
    pub connect_timeout: Duration,
}

/// Why an ordering service is not reached.
#[derive(Debug, thiserror::Error)]
pub enum ConnectError {
    /// Not an address.
    #[error("{address:?} is not a host:port address: {reason}")]
    Address {
        /// What was given.
        address: String,
        /// Why it is none.
        reason: String,
    },
    /// The TLS material.
    #[error("TLS cannot be set up: {0}; check the root certificates and the client certificate")]
    Tls(String),
    /// Nobody answers.
    #[error("cannot reach the orderer at {address}: {reason}")]
    Unreachable {
        /// The address.
        address: String,
        /// What happened.
        reason: String,
    },
}

/// Connects once.
pub async fn connect(options: &ClientOptions) -> Result<AtomicBroadcastClient<Channel>, ConnectError> {
    let address = &options.address;
    let scheme = if options.tls.is_some() { "https" } else { "http" };
    let mut endpoint = Endpoint::from_shared(format!("{scheme}://{address}"))
        .map_err(|error| ConnectError::Address { address: address.clone(), reason: chain_of(&error) })?
        .connect_timeout(options.connect_timeout)
        .initial_stream_window_size(STREAM_WINDOW_BYTES)
        .initial_connection_window_size(CONNECTION_WINDOW_BYTES)
        .tcp_nodelay(true);
    if let Some(tls) = &options.tls {
        endpoint =
            endpoint.tls_config(tls_config(tls)).map_err(|error| ConnectError::Tls(chain_of(&error)))?;
    }
    let channel = endpoint
        .connect()
        .await
        .map_err(|error| ConnectError::Unreachable { address: address.clone(), reason: chain_of(&error) })?;
    Ok(AtomicBroadcastClient::new(channel)
        .max_decoding_message_size(MESSAGE_BYTES_MAX)
        .max_encoding_message_size(MESSAGE_BYTES_MAX))
}

fn tls_config(tls: &ClientTls) -> ClientTlsConfig {
    let mut config = ClientTlsConfig::new().ca_certificates(tls.roots.iter().map(Certificate::from_pem));
    if let Some((certificate, key)) = &tls.identity {
        config = config.identity(Identity::from_pem(certificate, key));
    }
    if let Some(name) = &tls.server_name {
        config = config.domain_name(name);
    }
    config
}
