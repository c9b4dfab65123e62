//! Validated members, and the local member that can sign.

use std::fmt;
use std::sync::Arc;

use prost::Message as _;

use crate::certificate::{Certificate, CertificateError};
use crate::key::{PrivateKey, SignatureError};
use crate::names::{MspId, PkiId};
use crate::proto;
use crate::role::Role;

/// Why an identity is not a valid member of an MSP.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum IdentityError {
    /// Not a marshalled `SerializedIdentity`, or longer than allowed.
    #[error("the identity is not a SerializedIdentity message")]
    Malformed,
    /// The identity says it belongs to another MSP.
    #[error("the identity belongs to MSP {actual}, not to {expected}")]
    OtherMsp {
        /// The MSP that was asked.
        expected: MspId,
        /// The MSP that the identity names.
        actual: MspId,
    },
    /// The certificate is not well-formed.
    #[error(transparent)]
    Certificate(#[from] CertificateError),
    /// A CA certificate was presented as a member.
    #[error("the certificate is one of a certificate authority, which cannot act as a member")]
    IsAuthority,
    /// No chain leads from the certificate to a root of the MSP.
    #[error("the certificate was not issued by a certificate authority of {0}")]
    NotIssuedByMsp(MspId),
    /// More than one chain; Fabric demands exactly one.
    #[error(
        "the certificate has more than one chain to the roots of {0}; remove the duplicate CA from the MSP"
    )]
    SeveralChains(MspId),
    /// The issuer has intermediate CAs below it and so must not issue members.
    #[error(
        "the certificate was issued by a CA of {0} that has intermediate CAs; only the lowest CAs may issue members"
    )]
    IssuedByInnerAuthority(MspId),
    /// Listed in a revocation list of its CA.
    #[error("the certificate with serial {0} has been revoked by its certificate authority")]
    Revoked(String),
    /// None of the organisational units that the MSP demands.
    #[error("the certificate has none of the organisational units that {0} demands")]
    OrganizationalUnitMissing(MspId),
    /// NodeOUs are on and the certificate tells no role.
    #[error(
        "the certificate tells no role: its subject needs exactly one of the organisational units client, peer, admin, orderer"
    )]
    RoleMissing,
    /// NodeOUs are on and the certificate tells several roles.
    #[error(
        "the certificate tells more than one role; its subject needs exactly one role as organisational unit"
    )]
    SeveralRoles,
    /// The role's organisational unit was certified by another CA than the MSP demands.
    #[error(
        "the organisational unit {0} was certified by another certificate authority than the MSP demands"
    )]
    WrongCertifier(String),
}

/// A validated member of an organisation. Cheap to clone.
///
/// Only an [`crate::Msp`] makes one, so holding it proves: the certificate chains to the MSP, was not revoked under the
/// MSP's configuration, and tells an allowed role. It does not prove that the certificate is valid now: ask
/// [`Identity::expired_at`].
#[derive(Clone)]
pub struct Identity(Arc<IdentityFields>);

pub(crate) struct IdentityFields {
    pub(crate) msp_id: MspId,
    pub(crate) certificate: Certificate,
    pub(crate) pki_id: PkiId,
    pub(crate) role: Option<Role>,
    pub(crate) is_admin: bool,
    pub(crate) serialized: Vec<u8>,
    /// SHA-256 over the canonical DER of the chain without the leaf: Fabric's certifiers identifier.
    pub(crate) certifiers_identifier: crate::Digest,
}

impl Identity {
    pub(crate) fn new(fields: IdentityFields) -> Self {
        Self(Arc::new(fields))
    }

    /// The organisation.
    #[must_use]
    pub fn msp_id(&self) -> &MspId {
        &self.0.msp_id
    }

    /// The certificate.
    #[must_use]
    pub fn certificate(&self) -> &Certificate {
        &self.0.certificate
    }

    /// Who this is across renewals. A certificate without common name is named by its fingerprint and cannot be renewed.
    #[must_use]
    pub fn pki_id(&self) -> PkiId {
        self.0.pki_id
    }

    /// The role told by NodeOUs; `None` if the MSP has NodeOUs off.
    #[must_use]
    pub fn role(&self) -> Option<Role> {
        self.0.role
    }

    /// Whether this is an administrator: listed by the MSP, or by NodeOU.
    #[must_use]
    pub fn is_admin(&self) -> bool {
        self.0.is_admin
    }

    /// The marshalled `SerializedIdentity`, as it travels.
    #[must_use]
    pub fn serialized(&self) -> &[u8] {
        &self.0.serialized
    }

    /// Verifies a signature of this member.
    ///
    /// # Errors
    /// [`SignatureError`] if the signature does not hold.
    pub fn verify(&self, message: &[u8], signature: &[u8]) -> Result<(), SignatureError> {
        self.0.certificate.public_key().verify(message, signature)
    }

    /// Whether the certificate is past its last second of validity at `unix_seconds`.
    #[must_use]
    pub fn expired_at(&self, unix_seconds: i64) -> bool {
        unix_seconds > self.0.certificate.not_after()
    }

    pub(crate) fn certifiers_identifier(&self) -> crate::Digest {
        self.0.certifiers_identifier
    }
}

impl fmt::Debug for Identity {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter
            .debug_struct("Identity")
            .field("msp_id", &self.0.msp_id)
            .field("common_name", &self.0.certificate.subject_common_name())
            .field("role", &self.0.role)
            .field("pki_id", &self.0.pki_id)
            .finish_non_exhaustive()
    }
}

/// Marshals an identity as it travels: MSP ID and PEM certificate.
#[must_use]
pub fn serialize_identity(msp_id: &MspId, certificate_pem: &[u8]) -> Vec<u8> {
    let message =
        proto::SerializedIdentity { mspid: msp_id.as_str().to_owned(), id_bytes: certificate_pem.to_vec() };
    message.encode_to_vec()
}

/// The local member: an identity and its private key.
#[derive(Clone, Debug)]
pub struct Signer {
    identity: Identity,
    key: PrivateKey,
}

/// The private key is not the one of the certificate.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("the private key does not belong to the certificate")]
pub struct KeyMismatch;

impl Signer {
    /// Joins an identity and its key.
    ///
    /// # Errors
    /// [`KeyMismatch`] if the key is another one.
    pub fn new(identity: Identity, key: PrivateKey) -> Result<Self, KeyMismatch> {
        if key.public_key() == *identity.certificate().public_key() {
            Ok(Self { identity, key })
        } else {
            Err(KeyMismatch)
        }
    }

    /// Who signs.
    #[must_use]
    pub const fn identity(&self) -> &Identity {
        &self.identity
    }

    /// The marshalled `SerializedIdentity` of who signs.
    #[must_use]
    pub fn serialized(&self) -> &[u8] {
        self.identity.serialized()
    }

    /// Signs a message with the enrolment key.
    #[must_use]
    pub fn sign(&self, message: &[u8]) -> Vec<u8> {
        self.key.sign(message)
    }
}
