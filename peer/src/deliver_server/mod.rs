//! The peer's Deliver server: Fabric's `protos.Deliver`, from which SDK clients stream blocks and resume at a number.
//!
//! # Promises
//! - A stream gets the blocks of its range in order, none twice and none left out, as they lie in the ledger; behind the
//!   tip it follows live. Blocks that are not committed are never sent.
//! - Only members read: [`grapevine_channels::deliver`] is the table of checks and statuses. The policy is that of the
//!   resource `event/Block` (`Deliver`) or `event/FilteredBlock` (`DeliverFiltered`): what the channel's ACLs say, else
//!   `/Channel/Application/Readers`. It is evaluated again when the channel's config changes; the certificate must be
//!   valid when each block is sent.
//! - `DeliverWithPrivateData` is answered with NOT_IMPLEMENTED, since there is no private data here.
//! - Nobody here validates transactions, and every answer says so: slot 2 of the metadata (TRANSACTIONS_FILTER) and the
//!   codes of filtered blocks are NOT_VALIDATED (254) for each transaction. Slot 0 is what the orderers signed, the other
//!   slots are blank. Filtered blocks tell the chaincode events of endorser transactions, without their payloads.
//! - A channel that stopped (a fork, an unusable config, our organisation removed) answers SERVICE_UNAVAILABLE to strict
//!   seeks and serves what it has to those of best effort.
//!
//! # Bounds
//! | what | bound | beyond it |
//! |---|---|---|
//! | streams | `peer.limits.concurrency.deliverService` | RESOURCE_EXHAUSTED, counted |
//! | connections | as many, and [`CONNECTIONS_SPARE`] more | closed at once, counted |
//! | a silent connection | [`KEEPALIVE_INTERVAL`], then [`KEEPALIVE_TIMEOUT`] without an answer to a ping | closed |
//! | a request | [`REQUEST_BYTES_MAX`] | the stream ends |
//! | frames of blocks, all streams together | [`FRAME_BYTES_MAX`] | readers wait; a stream whose client has taken nothing for [`STALL_MAX`] then ends with RESOURCE_EXHAUSTED, counted |
//! | recent blocks kept for other streams | 16 MiB | the oldest go |
//!
//! A slow client is slowed by flow control alone and may take as long as it likes while memory suffices.
//!
//! # Attacks
//! Strangers cost a connection and a bounded request. A member that opens streams and reads nothing costs its share of
//! streams and, when others need the memory, loses them. A stolen request is useless after the time window and, under
//! mutual TLS, on any other connection.

mod blocks;
mod channels;
mod frame;
mod incoming;
mod outlet;
mod service;
mod session;
mod tls;

use std::fmt;
use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use tokio::net::TcpListener;
use tokio::sync::Semaphore;
use tokio::task::JoinSet;
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;
use tonic::transport::Server;

pub use blocks::{FRAME_BYTES_MAX, RECENT_BLOCKS};
pub use channels::{ChannelState, DeliverChannels};
pub use frame::NOT_VALIDATED;
pub use tls::ServerTls;

use blocks::Blocks;
use service::DeliverService;

use crate::ledger::Ledger;

/// Most bytes of a request; a seek with a large certificate has some thousands.
pub const REQUEST_BYTES_MAX: usize = 1 << 20;
/// Connections beyond the number of streams, for clients that are about to open or have just ended one.
pub const CONNECTIONS_SPARE: usize = 64;
/// How long a client may take nothing while others wait for memory.
pub const STALL_MAX: Duration = Duration::from_secs(5);
/// A silent connection is asked for a sign of life this often.
pub const KEEPALIVE_INTERVAL: Duration = Duration::from_secs(60);
/// A connection that does not answer for this long is closed (Fabric: `peer.keepalive.timeout`).
pub const KEEPALIVE_TIMEOUT: Duration = Duration::from_secs(20);
/// How long stopping waits for streams to end.
const STOP_TIMEOUT: Duration = Duration::from_secs(1);

/// Certificate time in Unix seconds; see [`DeliverServerOptions::certificate_time`].
pub type CertificateTime = Arc<dyn Fn() -> i64 + Send + Sync>;

/// How to serve.
#[derive(Clone)]
pub struct DeliverServerOptions {
    /// Where to listen; port 0 takes a free one.
    pub listen: SocketAddr,
    /// TLS; `None` for plain text.
    pub tls: Option<ServerTls>,
    /// How far a request's timestamp may be from the wall clock, either way (`peer.authentication.timewindow`).
    pub time_window: Duration,
    /// Most streams at a time (`peer.limits.concurrency.deliverService`).
    pub streams_max: usize,
    /// Most bytes of frames held at a time; [`FRAME_BYTES_MAX`].
    pub frame_bytes_max: u32,
    /// How long a client may take nothing while others wait for memory; [`STALL_MAX`].
    pub stall_max: Duration,
    /// A silent connection is asked for a sign of life this often; [`KEEPALIVE_INTERVAL`].
    pub keepalive_interval: Duration,
    /// A connection that does not answer for this long is closed; [`KEEPALIVE_TIMEOUT`].
    pub keepalive_timeout: Duration,
    /// The time at which certificates must be valid.
    pub certificate_time: CertificateTime,
}

impl fmt::Debug for DeliverServerOptions {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter
            .debug_struct("DeliverServerOptions")
            .field("listen", &self.listen)
            .field("tls", &self.tls)
            .field("time_window", &self.time_window)
            .field("streams_max", &self.streams_max)
            .finish_non_exhaustive()
    }
}

/// Why the server cannot start.
#[derive(Debug, thiserror::Error)]
pub enum DeliverServerError {
    /// The listener.
    #[error(
        "cannot listen on {address} for Deliver clients: {source}; stop the process that uses it or choose another peer.deliverService.listenAddress"
    )]
    Listen {
        /// The address.
        address: SocketAddr,
        /// The system's answer.
        source: std::io::Error,
    },
    /// A TLS file.
    #[error("cannot read {}: {source}; check {key}", path.display())]
    File {
        /// The key that names it.
        key: &'static str,
        /// The file.
        path: std::path::PathBuf,
        /// The system's answer.
        source: std::io::Error,
    },
    /// The TLS material.
    #[error(
        "TLS for Deliver clients cannot be set up: {0}; check peer.tls.cert.file, peer.tls.key.file and peer.tls.clientRootCAs.files"
    )]
    Tls(String),
}

/// Counters since the start, and how many streams are open.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct DeliverServerCounters {
    /// Streams open now.
    pub streams: u64,
    /// Streams refused because too many were open.
    pub streams_refused: u64,
    /// Streams ended because their client took nothing while others waited for memory.
    pub streams_cut: u64,
    /// Connections closed because too many were open.
    pub connections_refused: u64,
    /// Blocks handed to connections, over all streams.
    pub blocks_sent: u64,
    /// Blocks read from the ledger.
    pub blocks_read: u64,
    /// Bytes of frames held now.
    pub frame_bytes: u64,
}

#[derive(Debug, Default)]
struct Counters {
    streams_refused: AtomicU64,
    streams_cut: AtomicU64,
    connections_refused: AtomicU64,
    blocks_sent: AtomicU64,
}

/// What all streams share.
struct Shared {
    channels: DeliverChannels,
    blocks: Blocks,
    time_window: Duration,
    binding_required: bool,
    streams: Arc<Semaphore>,
    streams_max: usize,
    stall_max: Duration,
    certificate_time: CertificateTime,
    stop: CancellationToken,
    counters: Arc<Counters>,
}

impl Shared {
    fn certificate_time(&self) -> i64 {
        (self.certificate_time)()
    }
}

impl fmt::Debug for Shared {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.debug_struct("Shared").field("channels", &self.channels).finish_non_exhaustive()
    }
}

/// A server that runs until [`DeliverServer::stop`]; dropping it ends it too, without waiting.
#[derive(Debug)]
pub struct DeliverServer {
    address: SocketAddr,
    shared: Arc<Shared>,
    tasks: TaskTracker,
    listener: Arc<TcpListener>,
    places: Arc<Semaphore>,
    /// Ends the accepting of the server in use, not its streams.
    accepting: CancellationToken,
    /// The servers that have connections, each with the TLS material that was there when it began. Those before the last end with
    /// their last stream.
    servers: JoinSet<Result<(), tonic::transport::Error>>,
    keepalive: Keepalive,
}

/// When a silent connection is asked for a sign of life, and how long it may take.
#[derive(Debug, Clone, Copy)]
struct Keepalive {
    interval: Duration,
    timeout: Duration,
}

impl DeliverServer {
    /// Begins to listen. Blocks come from `ledger`, as far as `channels` says.
    pub async fn start(
        options: DeliverServerOptions,
        ledger: Ledger,
        channels: DeliverChannels,
    ) -> Result<Self, DeliverServerError> {
        let keepalive =
            Keepalive { interval: options.keepalive_interval, timeout: options.keepalive_timeout };
        let transport = transport(options.tls.as_ref(), keepalive)?;
        let binding_required = options.tls.as_ref().is_some_and(|tls| tls.client_roots.is_some());
        let address = options.listen;
        let failed = |source| DeliverServerError::Listen { address, source };
        let listener = TcpListener::bind(address).await.map_err(failed)?;
        let address = listener.local_addr().map_err(failed)?;
        let counters = Arc::<Counters>::default();
        let connections_max = options.streams_max.saturating_add(CONNECTIONS_SPARE);
        let stop = CancellationToken::new();
        let shared = Arc::new(Shared {
            channels,
            blocks: Blocks::new(ledger, options.frame_bytes_max),
            time_window: options.time_window,
            binding_required,
            streams: Arc::new(Semaphore::new(options.streams_max)),
            streams_max: options.streams_max,
            stall_max: options.stall_max,
            certificate_time: options.certificate_time,
            stop: stop.clone(),
            counters,
        });
        let mut server = Self {
            address,
            shared,
            tasks: TaskTracker::new(),
            listener: Arc::new(listener),
            places: Arc::new(Semaphore::new(connections_max)),
            accepting: stop.child_token(),
            servers: JoinSet::new(),
            keepalive,
        };
        server.serve(transport);
        tracing::info!(listening = %address, tls = options.tls.is_some(), "serving Deliver clients");
        Ok(server)
    }

    /// Shows another certificate to connections that come from now on; those that are there go on with the one they know.
    ///
    /// # Errors
    /// [`DeliverServerError::Tls`] if the material does not fit together; the former stays in use.
    pub fn replace_tls(&mut self, tls: &ServerTls) -> Result<(), DeliverServerError> {
        let transport = transport(Some(tls), self.keepalive)?;
        self.accepting.cancel();
        self.accepting = self.shared.stop.child_token();
        while self.servers.try_join_next().is_some() {}
        self.serve(transport);
        Ok(())
    }

    fn serve(&mut self, mut transport: Server) {
        let service = DeliverService { shared: self.shared.clone(), tasks: self.tasks.clone() };
        let incoming =
            incoming::accept(self.listener.clone(), self.places.clone(), self.shared.counters.clone());
        let accepting = self.accepting.clone().cancelled_owned();
        self.servers.spawn(transport.add_service(service).serve_with_incoming_shutdown(incoming, accepting));
    }

    /// Where it listens.
    pub fn address(&self) -> SocketAddr {
        self.address
    }

    /// What it has done.
    pub fn counters(&self) -> DeliverServerCounters {
        let Shared { blocks, streams, streams_max, counters, .. } = &*self.shared;
        let read = |counter: &AtomicU64| counter.load(Ordering::Relaxed);
        let wide = |number: usize| u64::try_from(number).unwrap_or(u64::MAX);
        DeliverServerCounters {
            streams: wide(streams_max.saturating_sub(streams.available_permits())),
            streams_refused: read(&counters.streams_refused),
            streams_cut: read(&counters.streams_cut),
            connections_refused: read(&counters.connections_refused),
            blocks_sent: read(&counters.blocks_sent),
            blocks_read: blocks.reads(),
            frame_bytes: wide(blocks.held_bytes()),
        }
    }

    /// Tells the streams to end; [`Self::stop`] waits for them.
    pub fn begin_stop(&self) {
        self.shared.stop.cancel();
    }

    /// Ends all streams, which are told SERVICE_UNAVAILABLE, and closes the connections. Takes a second at most.
    pub async fn stop(mut self) {
        self.begin_stop();
        self.tasks.close();
        let ended = async {
            self.tasks.wait().await;
            while self.servers.join_next().await.is_some() {}
        };
        if tokio::time::timeout(STOP_TIMEOUT, ended).await.is_err() {
            tracing::info!("cutting Deliver connections that did not end");
        }
    }
}

fn transport(tls: Option<&ServerTls>, keepalive: Keepalive) -> Result<Server, DeliverServerError> {
    let server = Server::builder()
        .http2_keepalive_interval(Some(keepalive.interval))
        .http2_keepalive_timeout(Some(keepalive.timeout))
        .tcp_nodelay(true);
    let Some(tls) = tls else { return Ok(server) };
    server.tls_config(tls.config()).map_err(|error| DeliverServerError::Tls(tls::with_causes(&error)))
}

impl Drop for DeliverServer {
    fn drop(&mut self) {
        // The servers are aborted with their set.
        self.shared.stop.cancel();
    }
}
