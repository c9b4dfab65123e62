//! The deliver client: pulls the blocks of one channel from its orderers, without end.
//!
//! Promises: while it lives it holds one stream to one orderer or tries to get one; blocks come in the order of their
//! numbers, each once, beginning with the number it was started with; after a break it asks for the last delivered number
//! plus one. Nothing is verified here: a block is the raw bytes of a `common.Block` as the orderer sent them, never
//! re-encoded, with only its number read.
//!
//! Request (Fabric: `protoutil.CreateSignedEnvelope`, `blocksprovider/delivery_requester.go`): DELIVER_SEEK_INFO from that
//! number to `u64::MAX`, BLOCK_UNTIL_READY, signed; under mutual TLS with the SHA-256 of the own TLS certificate.
//!
//! What ends a stream and leads to another attempt: a connection or TLS error, a stream error, any status, SUCCESS
//! included (a seek without end must not finish), a block with another number than the next, a block above the channel's
//! size, or no sign of life for [`DeliverConfig::keepalive_interval`] plus [`DeliverConfig::keepalive_timeout`].
//!
//! # Choice and backoff
//! Each endpoint has a count of failures since it last delivered a block; the next attempt takes an endpoint with the
//! lowest count, at random among equals. So a faulty orderer is not asked again before all others were. The wait before an
//! attempt doubles from [`DeliverConfig::backoff_min`] to [`DeliverConfig::backoff_max`] with each failure in a row, of
//! which a random half is taken off, so that peers do not return together. A delivered block, or a stream that stood for
//! [`STABLE_AFTER`], starts it anew. There is no last attempt.
//!
//! # Bounds
//! One block is decoded at a time. The sink is bounded by its owner; while it is full nothing is read from the stream,
//! so flow control stops the orderer: at most the windows of the connection and one block wait here.
//!
//! # Attacks
//! An orderer can withhold blocks or send junk; it is asked again only after the others, and every block is verified by
//! who takes it from the sink. It cannot make us hold more than one block of the largest size.

mod endpoints;
mod probe;
mod rpc;
mod session;

use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use grapevine_channels::ChannelId;
use grapevine_channels::config::OrdererEndpoint;
use grapevine_crypto::Signer;
use tokio::sync::{mpsc, watch};
use tokio_util::sync::{CancellationToken, DropGuard};

use endpoints::{Backoff, EndpointMemory};
pub use probe::{NewestHeader, newest_header};
use session::{Session, SessionEnd};

/// A stream that stood this long counts as a success, though it delivered nothing.
pub const STABLE_AFTER: Duration = Duration::from_secs(30);

/// An orderer of the channel.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct DeliverEndpoint {
    /// `host:port`.
    pub address: String,
    /// CAs of its TLS certificate, PEM.
    pub tls_roots: Vec<Vec<u8>>,
}

impl From<&OrdererEndpoint> for DeliverEndpoint {
    fn from(endpoint: &OrdererEndpoint) -> Self {
        Self { address: endpoint.address.clone(), tls_roots: endpoint.tls_roots.clone() }
    }
}

/// An orderer that is reached under another address than the channel config says.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct AddressOverride {
    /// `host:port` in the channel config.
    pub from: String,
    /// `host:port` to dial and to expect in the certificate.
    pub to: String,
    /// CAs of its TLS certificate, PEM; empty for those of the channel config.
    pub tls_roots: Vec<Vec<u8>>,
}

/// A TLS certificate to show to orderers that ask for one, PEM.
#[derive(Clone, PartialEq, Eq)]
pub struct ClientCertificate {
    /// The certificate chain, leaf first.
    pub certificate: Vec<u8>,
    /// Its private key.
    pub key: Vec<u8>,
}

impl std::fmt::Debug for ClientCertificate {
    fn fmt(&self, formatter: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        formatter.debug_struct("ClientCertificate").finish_non_exhaustive()
    }
}

/// TLS towards orderers.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct DeliverTls {
    /// CAs trusted besides those of each endpoint, PEM.
    pub roots: Vec<Vec<u8>>,
    /// For orderers that require client authentication.
    pub client: Option<ClientCertificate>,
}

/// How to pull one channel.
#[derive(Debug, Clone)]
pub struct DeliverConfig {
    /// The channel.
    pub channel: ChannelId,
    /// Its orderers.
    pub endpoints: Vec<DeliverEndpoint>,
    /// Rewrites of their addresses.
    pub overrides: Vec<AddressOverride>,
    /// TLS; `None` for plain text.
    pub tls: Option<DeliverTls>,
    /// Largest block to take, in bytes.
    pub block_bytes_max: usize,
    /// Longest time to connect, TLS handshake included.
    pub connect_timeout: Duration,
    /// Wait before the second attempt.
    pub backoff_min: Duration,
    /// Longest wait between attempts.
    pub backoff_max: Duration,
    /// A stream that is silent for so long is pinged. Fabric's orderers cut clients that ping more often than once a
    /// minute.
    pub keepalive_interval: Duration,
    /// A ping that is not answered within this time ends the stream.
    pub keepalive_timeout: Duration,
}

impl DeliverConfig {
    /// Fabric's defaults (`peer.deliveryclient`, `peer.keepalive.deliveryClient`), but a longest wait of 10 s, plain text
    /// and no overrides.
    pub fn new(channel: ChannelId, endpoints: Vec<DeliverEndpoint>, block_bytes_max: usize) -> Self {
        Self {
            channel,
            endpoints,
            overrides: Vec::new(),
            tls: None,
            block_bytes_max,
            connect_timeout: Duration::from_secs(3),
            backoff_min: Duration::from_millis(100),
            backoff_max: Duration::from_secs(10),
            keepalive_interval: Duration::from_secs(60),
            keepalive_timeout: Duration::from_secs(20),
        }
    }
}

/// What the client reports.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum DeliverEvent {
    /// A stream stands: its first block is here (and follows), or the orderer has not refused the request for half a
    /// second. Orderers may answer nothing at all until there is a block.
    Connected {
        /// The channel.
        channel: ChannelId,
        /// The orderer's address in the channel config.
        endpoint: String,
    },
    /// The next block; not verified.
    Block {
        /// The channel.
        channel: ChannelId,
        /// Raw bytes of a `common.Block`.
        bytes: Bytes,
    },
    /// An attempt or a stream failed; another attempt follows by itself.
    Failed {
        /// The channel.
        channel: ChannelId,
        /// The orderer's address in the channel config; empty if the channel has no orderer.
        endpoint: String,
        /// What happened and what to do about it.
        reason: String,
    },
}

/// What can change while the client runs.
#[derive(Debug, Clone, PartialEq, Eq)]
struct Target {
    endpoints: Vec<DeliverEndpoint>,
    block_bytes_max: usize,
}

/// A running client; dropping it stops it.
#[derive(Debug)]
pub struct DeliverClient {
    target: watch::Sender<Target>,
    _stop: DropGuard,
}

impl DeliverClient {
    /// Starts pulling at block `start_number`. Ends when the client is dropped or the sink is closed. Must be called on
    /// a tokio runtime.
    pub fn spawn(
        config: DeliverConfig,
        signer: Arc<Signer>,
        start_number: u64,
        sink: mpsc::Sender<DeliverEvent>,
    ) -> Self {
        let stop = CancellationToken::new();
        let first = Target { endpoints: config.endpoints.clone(), block_bytes_max: config.block_bytes_max };
        let (target, targets) = watch::channel(first);
        let puller = Puller {
            memory: EndpointMemory::default(),
            backoff: Backoff::new(config.backoff_min, config.backoff_max),
            next: start_number,
            config,
            signer,
            targets,
            sink,
        };
        let guard = stop.clone().drop_guard();
        tokio::spawn(async move { stop.run_until_cancelled(puller.run()).await });
        Self { target, _stop: guard }
    }

    /// Takes over the orderers and the block size of a new channel config. If either changed, the stream is dropped and
    /// the client connects anew at once, which also spreads peers over new orderers.
    pub fn reconfigure(&self, endpoints: Vec<DeliverEndpoint>, block_bytes_max: usize) {
        let new = Target { endpoints, block_bytes_max };
        self.target.send_if_modified(|target| {
            let changed = *target != new;
            *target = new;
            changed
        });
    }
}

/// The task of a client. Cancel safe: dropping it at any point loses only blocks not yet delivered.
struct Puller {
    config: DeliverConfig,
    signer: Arc<Signer>,
    targets: watch::Receiver<Target>,
    sink: mpsc::Sender<DeliverEvent>,
    memory: EndpointMemory,
    backoff: Backoff,
    /// Number of the next block to deliver.
    next: u64,
}

impl Puller {
    async fn run(mut self) {
        loop {
            let target = self.targets.borrow_and_update().clone();
            self.memory.retain(&target.endpoints);
            let chosen = self.memory.choose(&target.endpoints, &mut rand::rng());
            let (address, reason) = match chosen {
                None => {
                    (String::new(), "the channel config names no orderer; waiting for one that does".into())
                }
                Some(endpoint) => match self.attempt(endpoint, target.block_bytes_max).await {
                    SessionEnd::Closed => return,
                    SessionEnd::Changed => {
                        self.backoff.reset();
                        continue;
                    }
                    SessionEnd::Failed(reason) => {
                        self.memory.failed(&endpoint.address);
                        (endpoint.address.clone(), reason)
                    }
                },
            };
            let channel = self.config.channel.clone();
            tracing::debug!(%channel, endpoint = address, reason, "delivery failed");
            if self.sink.send(DeliverEvent::Failed { channel, endpoint: address, reason }).await.is_err() {
                return;
            }
            let wait = self.backoff.next(&mut rand::rng());
            tokio::select! {
                () = tokio::time::sleep(wait) => {}
                changed = self.targets.changed() => {
                    if changed.is_err() {
                        return;
                    }
                    self.backoff.reset();
                }
                () = self.sink.closed() => return,
            }
        }
    }

    async fn attempt(&mut self, endpoint: &DeliverEndpoint, block_bytes_max: usize) -> SessionEnd {
        let started = tokio::time::Instant::now();
        let first = self.next;
        let mut session = Session {
            config: &self.config,
            endpoint,
            block_bytes_max,
            signer: &self.signer,
            sink: &self.sink,
            next: &mut self.next,
        };
        let end = tokio::select! {
            end = session.run() => end,
            changed = self.targets.changed() => match changed {
                Ok(()) => SessionEnd::Changed,
                Err(_) => SessionEnd::Closed,
            },
        };
        if self.next > first {
            self.memory.delivered(&endpoint.address);
        }
        if self.next > first || started.elapsed() >= STABLE_AFTER {
            self.backoff.reset();
        }
        end
    }
}
