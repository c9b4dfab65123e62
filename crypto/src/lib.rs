//! Who signed what: identities, certificate chains, signatures and digests of the Hyperledger Fabric kind.
//!
//! Everything here is pure: no sockets, no async, no clock. Unix time is always passed in, in seconds. Input comes from
//! outside and is treated as hostile: every parser is total (errors, never panics), bounded in size, and accepts one
//! spelling of a thing where several would let an attacker multiply identities.
//!
//! Start at [`LocalMsp::load`] (a node's own directory), [`Msp::identify`] (somebody else's identity) and
//! [`Identity::verify`] (what it signed). Feature `issue` adds certificate authorities.
#![cfg_attr(test, allow(clippy::unwrap_used, clippy::expect_used))]

mod certificate;
mod der;
mod digest;
mod identity;
#[cfg(feature = "issue")]
pub mod issue;
mod key;
mod msp;
mod names;
mod pem;
pub mod proto;
mod role;

pub use certificate::{Certificate, CertificateError};
pub use digest::{Digest, DigestError, sha256, sha256_of};
pub use identity::{Identity, IdentityError, KeyMismatch, Signer, serialize_identity};
pub use key::{Algorithm, KeyError, PrivateKey, PublicKey, SignatureError};
pub use msp::{CACHED_IDENTITIES_MAX, CacheStatistics, LocalMsp, Msp, MspError, load_msp_config};
pub use names::{MspId, PkiId};
pub use pem::PemError;
pub use role::Role;
