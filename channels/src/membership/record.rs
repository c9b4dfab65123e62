//! Alive records: signing, decoding, checking, order.

use bytes::Bytes;
use grapevine_crypto::sha256;
use prost::Message;

use crate::authority::{Authority, CertificateOrder, Credential};
use crate::wire::{Alive, SignedAlive, SignedInternalEndpoint};

/// Stands before the payload of a signed alive record, so that its signature means nothing elsewhere.
pub const ALIVE_TAG: &[u8] = b"grapevine/alive/1";
/// Stands before the digest and endpoint of a signed internal endpoint.
pub const INTERNAL_TAG: &[u8] = b"grapevine/internal-endpoint/1";

/// Longest endpoint, in bytes: a DNS name of 253, a colon, a port of 5 digits.
const ENDPOINT_SIZE_MAX: usize = 259;
/// Longest libp2p PeerId, in bytes (a multihash of a small key).
const PEER_ID_SIZE_MAX: usize = 64;

/// The total order of one member's records: newest certificate first, then newest start, then newest record.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub struct Order {
    /// The certificate.
    pub certificate: CertificateOrder,
    /// Persisted counter of starts.
    pub incarnation: u64,
    /// Record of that start.
    pub sequence: u64,
}

impl Order {
    /// The order of a record.
    pub fn new(credential: &Credential, alive: &Alive) -> Self {
        Self { certificate: credential.order(), incarnation: alive.incarnation, sequence: alive.sequence }
    }
}

/// Why a record changes nothing.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum RecordError {
    /// Not an alive record of this network.
    #[error("malformed record: {0}")]
    Malformed(&'static str),
    /// Nobody this node trusts vouches for the identity.
    #[error("identity refused: {0}")]
    Untrusted(String),
    /// A heartbeat of an identity that was not seen yet.
    #[error("identity not known")]
    UnknownIdentity(Vec<u8>),
    /// Not newer than what is known.
    #[error("stale record")]
    Stale,
    /// A signature is not the subject's.
    #[error("bad signature")]
    BadSignature,
}

/// What a check of the signatures brought to light.
#[derive(Debug)]
pub(super) struct Checked {
    pub(super) internal_endpoint: Option<String>,
}

impl Checked {
    /// The endpoint to name for operators.
    pub(super) fn endpoint<'a>(&'a self, external: &'a str) -> &'a str {
        let internal = self.internal_endpoint.as_deref().filter(|endpoint| !endpoint.is_empty());
        internal.unwrap_or(if external.is_empty() { "no endpoint" } else { external })
    }
}

pub(super) fn identity_digest(serialized: &[u8]) -> [u8; 32] {
    sha256(serialized).0
}

/// Signs a record as this node, without its identity.
pub(super) fn sign(alive: &Alive, internal_endpoint: &str, authority: &dyn Authority) -> SignedAlive {
    let payload: Bytes = alive.encode_to_vec().into();
    let internal = SignedInternalEndpoint {
        signature: authority.sign(&internal_message(&payload, internal_endpoint)).into(),
        endpoint: internal_endpoint.to_owned(),
    };
    SignedAlive {
        signature: authority.sign(&alive_message(&payload)).into(),
        payload,
        identity: Bytes::new(),
        internal: Some(internal),
    }
}

/// Decodes the payload and checks everything that needs no signature.
pub(super) fn decode(record: &SignedAlive, network_id: &str) -> Result<Alive, RecordError> {
    let alive = Alive::decode(record.payload.clone()).map_err(|_| RecordError::Malformed("payload"))?;
    if alive.network_id != network_id {
        return Err(RecordError::Malformed("another network"));
    }
    if alive.identity_digest.len() != 32 {
        return Err(RecordError::Malformed("identity digest"));
    }
    if alive.peer_id.len() > PEER_ID_SIZE_MAX {
        return Err(RecordError::Malformed("peer id"));
    }
    let endpoints =
        [Some(&alive.external_endpoint), record.internal.as_ref().map(|internal| &internal.endpoint)];
    if endpoints.into_iter().flatten().any(|endpoint| !is_endpoint(endpoint)) {
        return Err(RecordError::Malformed("endpoint"));
    }
    Ok(alive)
}

/// Checks the signatures of a record.
pub(super) fn check(
    record: &SignedAlive,
    credential: &Credential,
    authority: &dyn Authority,
) -> Result<Checked, RecordError> {
    if !authority.verify(credential, &alive_message(&record.payload), &record.signature) {
        return Err(RecordError::BadSignature);
    }
    let Some(internal) = &record.internal else { return Ok(Checked { internal_endpoint: None }) };
    let message = internal_message(&record.payload, &internal.endpoint);
    if !authority.verify(credential, &message, &internal.signature) {
        return Err(RecordError::BadSignature);
    }
    Ok(Checked { internal_endpoint: Some(internal.endpoint.clone()) })
}

fn alive_message(payload: &[u8]) -> Vec<u8> {
    [ALIVE_TAG, payload].concat()
}

fn internal_message(payload: &[u8], endpoint: &str) -> Vec<u8> {
    [INTERNAL_TAG, &sha256(payload).0, endpoint.as_bytes()].concat()
}

/// `host:port`, or empty for none.
fn is_endpoint(endpoint: &str) -> bool {
    if endpoint.is_empty() {
        return true;
    }
    endpoint.len() <= ENDPOINT_SIZE_MAX
        && endpoint
            .rsplit_once(':')
            .is_some_and(|(host, port)| !host.is_empty() && port.parse::<u16>().is_ok_and(|port| port != 0))
}
