//! What every server of Fabric's `Deliver` decides, orderer or peer: whether a request is served, which blocks it asks
//! for, and which status says otherwise. Pure: no stream, no clock, no store.
//!
//! Checks in Fabric's order (`common/deliver/deliver.go`), the first failure answers:
//!
//! | check | status | here |
//! |---|---|---|
//! | payload, header, channel header parse | 400 | [`Request::parse`] |
//! | timestamp present and within the time window of the server's clock | 400 | [`Request::check_time`] |
//! | with client authentication required: `tls_cert_hash` is that of the connection's client certificate | 400 | [`Request::check_binding`] |
//! | the channel exists | 404 | the server |
//! | the seek parses | 400 | [`Request::seek`] |
//! | the channel is in working order, or the seek asks for best effort; also while waiting | 503 | [`check_health`] |
//! | signature header parses | 400 | [`Request::signed_data`] |
//! | the signer satisfies the policy and its certificate has not expired | 403 | [`Access::grant`] |
//! | start and stop present and in order | 400 | [`range`] |
//! | start is not empty and at most the next block | 404 | [`range`] |
//! | before each block: the policy again if the config has changed, expiry always | 403 | [`Access::check_again`] |
//! | a block that is not there yet, with FAIL_IF_NOT_READY | 404 | the server |
//! | the range is finished | 200 | the server |
//!
//! Attacks: whatever a client sends becomes a value or a [`Refusal`]; nothing is allocated beyond the request itself,
//! whose size the server's transport bounds. A replayed request is refused after the time window, and under mutual TLS on any
//! connection but its own.

mod access;
mod request;
mod seek;

pub use access::{Access, authorise};
pub use request::Request;
pub use seek::{check_health, range};

use crate::proto::common::Status;

/// A request that is not served: the status to answer and why, in words for the client.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Refusal {
    /// Fabric's status.
    pub status: Status,
    /// Why, and what the client can do.
    pub info: String,
}

impl Refusal {
    /// A refusal with `status`.
    pub fn new(status: Status, info: impl Into<String>) -> Self {
        Self { status, info: info.into() }
    }

    fn bad(info: impl Into<String>) -> Self {
        Self::new(Status::BadRequest, info)
    }
}
