//! Who vouches for whom, as the machines need it: one trait between them and X.509.
//!
//! Checks are synchronous. A peer of a network of hundreds hears some hundred alive records a second, each one
//! signature check after cheap tests have thrown out what it knows already; block signatures, the heavy part, go
//! through `Output::Verify` to a worker pool instead. The simulator puts a cheap scheme behind the same trait.

use std::fmt::Debug;

use bytes::Bytes;
use grapevine_crypto::{MspId, PkiId};

/// An identity that an organisation of a shared channel vouches for, as far as membership is concerned.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Credential {
    /// Who it is; survives renewals of the certificate.
    pub pki_id: PkiId,
    /// The organisation.
    pub msp_id: MspId,
    /// Subject common name, for people.
    pub name: String,
    /// Start of the certificate's validity, Unix seconds: the first part of a record's order.
    pub not_before: i64,
    /// Last second of the certificate's validity, Unix seconds.
    pub not_after: i64,
    /// Certificate serial number, big endian: the second part.
    pub serial: Vec<u8>,
    /// The marshalled SerializedIdentity.
    pub serialized: Bytes,
}

/// The order of one member's certificates: the later start of validity is newer, then the greater serial number.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub struct CertificateOrder {
    /// Start of validity, Unix seconds.
    pub not_before: i64,
    /// Serial number without leading zeros, longer ones greater.
    pub serial: (usize, Vec<u8>),
}

impl Credential {
    /// Where the certificate stands among those of its member.
    pub fn order(&self) -> CertificateOrder {
        let serial: Vec<u8> = self.serial.iter().copied().skip_while(|byte| *byte == 0).collect();
        CertificateOrder { not_before: self.not_before, serial: (serial.len(), serial) }
    }

    /// Whether the certificate's validity is over at `unix_seconds`.
    pub fn expired_at(&self, unix_seconds: i64) -> bool {
        unix_seconds > self.not_after
    }
}

/// Signs as this node and judges others.
pub trait Authority: Debug + Send {
    /// Signs with this node's enrolment key.
    fn sign(&self, message: &[u8]) -> Vec<u8>;

    /// The credential behind a marshalled SerializedIdentity, if it is a peer of the own organisation or of one that
    /// shares a channel with this node, and valid at `unix_seconds`. The error is for logs.
    fn identify(&self, serialized: &[u8], unix_seconds: i64) -> Result<Credential, String>;

    /// Whether `signature` over `message` was made by the key of `credential`.
    fn verify(&self, credential: &Credential, message: &[u8], signature: &[u8]) -> bool;
}

/// A scheme for tests and simulations: names as identities, SHA-256 over name and message as signature.
/// Anybody can forge it; it exists so that protocol behaviour can be tested by the thousand.
#[derive(Debug, Clone)]
pub struct ToyAuthority {
    own: Credential,
    /// Organisations this node knows; others are refused.
    pub organizations: Vec<MspId>,
}

impl ToyAuthority {
    /// The scheme as `name` of `organization` uses it.
    pub fn new(organization: &str, name: &str, organizations: &[&str]) -> Self {
        Self {
            own: Self::credential(organization, name),
            organizations: organizations.iter().map(|organization| (*organization).into()).collect(),
        }
    }

    /// The credential of `name` of `organization`.
    pub fn credential(organization: &str, name: &str) -> Credential {
        Self::renewed(organization, name, 0)
    }

    /// The credential of `name` of `organization` with a certificate issued at `not_before`.
    pub fn renewed(organization: &str, name: &str, not_before: i64) -> Credential {
        Self::lasting(organization, name, not_before, i64::MAX)
    }

    /// The credential of `name` of `organization` with a certificate that is valid from `not_before` to `not_after`.
    pub fn lasting(organization: &str, name: &str, not_before: i64, not_after: i64) -> Credential {
        let msp_id: MspId = organization.into();
        let end = if not_after == i64::MAX { String::new() } else { format!("/{not_after}") };
        Credential {
            pki_id: PkiId::new(&msp_id, name),
            msp_id,
            name: name.to_owned(),
            not_before,
            not_after,
            serial: vec![1],
            serialized: format!("{organization}/{name}/{not_before}{end}").into_bytes().into(),
        }
    }

    /// The scheme as the holder of another credential of the same member uses it.
    pub fn renew(&mut self, own: Credential) {
        self.own = own;
    }

    fn signature(serialized: &[u8], message: &[u8]) -> Vec<u8> {
        grapevine_crypto::sha256_of([serialized, message]).0.to_vec()
    }
}

impl Authority for ToyAuthority {
    fn sign(&self, message: &[u8]) -> Vec<u8> {
        Self::signature(&self.own.serialized, message)
    }

    fn identify(&self, serialized: &[u8], unix_seconds: i64) -> Result<Credential, String> {
        let no_identity = || "not a toy identity".to_owned();
        let text = std::str::from_utf8(serialized).map_err(|error| error.to_string())?;
        let mut parts = text.splitn(4, '/');
        let (Some(organization), Some(name), Some(not_before)) = (parts.next(), parts.next(), parts.next())
        else {
            return Err(no_identity());
        };
        let not_before = not_before.parse().map_err(|_| no_identity())?;
        let not_after = parts.next().map_or(Ok(i64::MAX), |end| end.parse().map_err(|_| no_identity()))?;
        let credential = Self::lasting(organization, name, not_before, not_after);
        if credential.expired_at(unix_seconds) {
            return Err("its certificate has expired".into());
        }
        if self.organizations.contains(&credential.msp_id) || credential.msp_id == self.own.msp_id {
            Ok(credential)
        } else {
            Err(format!("organisation {organization} shares no channel"))
        }
    }

    fn verify(&self, credential: &Credential, message: &[u8], signature: &[u8]) -> bool {
        signature == Self::signature(&credential.serialized, message)
    }
}
