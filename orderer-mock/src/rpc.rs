//! The gRPC service `orderer.AtomicBroadcast` of Fabric (`orderer/ab.proto`), generated at build time.
//!
//! The messages are those of `grapevine_channels::proto`. A block is carried as the raw bytes of its `common.Block` (the
//! wire form of a nested message and of a byte string is the same), so what the store holds is exactly what a client
//! receives.

/// Largest gRPC message taken or sent, in bytes (Fabric's default of `MaxRecvMsgSize` and `MaxSendMsgSize`).
pub const MESSAGE_BYTES_MAX: usize = 100 * 1024 * 1024;

/// HTTP/2 flow control window of a stream, in bytes: enough for a large message in flight on a fast link.
pub const STREAM_WINDOW_BYTES: u32 = 4 * 1024 * 1024;

/// HTTP/2 flow control window of a connection, in bytes.
pub const CONNECTION_WINDOW_BYTES: u32 = 8 * 1024 * 1024;

#[allow(missing_docs, missing_debug_implementations, unreachable_pub, clippy::all, clippy::use_self)]
mod generated {
    include!(concat!(env!("OUT_DIR"), "/orderer.AtomicBroadcast.rs"));
}

pub use generated::atomic_broadcast_client::AtomicBroadcastClient;
pub use generated::atomic_broadcast_server::{AtomicBroadcast, AtomicBroadcastServer};
