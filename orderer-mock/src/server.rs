//! Starts and stops the whole service: channels, listener, gRPC server, control socket.
//!
//! Stopping takes less than [`STOP_TIMEOUT`] twice over: streams are told to end, connections that do not end are cut,
//! and everything accepted is written as a last block.

use std::net::SocketAddr;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use grapevine_block_trace::BlockTrace;
use grapevine_crypto::Signer;
use tokio::net::TcpListener;
use tokio::sync::mpsc;
use tokio::task::JoinHandle;
use tokio_stream::wrappers::ReceiverStream;
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;
use tonic::transport::{Certificate, Identity, Server, ServerTlsConfig};

use crate::chain::BatchOverrides;
use crate::connections::{self, Traffic};
use crate::control::{ControlError, ControlServer};
use crate::deliver::DeliverRules;
use crate::faults::Faults;
use crate::registry::{Registry, RegistryError};
use crate::rpc::{AtomicBroadcastServer, CONNECTION_WINDOW_BYTES, MESSAGE_BYTES_MAX, STREAM_WINDOW_BYTES};
use crate::service::OrdererService;

/// How long stopping waits for connections, and then for last blocks.
pub const STOP_TIMEOUT: Duration = Duration::from_secs(2);

/// A TLS handshake that takes longer is cut off (Fabric's default connection timeout).
const HANDSHAKE_TIMEOUT: Duration = Duration::from_secs(5);

/// A silent connection is asked for a sign of life this often.
pub const KEEPALIVE_INTERVAL: Duration = Duration::from_secs(60);

/// A connection that does not answer for this long is closed (Fabric: `ServerTimeout`).
pub const KEEPALIVE_TIMEOUT: Duration = Duration::from_secs(20);

/// Accepted connections that wait for the gRPC server to take them.
const CONNECTIONS_QUEUED_MAX: usize = 16;

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

impl std::fmt::Debug for ServerTls {
    fn fmt(&self, formatter: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        formatter
            .debug_struct("ServerTls")
            .field("client_roots", &self.client_roots.is_some())
            .finish_non_exhaustive()
    }
}

/// Everything a service needs to run.
#[derive(Debug, Clone)]
pub struct ServerOptions {
    /// Where to listen; port 0 takes a free one.
    pub listen: SocketAddr,
    /// TLS; `None` for plain text.
    pub tls: Option<ServerTls>,
    /// Directory that holds a directory for each channel, and the control socket.
    pub location: PathBuf,
    /// Genesis block files of the channels.
    pub genesis_files: Vec<PathBuf>,
    /// Signs blocks; must satisfy the channels' BlockValidation policies for anyone to take them.
    pub signer: Arc<Signer>,
    /// How far the timestamp of a seek may be from our clock, either way.
    pub time_window: Duration,
    /// A silent connection is asked for a sign of life this often; [`KEEPALIVE_INTERVAL`].
    pub keepalive_interval: Duration,
    /// A connection that does not answer for this long is closed; [`KEEPALIVE_TIMEOUT`].
    pub keepalive_timeout: Duration,
    /// Batch parameters in place of the channels' own.
    pub batch: BatchOverrides,
    /// Where it is noted when each block was written.
    pub trace: BlockTrace,
}

/// Why the service cannot start.
#[derive(Debug, thiserror::Error)]
pub enum ServerError {
    /// A channel.
    #[error(transparent)]
    Registry(#[from] RegistryError),
    /// The listener.
    #[error(
        "cannot listen on {address}: {source}; stop the process that uses it or choose another General.ListenAddress and ListenPort"
    )]
    Listen {
        /// The address.
        address: SocketAddr,
        /// The system's answer.
        source: std::io::Error,
    },
    /// The control socket.
    #[error(transparent)]
    Control(#[from] ControlError),
    /// The TLS material.
    #[error("TLS cannot be set up: {0}; check General.TLS.Certificate, PrivateKey and ClientRootCAs")]
    Tls(String),
}

/// A service that runs until [`RunningServer::stop`].
#[derive(Debug)]
pub struct RunningServer {
    address: SocketAddr,
    registry: Arc<Registry>,
    faults: Arc<Faults>,
    stop: CancellationToken,
    close: CancellationToken,
    streams: TaskTracker,
    server: JoinHandle<Result<(), tonic::transport::Error>>,
    chains: Vec<JoinHandle<()>>,
}

impl RunningServer {
    /// Opens the channels and begins to listen.
    pub async fn start(options: ServerOptions) -> Result<Self, ServerError> {
        let (stop, close) = (CancellationToken::new(), CancellationToken::new());
        let mut server = Server::builder()
            .initial_stream_window_size(STREAM_WINDOW_BYTES)
            .initial_connection_window_size(CONNECTION_WINDOW_BYTES)
            .http2_keepalive_interval(Some(options.keepalive_interval))
            .http2_keepalive_timeout(Some(options.keepalive_timeout))
            .tcp_nodelay(true);
        let binding_required = options.tls.as_ref().is_some_and(|tls| tls.client_roots.is_some());
        if let Some(tls) = options.tls {
            server =
                server.tls_config(tls_config(tls)).map_err(|error| ServerError::Tls(chain_of(&error)))?;
        }
        let address = options.listen;
        let listen_error = |source| ServerError::Listen { address, source };
        let listener = TcpListener::bind(address).await.map_err(listen_error)?;
        let address = listener.local_addr().map_err(listen_error)?;
        // First of all: it keeps a second service out of the directory.
        let control = ControlServer::bind(&options.location).await?;
        let (registry, chains) = Registry::open(
            &options.location,
            &options.genesis_files,
            &options.signer,
            options.batch,
            &options.trace,
            &close,
        )?;
        let registry = Arc::new(registry);
        let faults = Arc::new(Faults::new(registry.clone()));
        let traffic = Arc::new(Traffic::default());
        tokio::spawn(control.serve(faults.clone(), traffic.clone(), stop.clone()));
        let rules = DeliverRules {
            registry: registry.clone(),
            time_window: options.time_window,
            binding_required,
            faults: faults.clone(),
            signer: options.signer.clone(),
            stop: stop.clone(),
        };
        let streams = TaskTracker::new();
        let service = AtomicBroadcastServer::new(OrdererService::new(rules, streams.clone()))
            .max_decoding_message_size(MESSAGE_BYTES_MAX)
            .max_encoding_message_size(MESSAGE_BYTES_MAX);
        let (accepted, connections) = mpsc::channel(CONNECTIONS_QUEUED_MAX);
        tokio::spawn(connections::accept(listener, address, faults.clone(), traffic, accepted, stop.clone()));
        let serving = server
            .add_service(service)
            .serve_with_incoming_shutdown(ReceiverStream::new(connections), stop.clone().cancelled_owned());
        tracing::info!("listening on {address}");
        let server = tokio::spawn(serving);
        Ok(Self { address, registry, faults, stop, close, streams, server, chains })
    }

    /// Where it listens.
    pub fn address(&self) -> SocketAddr {
        self.address
    }

    /// The channels, for a look at their heights.
    pub fn registry(&self) -> &Arc<Registry> {
        &self.registry
    }

    /// Its fault switches.
    pub fn faults(&self) -> &Arc<Faults> {
        &self.faults
    }

    /// Ends all streams, writes what was accepted, and returns. Takes at most twice [`STOP_TIMEOUT`].
    pub async fn stop(mut self) {
        self.stop.cancel();
        self.streams.close();
        let ended = async {
            self.streams.wait().await;
            let _ = (&mut self.server).await;
        };
        if tokio::time::timeout(STOP_TIMEOUT, ended).await.is_err() {
            tracing::info!("cutting connections that did not end");
            self.server.abort();
        }
        self.close.cancel();
        let written = futures::future::join_all(self.chains.drain(..));
        if tokio::time::timeout(STOP_TIMEOUT, written).await.is_err() {
            tracing::error!(
                "stopped before the last block was written; some accepted transactions may be lost"
            );
        }
    }
}

impl Drop for RunningServer {
    /// A server that is dropped without [`RunningServer::stop`] ends all the same, in the background.
    fn drop(&mut self) {
        self.stop.cancel();
        self.close.cancel();
        self.server.abort();
    }
}

fn tls_config(tls: ServerTls) -> ServerTlsConfig {
    let config = ServerTlsConfig::new()
        .identity(Identity::from_pem(tls.certificate, tls.key))
        .timeout(HANDSHAKE_TIMEOUT);
    match tls.client_roots {
        Some(roots) => config.client_ca_root(Certificate::from_pem(roots)),
        None => config,
    }
}

/// An error with its causes in one line, each told once; the transport's own text alone says nothing.
pub fn chain_of(error: &dyn std::error::Error) -> String {
    let mut text = error.to_string();
    let mut source = error.source();
    while let Some(cause) = source {
        let cause_text = cause.to_string();
        if !text.contains(&cause_text) {
            text = format!("{text}: {cause_text}");
        }
        source = cause.source();
    }
    text
}
