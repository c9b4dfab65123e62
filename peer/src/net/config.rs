//! Settings, errors and the traits through which the transport asks its owner.

use std::{net::SocketAddr, path::PathBuf, time::Duration};

use bytes::Bytes;
use grapevine_crypto::{Identity, PkiId};

/// Settings of the transport. [`NetConfig::new`] fills in the defaults.
#[derive(Debug, Clone)]
pub struct NetConfig {
    /// Address to listen on. Port 0 takes any free port, see `NetHandle::listen_address`.
    pub listen: SocketAddr,
    /// Only peers with the same network id can talk to each other.
    pub network_id: String,
    /// File with the libp2p key; created with mode 0600 on the first start.
    pub key_path: PathBuf,
    /// Largest control frame, in bytes.
    pub control_frame_bytes_max: usize,
    /// Largest header of a bulk message, in bytes.
    pub bulk_header_bytes_max: usize,
    /// Largest body of a bulk message that is even read past, in bytes. A peer that announces more is
    /// disconnected. What is kept is decided by [`BodyLimit`].
    pub bulk_body_bytes_max: usize,
    /// Bytes of control frames that may wait for one peer.
    pub control_queue_bytes_max: usize,
    /// Control frames that may wait for one peer.
    pub control_queue_frames_max: usize,
    /// Bytes of bulk messages that may wait for one peer, besides the largest of them.
    pub bulk_queue_bytes_max: usize,
    /// Bulk messages that may wait for one peer.
    pub bulk_queue_frames_max: usize,
    /// Bytes of bulk messages that may wait for all peers together; a body that waits for several counts once.
    pub send_budget_bytes: usize,
    /// Bytes of bodies that come in from all peers, or have come and are not taken by the owner.
    pub receive_budget_bytes: usize,
    /// Bytes a peer may send ahead of what has been read from its streams; at least 2 MiB.
    pub window_bytes_max: usize,
    /// Received control events waiting for the owner; beyond it the sockets are not read.
    pub control_events_max: usize,
    /// Received bulk events waiting for the owner; beyond it the sockets are not read.
    pub bulk_events_max: usize,
    /// Time for Noise and the member handshake together.
    pub handshake_timeout: Duration,
    /// Time for name resolution, and for the TCP connection to each address.
    pub dial_timeout: Duration,
    /// A stream that has bytes to write, or stands in the middle of a frame, and moves none for this
    /// long ends the connection.
    pub progress_timeout: Duration,
    /// An empty control frame is sent after this long without another one.
    pub keep_alive_interval: Duration,
    /// A peer from which no control frame came for this long is taken for dead.
    pub silence_timeout: Duration,
    /// Inbound handshakes under way at once.
    pub inbound_handshakes_max: usize,
    /// Inbound handshakes under way at once from one IP address.
    pub inbound_handshakes_per_ip_max: usize,
    /// Peers connected at once before further inbound ones are refused.
    pub connections_max: usize,
    /// Outgoing dials under way at once.
    pub dials_max: usize,
}

impl NetConfig {
    /// Settings with every limit at its default.
    pub fn new(listen: SocketAddr, network_id: impl Into<String>, key_path: impl Into<PathBuf>) -> Self {
        Self {
            listen,
            network_id: network_id.into(),
            key_path: key_path.into(),
            control_frame_bytes_max: 256 * 1024,
            bulk_header_bytes_max: 64 * 1024,
            bulk_body_bytes_max: 128 * 1024 * 1024,
            control_queue_bytes_max: 4 * 1024 * 1024,
            control_queue_frames_max: 4096,
            bulk_queue_bytes_max: 16 * 1024 * 1024,
            bulk_queue_frames_max: 4096,
            send_budget_bytes: 128 * 1024 * 1024,
            receive_budget_bytes: 128 * 1024 * 1024,
            // 16 MiB keep a path of 100 ms at 160 MB/s busy.
            window_bytes_max: 16 * 1024 * 1024,
            control_events_max: 256,
            bulk_events_max: 4,
            handshake_timeout: Duration::from_secs(5),
            dial_timeout: Duration::from_secs(3),
            progress_timeout: Duration::from_secs(30),
            keep_alive_interval: Duration::from_secs(5),
            silence_timeout: Duration::from_secs(30),
            inbound_handshakes_max: 128,
            inbound_handshakes_per_ip_max: 64,
            connections_max: 1024,
            dials_max: 64,
        }
    }
}

/// Decides who may connect. Called from connection tasks, never from the swarm's own task.
pub trait Admission: Send + Sync {
    /// Validates a marshalled `SerializedIdentity`: a member of an organisation this peer shares a
    /// channel with, valid now, in the peer role. The error is logged here, never sent.
    fn admit(&self, identity: &[u8]) -> Result<Identity, String>;
}

/// Messages of one flow arrive in order; flows of one connection share it fairly.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Default)]
pub struct Flow(pub u64);

/// A bulk message to be sent.
#[derive(Debug, Clone)]
pub struct BulkMessage {
    /// What it takes turns by; here: the channel.
    pub flow: Flow,
    /// The header, by which the receiver decides whether it wants the body.
    pub header: Bytes,
    /// The body.
    pub body: Bytes,
    /// Nobody has asked for it: it goes first when there is too much.
    pub is_push: bool,
}

/// Decides how large the body of a bulk message may be.
pub trait BodyLimit: Send + Sync {
    /// The most bytes the body after this header may have; `None` if the message is not wanted. A
    /// body above the limit is read past without being kept, and counted.
    fn body_limit(&self, peer: PkiId, header: &[u8]) -> Option<usize>;
}

/// The reason of a failed dial whose peer is connected already.
pub const ALREADY_CONNECTED: &str = "already connected";

/// What the transport reports. Per connection: `Connected`, then frames, then `Disconnected`; the
/// `Connected` of a replacement comes after the `Disconnected` of what it replaces.
#[derive(Debug)]
pub enum NetEvent {
    /// Both sides have admitted each other; frames may be sent.
    Connected {
        /// Who it is.
        peer: PkiId,
        /// Number of this connection, unique in this process.
        connection: u64,
        /// The validated identity.
        identity: Identity,
        /// SHA-256(dialer nonce ‖ listener nonce): the same on both sides, fresh for every connection.
        session: [u8; 32],
        /// Whether this side dialed.
        dialer: bool,
        /// The endpoint as it was dialed, or the remote `ip:port` of an inbound connection.
        remote_address: String,
        /// The libp2p PeerId of the other side.
        remote_peer_id: Vec<u8>,
    },
    /// The connection is gone; nothing more comes from it.
    Disconnected {
        /// Who it was.
        peer: PkiId,
        /// Number of the connection.
        connection: u64,
        /// What ended it, for the log.
        reason: String,
    },
    /// A control frame, never empty.
    Control {
        /// Who sent it.
        peer: PkiId,
        /// Number of the connection.
        connection: u64,
        /// The frame.
        frame: Bytes,
    },
    /// The header of a large bulk message that is wanted has come; its body follows, or `Disconnected`. A hint: left out when
    /// much is waiting.
    BulkStarted {
        /// Who sends it.
        peer: PkiId,
        /// Number of the connection.
        connection: u64,
        /// The header.
        header: Bytes,
    },
    /// More of the body has come: said now and then while it comes in. A hint, too.
    BulkProgress {
        /// Who sends it.
        peer: PkiId,
        /// Number of the connection.
        connection: u64,
        /// The header.
        header: Bytes,
    },
    /// A bulk message.
    Bulk {
        /// Who sent it.
        peer: PkiId,
        /// Number of the connection.
        connection: u64,
        /// The header the body limit was asked with.
        header: Bytes,
        /// The body, within the limit.
        body: Bytes,
    },
    /// A dial came to nothing. Every dial ends with this or with a `Connected` as dialer.
    DialFailed {
        /// The endpoint as it was dialed.
        endpoint: String,
        /// `self` for this peer's own endpoint, [`ALREADY_CONNECTED`], or what went wrong.
        reason: String,
    },
}

/// Why something was not taken for sending.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum SendError {
    /// The queue to this peer is full; the frame was dropped and counted.
    #[error("the send queue to the peer is full")]
    QueueFull,
    /// There is no connection to this peer.
    #[error("not connected to the peer")]
    NotConnected,
    /// The frame is larger than the protocol allows.
    #[error("the frame is larger than the protocol allows")]
    TooLarge,
}

/// Why the transport could not be started.
#[derive(Debug, thiserror::Error)]
pub enum NetError {
    /// Another process listens there.
    #[error(
        "cannot listen on {address}: the port is in use; stop the other process or change peer.listenAddress"
    )]
    PortInUse {
        /// The configured address.
        address: SocketAddr,
    },
    /// The address is not one of this machine or may not be used.
    #[error("cannot listen on {address}: {reason}; set peer.listenAddress to an address of this machine")]
    BadAddress {
        /// The configured address.
        address: SocketAddr,
        /// What the operating system says.
        reason: String,
    },
    /// The key file could not be read or created.
    #[error("cannot use the libp2p key file {path}: {reason}")]
    Key {
        /// The file.
        path: PathBuf,
        /// What is wrong and what to do.
        reason: String,
    },
    /// A setting is out of range.
    #[error("{0}")]
    Setting(String),
    /// Not called from inside a tokio runtime.
    #[error("the transport must be started inside a tokio runtime")]
    NoRuntime,
}
