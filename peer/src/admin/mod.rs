//! The admin socket: how the command line talks to the peer that runs on the same data directory.
//!
//! A Unix socket `<peer.fileSystemPath>/admin.sock` with permissions 0600: who may open the peer's data may command it, nobody
//! else. One connection carries one request line and one answer line, both JSON:
//!
//! ```text
//! {"command":"status"}                        -> {"peer":"peer0.org1.example.com", ...}   see [`Status`]
//! {"command":"join","block":"<base64>"}       -> {"joined":"trade"}
//! {"command":"join","block":"/path/to/block"} -> {"joined":"trade"}
//! {"command":"repair","channel":"trade","ranges":[[2,5]]} -> {"repairing":4}
//! anything that does not work                 -> {"error":"what to do"}
//! ```
//!
//! # Bounds
//! | what | bound | when hit |
//! |---|---|---|
//! | request line | [`REQUEST_BYTES_MAX`] | error answer, connection closed |
//! | time to send the request | [`REQUEST_TIMEOUT_MS`] | connection closed |
//! | time for the peer to answer | [`ANSWER_TIMEOUT_MS`] | error answer |
//! | connections at a time | [`CONNECTIONS_MAX`] | error answer at once |
//! | block file named by a path | [`BLOCK_BYTES_MAX`] | error answer |
//!
//! The server only translates: typed [`AdminCall`]s go to the driver over a bounded queue and carry the way back for the answer.

mod client;
mod protocol;
mod server;

pub use client::{AdminClient, AdminClientError};
pub use protocol::{
    AdminCall, AdminRequest, AdminResponse, CatchUp, ChannelStatus, Equivocation, LeadershipStatus,
    MemberState, MemberStatus, Status, WireRequest,
};
pub use server::{AdminServer, AdminSocketError};

/// Name of the socket inside `peer.fileSystemPath`.
pub const SOCKET_NAME: &str = "admin.sock";
/// Largest request line in bytes: room for a genesis block in base64.
pub const REQUEST_BYTES_MAX: usize = 16 * 1024 * 1024;
/// Most ranges of one repair.
pub const RANGES_MAX: usize = 10_000;
/// Largest answer line in bytes that the client reads.
pub const ANSWER_BYTES_MAX: usize = 64 * 1024 * 1024;
/// Largest block file that `join` reads, in bytes.
pub const BLOCK_BYTES_MAX: u64 = 100 * 1024 * 1024;
/// Time a client has to send its request.
pub const REQUEST_TIMEOUT_MS: u64 = 5_000;
/// Time the peer has to answer.
pub const ANSWER_TIMEOUT_MS: u64 = 10_000;
/// Connections served at a time.
pub const CONNECTIONS_MAX: usize = 16;
