//! X.509 certificates (RFC 5280), parsed once and kept with the bytes they came from.
//!
//! Promises:
//! - **Total and bounded**: any bytes give a certificate or a [`CertificateError`]; inputs above 16 KiB are refused first.
//! - **One spelling**: exactly one PEM block, strict DER around the signed part, the same algorithm inside and outside,
//!   no duplicate extension. [`Certificate::fingerprint`] does not depend on the spelling of the CA's ECDSA signature.
//! - **Nothing ignored that is critical**: an unknown critical extension is an error, as in Go's `x509.Verify`.
//! - A parsed certificate proves nothing. Trust comes from [`crate::Msp::validate`].

use std::fmt;
use std::sync::Arc;

use x509_parser::certificate::X509Certificate;
use x509_parser::extensions::{ParsedExtension, X509Extension};
use x509_parser::prelude::FromDer as _;
use x509_parser::x509::{AlgorithmIdentifier, SubjectPublicKeyInfo, X509Name};

use crate::der;
use crate::digest::{Digest, sha256};
use crate::key::{CertificateSignatureAlgorithm, KeyError, PublicKey, SignatureError, ecdsa_with_low_s};
use crate::pem::{self, PEM_BYTES_MAX, PemError};

/// Why bytes are not a certificate that can be used.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum CertificateError {
    /// Not one PEM block.
    #[error("the certificate is not a single PEM block: {0}")]
    Pem(#[from] PemError),
    /// A PEM block of another kind.
    #[error("expected a PEM block \"CERTIFICATE\", found \"{0}\"")]
    Label(String),
    /// More bytes than any certificate has.
    #[error("a certificate of {0} bytes is longer than the {PEM_BYTES_MAX} allowed")]
    TooLong(usize),
    /// Not an X.509 certificate in strict DER.
    #[error("not a DER certificate: {0}")]
    Malformed(String),
    /// The subject's key is of an unsupported kind or weak.
    #[error("the public key cannot be used: {0}; issue the certificate for an Ed25519 or P-256 key")]
    PublicKey(#[from] KeyError),
    /// A critical extension that is not understood here must not be ignored (RFC 5280 4.2).
    #[error("the critical extension {0} is not supported; issue the certificate without it")]
    CriticalExtension(String),
}

/// An X.509 certificate. Cheap to clone.
#[derive(Clone)]
pub struct Certificate(Arc<Fields>);

struct Fields {
    der: Vec<u8>,
    pem: Vec<u8>,
    to_be_signed: Vec<u8>,
    signature: Vec<u8>,
    signature_algorithm: CertificateSignatureAlgorithm,
    canonical_der: Option<Vec<u8>>,
    fingerprint: Digest,
    subject: Vec<u8>,
    issuer: Vec<u8>,
    common_name: Option<String>,
    organizational_units: Vec<String>,
    serial: Vec<u8>,
    not_before: i64,
    not_after: i64,
    public_key: PublicKey,
    extensions: Extensions,
}

#[derive(Debug, Default)]
struct Extensions {
    is_ca: bool,
    path_length_max: Option<u32>,
    may_sign_certificates: Option<bool>,
    subject_key_id: Option<Vec<u8>>,
    authority_key_id: Option<Vec<u8>>,
}

impl Certificate {
    /// Parses exactly one PEM block `CERTIFICATE` (an empty label too, as in Fabric); no text around it.
    ///
    /// # Errors
    /// [`CertificateError`] for anything else.
    pub fn from_pem(bytes: &[u8]) -> Result<Self, CertificateError> {
        Self::from_block(pem::single_block(bytes, PEM_BYTES_MAX)?, bytes)
    }

    /// Parses the first PEM block of a configured file, whatever text stands around it, as Fabric does for CAs.
    pub(crate) fn from_configured_pem(bytes: &[u8]) -> Result<Self, CertificateError> {
        Self::from_block(pem::first_block(bytes, PEM_BYTES_MAX)?, bytes)
    }

    fn from_block(block: pem::PemBlock<'_>, bytes: &[u8]) -> Result<Self, CertificateError> {
        if !matches!(block.label, "CERTIFICATE" | "") {
            return Err(CertificateError::Label(block.label.to_owned()));
        }
        parse(block.contents, bytes.to_vec())
    }

    /// Parses DER; [`Self::pem`] is then encoded from it.
    ///
    /// # Errors
    /// [`CertificateError`] for anything but one certificate in strict DER.
    pub fn from_der(bytes: &[u8]) -> Result<Self, CertificateError> {
        if bytes.len() > PEM_BYTES_MAX {
            return Err(CertificateError::TooLong(bytes.len()));
        }
        parse(bytes.to_vec(), pem::encode("CERTIFICATE", bytes).into_bytes())
    }

    /// The DER bytes as given.
    #[must_use]
    pub fn der(&self) -> &[u8] {
        &self.0.der
    }

    /// The PEM bytes exactly as given, or encoded if made from DER.
    #[must_use]
    pub fn pem(&self) -> &[u8] {
        &self.0.pem
    }

    /// The subject's common name. Of several the last counts, as in Go.
    #[must_use]
    pub fn subject_common_name(&self) -> Option<&str> {
        self.0.common_name.as_deref()
    }

    /// The subject's organisational units in order, duplicates included.
    #[must_use]
    pub fn organizational_units(&self) -> &[String] {
        &self.0.organizational_units
    }

    /// The serial number, big-endian, without leading zeros.
    #[must_use]
    pub fn serial(&self) -> &[u8] {
        &self.0.serial
    }

    /// Start of validity, Unix seconds.
    #[must_use]
    pub fn not_before(&self) -> i64 {
        self.0.not_before
    }

    /// Last second of validity, Unix seconds.
    #[must_use]
    pub fn not_after(&self) -> i64 {
        self.0.not_after
    }

    /// Whether the basic constraints say this is a certificate authority.
    #[must_use]
    pub fn is_ca(&self) -> bool {
        self.0.extensions.is_ca
    }

    /// The subject key identifier extension.
    #[must_use]
    pub fn subject_key_id(&self) -> Option<&[u8]> {
        self.0.extensions.subject_key_id.as_deref()
    }

    /// The key identifier of the authority key identifier extension.
    #[must_use]
    pub fn authority_key_id(&self) -> Option<&[u8]> {
        self.0.extensions.authority_key_id.as_deref()
    }

    /// The subject's public key.
    #[must_use]
    pub fn public_key(&self) -> &PublicKey {
        &self.0.public_key
    }

    /// SHA-256 of the certificate's DER, its CA's ECDSA signature in low-S form: Fabric's identity identifier.
    ///
    /// For certificates with a low-S or an Ed25519 signature this is the SHA-256 of [`Self::der`].
    #[must_use]
    pub fn fingerprint(&self) -> Digest {
        self.0.fingerprint
    }

    /// The DER with the CA's ECDSA signature in low-S form, as Fabric compares and hashes certificates.
    pub(crate) fn canonical_der(&self) -> &[u8] {
        self.0.canonical_der.as_deref().unwrap_or(&self.0.der)
    }

    /// The subject's name, DER.
    pub(crate) fn subject(&self) -> &[u8] {
        &self.0.subject
    }

    /// The issuer's name, DER.
    pub(crate) fn issuer(&self) -> &[u8] {
        &self.0.issuer
    }

    /// How many CA certificates may stand between this CA and a leaf.
    pub(crate) fn path_length_max(&self) -> Option<u32> {
        self.0.extensions.path_length_max
    }

    /// Whether this certificate may sign others: the CA flag, and `keyCertSign` if there is a key usage at all.
    pub(crate) fn may_sign_certificates(&self) -> bool {
        self.0.extensions.is_ca && self.0.extensions.may_sign_certificates.unwrap_or(true)
    }

    /// Whether `issuer`'s key made the signature of this certificate. High S is accepted, see [`PublicKey`].
    pub(crate) fn verify_signed_by(&self, issuer: &Self) -> Result<(), SignatureError> {
        let fields = &self.0;
        issuer.public_key().verify_certificate(
            fields.signature_algorithm,
            &fields.to_be_signed,
            &fields.signature,
        )
    }
}

/// Two certificates are equal if they are the same certificate, however spelled.
impl PartialEq for Certificate {
    fn eq(&self, other: &Self) -> bool {
        self.0.fingerprint == other.0.fingerprint
    }
}

impl Eq for Certificate {}

impl fmt::Debug for Certificate {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter
            .debug_struct("Certificate")
            .field("common_name", &self.0.common_name)
            .field("serial", &hex::encode(&self.0.serial))
            .field("fingerprint", &self.0.fingerprint)
            .finish_non_exhaustive()
    }
}

fn parse(der: Vec<u8>, pem: Vec<u8>) -> Result<Certificate, CertificateError> {
    let wrapping =
        der::split_signed(&der).ok_or_else(|| malformed("the outer structure is not strict DER"))?;
    let (rest, parsed) = X509Certificate::from_der(&der).map_err(|error| malformed(error.to_string()))?;
    if !rest.is_empty() {
        return Err(malformed("bytes follow the certificate"));
    }
    let public_key = parse_public_key(parsed.public_key())?;
    let extensions = parse_extensions(parsed.extensions())?;
    let signature_algorithm = signature_algorithm(&parsed.signature_algorithm);
    let canonical_der = low_s_form(&wrapping, signature_algorithm);
    let fields = Fields {
        to_be_signed: wrapping.to_be_signed.to_vec(),
        signature: wrapping.signature.to_vec(),
        signature_algorithm,
        fingerprint: sha256(canonical_der.as_deref().unwrap_or(&der)),
        canonical_der,
        subject: parsed.subject().as_raw().to_vec(),
        issuer: parsed.issuer().as_raw().to_vec(),
        common_name: texts(parsed.subject().iter_common_name()).pop(),
        organizational_units: organizational_units(parsed.subject()),
        serial: without_leading_zeros(parsed.raw_serial()).to_vec(),
        not_before: parsed.validity().not_before.timestamp(),
        not_after: parsed.validity().not_after.timestamp(),
        public_key,
        extensions,
        pem,
        der: Vec::new(),
    };
    Ok(Certificate(Arc::new(Fields { der, ..fields })))
}

fn malformed(why: impl Into<String>) -> CertificateError {
    CertificateError::Malformed(why.into())
}

/// `None` if the certificate is its own canonical form.
fn low_s_form(wrapping: &der::SignedObject<'_>, algorithm: CertificateSignatureAlgorithm) -> Option<Vec<u8>> {
    use CertificateSignatureAlgorithm as Kind;
    if !matches!(algorithm, Kind::EcdsaSha256 | Kind::EcdsaSha384 | Kind::EcdsaSha512) {
        return None;
    }
    let low = ecdsa_with_low_s(wrapping.signature)?;
    (low != wrapping.signature).then(|| der::join_signed(wrapping.to_be_signed, wrapping.algorithm, &low))
}

pub(crate) fn signature_algorithm(algorithm: &AlgorithmIdentifier<'_>) -> CertificateSignatureAlgorithm {
    match algorithm.algorithm.to_id_string().as_str() {
        "1.3.101.112" => CertificateSignatureAlgorithm::Ed25519,
        "1.2.840.10045.4.3.2" => CertificateSignatureAlgorithm::EcdsaSha256,
        "1.2.840.10045.4.3.3" => CertificateSignatureAlgorithm::EcdsaSha384,
        "1.2.840.10045.4.3.4" => CertificateSignatureAlgorithm::EcdsaSha512,
        _ => CertificateSignatureAlgorithm::Unsupported,
    }
}

const EC_PUBLIC_KEY: &str = "1.2.840.10045.2.1";
const PRIME256V1: &str = "1.2.840.10045.3.1.7";
const ED25519: &str = "1.3.101.112";

/// Serial numbers are compared as numbers, so leading zeros do not count.
pub(crate) fn without_leading_zeros(bytes: &[u8]) -> &[u8] {
    let zeros = bytes.iter().take_while(|&&byte| byte == 0).count();
    bytes.get(zeros..).unwrap_or_default()
}

fn parse_public_key(information: &SubjectPublicKeyInfo<'_>) -> Result<PublicKey, KeyError> {
    let key = information.subject_public_key.data.as_ref();
    let parameters = information.algorithm.parameters.as_ref();
    let curve = parameters.and_then(|any| any.as_oid().ok()).map(|oid| oid.to_id_string());
    match (information.algorithm.algorithm.to_id_string().as_str(), curve.as_deref()) {
        (ED25519, None) => PublicKey::from_ed25519(key),
        // Only the uncompressed form, as in Go, so that a key has one spelling.
        (EC_PUBLIC_KEY, Some(PRIME256V1)) if key.first() == Some(&4) => PublicKey::from_sec1(key),
        _ => Err(KeyError::Malformed),
    }
}

fn texts<'a>(
    attributes: impl Iterator<Item = &'a x509_parser::x509::AttributeTypeAndValue<'a>>,
) -> Vec<String> {
    attributes.filter_map(|attribute| attribute.as_str().ok()).map(str::to_owned).collect()
}

fn organizational_units(subject: &X509Name<'_>) -> Vec<String> {
    texts(subject.iter_organizational_unit())
}

fn parse_extensions(extensions: &[X509Extension<'_>]) -> Result<Extensions, CertificateError> {
    let mut result = Extensions::default();
    for (index, extension) in extensions.iter().enumerate() {
        if extensions.iter().take(index).any(|earlier| earlier.oid == extension.oid) {
            return Err(malformed(format!("the extension {} occurs twice", extension.oid)));
        }
        match extension.parsed_extension() {
            ParsedExtension::BasicConstraints(constraints) => {
                result.is_ca = constraints.ca;
                result.path_length_max = constraints.path_len_constraint;
            }
            ParsedExtension::KeyUsage(usage) => result.may_sign_certificates = Some(usage.key_cert_sign()),
            ParsedExtension::SubjectKeyIdentifier(id) => result.subject_key_id = Some(id.0.to_vec()),
            ParsedExtension::AuthorityKeyIdentifier(id) => {
                result.authority_key_id = id.key_identifier.as_ref().map(|id| id.0.to_vec());
            }
            ParsedExtension::ParseError { error } => {
                return Err(malformed(format!("the extension {}: {error}", extension.oid)));
            }
            // They say nothing about whether a key belongs to a member.
            ParsedExtension::ExtendedKeyUsage(_)
            | ParsedExtension::SubjectAlternativeName(_)
            | ParsedExtension::CertificatePolicies(_) => {}
            _ if extension.critical => {
                return Err(CertificateError::CriticalExtension(extension.oid.to_id_string()));
            }
            _ => {}
        }
    }
    Ok(result)
}

#[cfg(all(test, feature = "issue"))]
mod tests {
    use super::*;
    use crate::issue::{Organization, Validity};
    use crate::{Algorithm, Role, serialize_identity};

    const VALIDITY: Validity = Validity::ten_years_from(1_800_000_000);

    fn organization() -> Organization {
        Organization::new("Org1MSP".into(), "org1.example.com", Algorithm::EcdsaP256, VALIDITY).unwrap()
    }

    /// The other spelling of an ECDSA-signed certificate, which anyone can make without the CA's key.
    fn with_high_s(certificate: &Certificate) -> Certificate {
        let parts = der::split_signed(certificate.der()).unwrap();
        let low = p256::ecdsa::Signature::from_der(parts.signature).unwrap();
        let high = p256::ecdsa::Signature::from_scalars(low.r(), -low.s()).unwrap();
        let der = der::join_signed(parts.to_be_signed, parts.algorithm, high.to_der().as_bytes());
        Certificate::from_der(&der).unwrap()
    }

    #[test]
    fn a_high_s_spelling_is_the_same_certificate_and_still_valid() {
        let organization = organization();
        let member = organization.authority().issue_enrolment("peer0", Role::Peer, VALIDITY).unwrap();
        let high = with_high_s(&member.certificate);
        assert_ne!(high.der(), member.certificate.der());
        assert_eq!(high.canonical_der(), member.certificate.der());
        assert_eq!(high.fingerprint(), member.certificate.fingerprint());
        assert_eq!(high, member.certificate);
        let msp = organization.msp().unwrap();
        msp.identify(&serialize_identity(msp.id(), high.pem())).unwrap();
    }

    #[test]
    fn the_fields_are_those_that_were_issued() {
        let organization = organization();
        let member = organization.authority().issue_enrolment("peer0", Role::Peer, VALIDITY).unwrap();
        let certificate = &member.certificate;
        assert_eq!(certificate.subject_common_name(), Some("peer0"));
        assert_eq!(certificate.organizational_units(), ["peer"]);
        assert_eq!((certificate.not_before(), certificate.not_after()), (1_800_000_000, 2_115_360_000));
        assert!(!certificate.is_ca());
        let authority = organization.authority().certificate();
        assert!(authority.is_ca() && authority.may_sign_certificates());
        assert_eq!(certificate.authority_key_id(), authority.subject_key_id());
        assert_eq!(authority.subject_key_id(), Some(authority.public_key().key_id().as_ref()));
        assert_eq!(certificate.fingerprint(), sha256(certificate.der()));
        assert_eq!(Certificate::from_pem(certificate.pem()).unwrap(), *certificate);
        assert_eq!(certificate.verify_signed_by(authority), Ok(()));
        assert!(certificate.verify_signed_by(certificate).is_err());
    }

    #[test]
    fn refuses_bytes_around_and_within() {
        let organization = organization();
        let der = organization.authority().certificate().der();
        let malformed =
            |der: &[u8]| matches!(Certificate::from_der(der), Err(CertificateError::Malformed(_)));
        assert!(malformed(&[der, &[0]].concat()));
        assert!(malformed(&der[..der.len() - 1]));
        assert!(malformed(b""));
        let long = vec![0; PEM_BYTES_MAX + 1];
        assert_eq!(Certificate::from_der(&long), Err(CertificateError::TooLong(long.len())));
        let other_label = pem::encode("PUBLIC KEY", der);
        let error = Certificate::from_pem(other_label.as_bytes()).unwrap_err();
        assert_eq!(error, CertificateError::Label("PUBLIC KEY".to_owned()));
        // Fabric takes an empty label for a certificate.
        let no_label = pem::encode("", der);
        assert!(Certificate::from_pem(no_label.as_bytes()).is_ok());
    }
}
