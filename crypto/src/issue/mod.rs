//! Certificate authorities of the kind Fabric's `cryptogen` makes: for networks set up by hand, demos and tests.
//!
//! - A [`CertificateAuthority`] signs enrolment certificates (role as organisational unit), TLS certificates,
//!   intermediate CAs and revocation lists. Its certificate carries a subject key identifier, what it signs an authority
//!   key identifier; both are SHA-256 of the public key, as in Fabric. Its ECDSA signatures have low S.
//! - An [`Organization`] is an enrolment CA and a TLS CA under one MSP identifier.
//! - Directories are laid out as `cryptogen` lays them out; private keys are created with mode 0600.
//!
//! Nothing here reads a clock: validity is passed in. Production networks use a real CA; this one keeps its key in a file.

mod directory;
mod name;
mod organization;

use rcgen::{
    BasicConstraints, CertificateParams, CertificateRevocationListParams, DistinguishedName, DnType,
    ExtendedKeyUsagePurpose, IsCa, Issuer, KeyIdMethod, KeyUsagePurpose, PublicKeyData, RevokedCertParams,
    SanType, SerialNumber, SignatureAlgorithm, SigningKey,
};
use time::OffsetDateTime;

use crate::certificate::{Certificate, CertificateError};
use crate::identity::{IdentityError, KeyMismatch};
use crate::key::{Algorithm, KeyError, PrivateKey, PublicKey};
use crate::msp::MspError;
use crate::pem;
use crate::role::Role;

pub use directory::{write_msp_dir, write_tls_dir};
pub use organization::Organization;

/// Why something could not be issued, written or loaded.
#[derive(Debug, thiserror::Error)]
pub enum IssueError {
    /// A name, alternative name or time that a certificate cannot hold.
    #[error("the certificate for {name} cannot be made: {problem}")]
    Unencodable {
        /// The subject's common name.
        name: String,
        /// What is wrong.
        problem: String,
    },
    /// A certificate must begin when its CA is valid, or no chain of it ever validates.
    #[error("the certificate for {name} would not begin within the validity of its certificate authority")]
    OutsideAuthority {
        /// The subject's common name.
        name: String,
    },
    /// A certificate cannot be read back.
    #[error(transparent)]
    Certificate(#[from] CertificateError),
    /// A key cannot be read or written.
    #[error(transparent)]
    Key(#[from] KeyError),
    /// The key found is not the certificate's.
    #[error(transparent)]
    KeyMismatch(#[from] KeyMismatch),
    /// The MSP made of the certificates is not valid.
    #[error(transparent)]
    Msp(#[from] MspError),
    /// The certificate issued is not a member of its MSP.
    #[error(transparent)]
    Identity(#[from] IdentityError),
    /// A file cannot be written or read.
    #[error("{path}: {source}")]
    File {
        /// The file or directory.
        path: std::path::PathBuf,
        /// The operating system's reason.
        source: std::io::Error,
    },
    /// A CA directory does not hold a certificate and its key.
    #[error("{0} holds no certificate authority; expected one *-cert.pem and its private key *_sk")]
    NoAuthority(std::path::PathBuf),
}

/// When a certificate is valid, Unix seconds, both ends included.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Validity {
    /// First second.
    pub not_before: i64,
    /// Last second.
    pub not_after: i64,
}

impl Validity {
    /// From `now` for ten years, `cryptogen`'s default; `now` in Unix seconds.
    #[must_use]
    pub const fn ten_years_from(now: i64) -> Self {
        Self { not_before: now, not_after: now.saturating_add(10 * 365 * 24 * 3600) }
    }
}

/// A certificate and its private key.
#[derive(Clone, Debug)]
pub struct Issued {
    /// The certificate.
    pub certificate: Certificate,
    /// Its private key.
    pub key: PrivateKey,
}

/// A certificate authority with its private key.
#[derive(Clone, Debug)]
pub struct CertificateAuthority {
    issued: Issued,
}

impl CertificateAuthority {
    /// A self-signed enrolment CA with common name `ca.<organization_domain>`.
    ///
    /// # Errors
    /// [`IssueError::Unencodable`] if the validity cannot be written into a certificate.
    pub fn new(
        organization_domain: &str,
        algorithm: Algorithm,
        validity: Validity,
    ) -> Result<Self, IssueError> {
        Self::self_signed(&format!("ca.{organization_domain}"), organization_domain, algorithm, validity)
    }

    /// A self-signed TLS CA with common name `tlsca.<organization_domain>`, always P-256 so that every TLS library
    /// accepts it.
    ///
    /// # Errors
    /// As [`Self::new`].
    pub fn new_tls(organization_domain: &str, validity: Validity) -> Result<Self, IssueError> {
        let name = format!("tlsca.{organization_domain}");
        Self::self_signed(&name, organization_domain, Algorithm::EcdsaP256, validity)
    }

    fn self_signed(
        name: &str,
        organization: &str,
        algorithm: Algorithm,
        validity: Validity,
    ) -> Result<Self, IssueError> {
        let key = PrivateKey::generate(algorithm);
        let parameters = authority_parameters(name, organization, &key.public_key(), validity)?;
        let made = parameters.self_signed(&Key::new(&key)).map_err(|error| unencodable(name, error))?;
        let certificate = Certificate::from_der(made.der())?;
        Ok(Self { issued: Issued { certificate, key } })
    }

    /// The same CA with a new self-signed certificate for the same name and key, as when its validity runs out.
    ///
    /// An MSP takes either certificate as its root, but not both: Fabric demands exactly one chain.
    ///
    /// # Errors
    /// As [`Self::new`].
    pub fn renew(&self, validity: Validity) -> Result<Self, IssueError> {
        let name = self.name();
        let mut parameters = authority_parameters(name, name, &self.key().public_key(), validity)?;
        let issuer = self.issuer()?;
        parameters.distinguished_name = self.distinguished_name()?;
        let subject = SubjectKey::new(&self.key().public_key());
        let made = parameters.signed_by(&subject, &issuer).map_err(|error| unencodable(name, error))?;
        let certificate = Certificate::from_der(made.der())?;
        Ok(Self::from_parts(certificate, self.key().clone()))
    }

    pub(crate) const fn from_parts(certificate: Certificate, key: PrivateKey) -> Self {
        Self { issued: Issued { certificate, key } }
    }

    /// The CA's certificate.
    #[must_use]
    pub const fn certificate(&self) -> &Certificate {
        &self.issued.certificate
    }

    pub(crate) const fn key(&self) -> &PrivateKey {
        &self.issued.key
    }

    /// The CA's common name, such as `ca.org1.example.com`.
    #[must_use]
    pub fn name(&self) -> &str {
        self.issued.certificate.subject_common_name().unwrap_or_default()
    }

    /// An intermediate CA below this one, with the same algorithm.
    ///
    /// # Errors
    /// [`IssueError::OutsideAuthority`], [`IssueError::Unencodable`].
    pub fn issue_authority(&self, common_name: &str, validity: Validity) -> Result<Self, IssueError> {
        let key = PrivateKey::generate(self.key().algorithm());
        let mut parameters = authority_parameters(common_name, common_name, &key.public_key(), validity)?;
        parameters.use_authority_key_identifier_extension = true;
        let certificate = self.sign(common_name, &parameters, &key.public_key(), validity)?;
        Ok(Self::from_parts(certificate, key))
    }

    /// An enrolment certificate with a new key, the role as organisational unit.
    ///
    /// # Errors
    /// [`IssueError::OutsideAuthority`], [`IssueError::Unencodable`].
    pub fn issue_enrolment(
        &self,
        common_name: &str,
        role: Role,
        validity: Validity,
    ) -> Result<Issued, IssueError> {
        self.issue_with_units(common_name, &[role.organizational_unit()], validity)
    }

    /// An enrolment certificate with a new key and any organisational units, at most two.
    ///
    /// # Errors
    /// [`IssueError::OutsideAuthority`], [`IssueError::Unencodable`]; the latter for a third unit too.
    pub fn issue_with_units(
        &self,
        common_name: &str,
        organizational_units: &[&str],
        validity: Validity,
    ) -> Result<Issued, IssueError> {
        let key = PrivateKey::generate(self.key().algorithm());
        let mut parameters = leaf_parameters(common_name, validity)?;
        parameters.distinguished_name = DistinguishedName::new();
        // The builder keeps one value per attribute type; the numeric form of the type makes room for a second one.
        let types = [DnType::OrganizationalUnitName, DnType::CustomDnType(vec![2, 5, 4, 11])];
        if organizational_units.len() > types.len() {
            return Err(unencodable(common_name, "at most two organisational units"));
        }
        for (kind, unit) in types.into_iter().zip(organizational_units) {
            parameters.distinguished_name.push(kind, *unit);
        }
        parameters.distinguished_name.push(DnType::CommonName, common_name);
        parameters.key_usages = vec![KeyUsagePurpose::DigitalSignature];
        let certificate = self.sign(common_name, &parameters, &key.public_key(), validity)?;
        Ok(Issued { certificate, key })
    }

    /// A TLS certificate with a new P-256 key for servers and clients.
    ///
    /// `alternative_names` are host names and IP addresses; the common name is not added by itself.
    ///
    /// # Errors
    /// [`IssueError::OutsideAuthority`], [`IssueError::Unencodable`].
    pub fn issue_tls(
        &self,
        common_name: &str,
        alternative_names: &[String],
        validity: Validity,
    ) -> Result<Issued, IssueError> {
        let key = PrivateKey::generate(Algorithm::EcdsaP256);
        let mut parameters = leaf_parameters(common_name, validity)?;
        parameters.key_usages = vec![KeyUsagePurpose::DigitalSignature, KeyUsagePurpose::KeyEncipherment];
        parameters.extended_key_usages =
            vec![ExtendedKeyUsagePurpose::ServerAuth, ExtendedKeyUsagePurpose::ClientAuth];
        for name in alternative_names {
            let name = match name.parse() {
                Ok(address) => SanType::IpAddress(address),
                Err(_) => {
                    let name = name.as_str().try_into().map_err(|error| unencodable(common_name, error))?;
                    SanType::DnsName(name)
                }
            };
            parameters.subject_alt_names.push(name);
        }
        let certificate = self.sign(common_name, &parameters, &key.public_key(), validity)?;
        Ok(Issued { certificate, key })
    }

    /// A revocation list of this CA, PEM, that revokes the given certificates.
    ///
    /// # Errors
    /// [`IssueError::Unencodable`] if the times cannot be written or `not_after` is not after `not_before`.
    pub fn revoke(&self, certificates: &[&Certificate], validity: Validity) -> Result<Vec<u8>, IssueError> {
        let name = self.name();
        let this_update = timestamp(name, validity.not_before)?;
        let revoked = |certificate: &&Certificate| RevokedCertParams {
            serial_number: SerialNumber::from_slice(certificate.serial()),
            revocation_time: this_update,
            reason_code: None,
            invalidity_date: None,
        };
        let parameters = CertificateRevocationListParams {
            this_update,
            next_update: timestamp(name, validity.not_after)?,
            crl_number: SerialNumber::from_slice(&[1]),
            issuing_distribution_point: None,
            revoked_certs: certificates.iter().map(revoked).collect(),
            key_identifier_method: KeyIdMethod::PreSpecified(
                self.certificate().subject_key_id().unwrap_or_default().to_vec(),
            ),
        };
        let list = parameters.signed_by(&self.issuer()?).map_err(|error| unencodable(name, error))?;
        Ok(pem::encode("X509 CRL", list.der()).into_bytes())
    }

    fn issuer(&self) -> Result<Issuer<'static, Key>, IssueError> {
        let certificate = self.certificate();
        let mut parameters = CertificateParams::default();
        parameters.distinguished_name = self.distinguished_name()?;
        // A CA made elsewhere may number its keys otherwise.
        parameters.key_identifier_method = match certificate.subject_key_id() {
            Some(id) => KeyIdMethod::PreSpecified(id.to_vec()),
            None => key_identifier(certificate.public_key()),
        };
        Ok(Issuer::new(parameters, Key::new(self.key())))
    }

    fn distinguished_name(&self) -> Result<DistinguishedName, IssueError> {
        name::distinguished_name(self.certificate().subject())
            .ok_or_else(|| unencodable(self.name(), "the authority's name has an unsupported string type"))
    }

    fn sign(
        &self,
        name: &str,
        parameters: &CertificateParams,
        subject: &PublicKey,
        validity: Validity,
    ) -> Result<Certificate, IssueError> {
        let authority = self.certificate();
        if !(authority.not_before()..=authority.not_after()).contains(&validity.not_before) {
            return Err(IssueError::OutsideAuthority { name: name.to_owned() });
        }
        let subject = SubjectKey::new(subject);
        let made =
            parameters.signed_by(&subject, &self.issuer()?).map_err(|error| unencodable(name, error))?;
        let certificate = Certificate::from_der(made.der())?;
        if certificate.issuer() != authority.subject() {
            return Err(unencodable(name, "the authority's name cannot be reproduced"));
        }
        Ok(certificate)
    }
}

fn unencodable(name: &str, problem: impl std::fmt::Display) -> IssueError {
    IssueError::Unencodable { name: name.to_owned(), problem: problem.to_string() }
}

fn timestamp(name: &str, unix_seconds: i64) -> Result<OffsetDateTime, IssueError> {
    OffsetDateTime::from_unix_timestamp(unix_seconds).map_err(|error| unencodable(name, error))
}

/// Fabric's subject key identifier: SHA-256 of the public key's bytes.
fn key_identifier(key: &PublicKey) -> KeyIdMethod {
    KeyIdMethod::PreSpecified(key.key_id().0.to_vec())
}

fn leaf_parameters(common_name: &str, validity: Validity) -> Result<CertificateParams, IssueError> {
    let mut parameters = CertificateParams::default();
    parameters.not_before = timestamp(common_name, validity.not_before)?;
    parameters.not_after = timestamp(common_name, validity.not_after)?;
    // 127 random bits: positive, and below the 20 octets of RFC 5280.
    let mut serial: [u8; 16] = rand::random();
    serial[0] &= 0x7f;
    parameters.serial_number = Some(SerialNumber::from_slice(&serial));
    parameters.distinguished_name = DistinguishedName::new();
    parameters.distinguished_name.push(DnType::CommonName, common_name);
    parameters.is_ca = IsCa::ExplicitNoCa;
    parameters.use_authority_key_identifier_extension = true;
    Ok(parameters)
}

fn authority_parameters(
    common_name: &str,
    organization: &str,
    key: &PublicKey,
    validity: Validity,
) -> Result<CertificateParams, IssueError> {
    let mut parameters = leaf_parameters(common_name, validity)?;
    parameters.distinguished_name = DistinguishedName::new();
    parameters.distinguished_name.push(DnType::OrganizationName, organization);
    parameters.distinguished_name.push(DnType::CommonName, common_name);
    parameters.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
    parameters.use_authority_key_identifier_extension = false;
    parameters.key_identifier_method = key_identifier(key);
    parameters.key_usages = vec![
        KeyUsagePurpose::DigitalSignature,
        KeyUsagePurpose::KeyEncipherment,
        KeyUsagePurpose::KeyCertSign,
        KeyUsagePurpose::CrlSign,
    ];
    Ok(parameters)
}

/// A public key as the certificate builder wants it.
struct SubjectKey {
    bytes: Vec<u8>,
    algorithm: Algorithm,
}

impl SubjectKey {
    fn new(key: &PublicKey) -> Self {
        Self { bytes: key.to_bytes(), algorithm: key.algorithm() }
    }
}

impl PublicKeyData for SubjectKey {
    fn der_bytes(&self) -> &[u8] {
        &self.bytes
    }

    fn algorithm(&self) -> &'static SignatureAlgorithm {
        match self.algorithm {
            Algorithm::Ed25519 => &rcgen::PKCS_ED25519,
            Algorithm::EcdsaP256 => &rcgen::PKCS_ECDSA_P256_SHA256,
        }
    }
}

/// A private key as the certificate builder wants it: signatures are made by this crate's keys, with low S.
struct Key {
    key: PrivateKey,
    public: SubjectKey,
}

impl Key {
    fn new(key: &PrivateKey) -> Self {
        Self { key: key.clone(), public: SubjectKey::new(&key.public_key()) }
    }
}

impl PublicKeyData for Key {
    fn der_bytes(&self) -> &[u8] {
        self.public.der_bytes()
    }

    fn algorithm(&self) -> &'static SignatureAlgorithm {
        self.public.algorithm()
    }
}

impl SigningKey for Key {
    fn sign(&self, message: &[u8]) -> Result<Vec<u8>, rcgen::Error> {
        Ok(self.key.sign(message))
    }
}

#[cfg(test)]
mod tests;
